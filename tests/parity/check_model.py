"""Compare vlakit's model with the outputs that the original OpenVLA code gave: python check_model.py DIR

DIR holds config.json, keys.json (tensor -> shape, and the seed), seeded_weights.py and expected.npz.
Prints `output: max relative error` line by line; exits with 1 beyond tolerance.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vlakit.checkpoints.hf_config import read_description
from vlakit.checkpoints.weights import load_weights
from vlakit.data.shards.statistics import statistics_from_json
from vlakit.models.network import build_empty
from vlakit.models.openvla.decoding import Choice, generate
from vlakit.models.openvla.vla import OpenVLA
from vlakit.processing.normalizer import unnormalize
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Inputs, TextBatch

TOLERANCE = 1e-4


def processor_of(folder: Path) -> TokenProcessor:
    """The processor that config.json describes, with the statistics beside it."""
    description = read_description(folder)
    return TokenProcessor(description.processor, statistics_from_json(description.statistics or {}, where=str(folder)))


def seeded_model(folder: Path) -> OpenVLA:
    """The model that config.json describes, with the weights that keys.json and seeded_weights.py define."""
    keys = json.loads((folder / "keys.json").read_text())
    spec = importlib.util.spec_from_file_location("seeded_weights", folder / "seeded_weights.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder}: no seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in keys["tensors"].items():
            yield name, torch.from_numpy(module.seeded_tensor(keys["seed"], name, tuple(shape)))

    model = build_empty(read_description(folder).model.description, processor_of(folder))
    if not isinstance(model, OpenVLA):
        raise SystemExit(f"{folder}: no OpenVLA model")
    report = load_weights(model, tensors(), where=str(folder))
    if report.unexpected:
        raise SystemExit(f"{folder}: tensors of no use: {report.unexpected}")
    return model.eval()


def error_of(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to the output's scale; for integers the share of unequal ones."""
    if actual.shape != expected.shape:
        return float("inf")
    if np.issubdtype(expected.dtype, np.integer):
        return float((actual != expected).mean())
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@torch.no_grad()
def outputs(folder: Path, expected: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Everything expected.npz holds, computed here."""
    model = seeded_model(folder)
    pixels, ids, mask, labels = (
        torch.from_numpy(expected[name]) for name in ("pixel_values", "input_ids", "attention_mask", "labels")
    )
    features = model.vision_backbone(pixels)
    yield "patch_features", features[..., ::8].numpy()
    yield "projected", model.projector(features).numpy()
    logits = model.all_logits(pixels, ids, mask)
    yield "logits_last", logits[:, -expected["logits_last"].shape[1] :, ::16].numpy()
    yield "argmax", logits.argmax(dim=-1).numpy()
    inputs = Inputs(
        pixels={"primary": pixels[:, None]},
        window_mask=torch.ones(len(ids), 1, dtype=torch.bool),
        datasets=["demo_1"] * len(ids),
        action_shape=(1, 7),
        text=TextBatch(ids, mask, labels),
    )
    yield "loss", np.asarray(model.answers(inputs).loss.numpy(), dtype=expected["loss"].dtype)
    processor = processor_of(folder)
    prompts = [[*row[real.bool()].tolist(), processor.text.empty_id] for row, real in zip(ids, mask, strict=True)]
    generated = generate(
        model, model.encode_image(pixels), prompts, expected["generated"].shape[1], Choice()
    ).ids.numpy()
    yield "generated", generated
    normalized = processor.actions.decode(generated, strict=False)
    actions = unnormalize(normalized, processor.statistics_of("demo_1"))
    yield "actions", actions.astype(expected["actions"].dtype)


def check(folder: Path) -> tuple[list[str], bool]:
    """One line an output, and whether all are within tolerance."""
    expected = dict(np.load(folder / "expected.npz"))
    lines, passed = [], True
    for name, actual in outputs(folder, expected):
        error = error_of(actual, expected[name])
        within = error == 0 if np.issubdtype(expected[name].dtype, np.integer) else error <= TOLERANCE
        passed &= within
        lines.append(f"{name}: {error:.2e}{'' if within else '  beyond tolerance'}")
    return lines, passed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    printed, agreed = check(Path(sys.argv[1]))
    print("\n".join(printed))
    sys.exit(0 if agreed else 1)
