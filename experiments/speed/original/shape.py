"""What both sides of the comparison share: config.json of the shape, inputs, seeded weights.

Imports nothing of vlakit, so that the other environment can run it too.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

IMAGE_SIZE, BATCH, PROMPT, ANSWER = 224, 4, 24, 8
WIDTHS = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
FIRST_ACTION_ID, EMPTY_ID, STOP_ID = 31744, 29871, 2
LEARNING_RATE, DATASET = 1e-4, "demo_1"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def write_config(fixture: Path, folder: Path) -> None:
    """The fixture's config.json, made larger."""
    config = json.loads((fixture / "config.json").read_text())
    config["image_sizes"] = [IMAGE_SIZE, IMAGE_SIZE]
    config["text_config"].update(WIDTHS, num_key_value_heads=WIDTHS["num_attention_heads"])
    (folder / "config.json").write_text(json.dumps(config))


def seeded(fixture: Path, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights by the fixture's own function of (seed, name, shape); names are those of the released checkpoints."""
    spec = importlib.util.spec_from_file_location("seeded_weights", fixture / "seeded_weights.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{fixture}: no seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, shape in shapes:
        yield name, torch.from_numpy(module.seeded_tensor(0, name, shape))


def inputs() -> dict[str, torch.Tensor]:
    """pixel_values (B, 6, S, S), input_ids and labels (B, 32): BOS, prompt, 29871, seven action ids, stop."""
    random = np.random.default_rng(0)
    ids = random.integers(3, 29000, (BATCH, PROMPT + ANSWER))
    ids[:, 0], ids[:, PROMPT - 1], ids[:, -1] = 1, EMPTY_ID, STOP_ID
    ids[:, PROMPT:-1] = random.integers(FIRST_ACTION_ID, FIRST_ACTION_ID + 256, (BATCH, ANSWER - 1))
    labels = ids.copy()
    labels[:, :PROMPT] = -100
    pixels = random.standard_normal((BATCH, 6, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    return {
        "pixel_values": torch.from_numpy(pixels),
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
    }
