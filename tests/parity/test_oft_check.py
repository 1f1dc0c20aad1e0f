"""check_oft.py works on any folder of its kind: other constants, other images, grouped-query attention, no FiLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.check_oft import SECTIONS, Fixture, check
from tiny_folders import released_config

from vlakit.checkpoints.hf_config import read_description
from vlakit.checkpoints.weights import released_name
from vlakit.models.network import build_network
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor

FIXTURE = Path(__file__).parent.parent / "fixtures" / "oft"
PADDING, WORDS = 32000, (5, 4)


def keys_of(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Files and tensors of a folder, as the networks under both heads name them."""
    model = read_description(folder).model
    cameras = tuple("abc"[: settings["images"]])
    common = {"image_size": 64, "channel_statistics": ("half",), "tokenizer": "llama2", "cameras": cameras}
    processor = TokenProcessor(TokenSettings(**common, proprio=settings["proprio_dim"]))
    files: dict[str, Any] = {}
    for head, suffix in (("l1", ""), ("diffusion", " (diffusion)")):
        options = {"action_size": settings["action_dim"]}
        description = {**model.description, "head": head, "head_options": options}
        for name, tensor in build_network(description, processor, device="meta").state_dict().items():
            part, _, rest = name.partition(".")
            beside = part in ("action_head", "proprio_projector", "noisy_action_projector")
            own = suffix if part == "action_head" else ""
            file = f"{part}--9_checkpoint.pt{own}" if beside else "model.safetensors"
            table = files.setdefault(file, {"prefix": f"{part}{own}/" if beside else "", "scale": {}, "tensors": {}})
            table["tensors"][f"module.{rest}" if beside else released_name(name)] = list(tensor.shape)
    return {"seed": 3, "files": files}


def given(settings: dict[str, Any], low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of an expected.npz, drawn."""
    rng = np.random.default_rng(0)
    chunk, size, images = settings["chunk"], settings["action_dim"], settings["images"]
    n = chunk * size
    lengths = [words + n + 1 for words in WORDS]
    ids = np.full((2, max(lengths)), PADDING)
    labels = np.full(ids.shape, -100)
    for row, words in enumerate(WORDS):
        answer = [*rng.integers(PADDING - 255, PADDING, n), 2]
        ids[row, : lengths[row]] = [1, *rng.integers(3, 1000, words - 2), 29871, *answer]
        labels[row, words : lengths[row]] = answer
    normal = rng.standard_normal((2, chunk, size)).astype(np.float32)
    raw = rng.standard_normal((2, settings["proprio_dim"])).astype(np.float32)
    return {
        "pixel_values": rng.standard_normal((2, 3 * images, 64, 64)).astype(np.float16),
        "input_ids": ids,
        "attention_mask": np.arange(ids.shape[1]) < np.array(lengths)[:, None],
        "labels": labels,
        "actions": normal.clip(-1, 1),
        "proprio_raw": raw,
        "proprio": (2 * (raw - low) / (high - low + 1e-8) - 1).clip(-1, 1).astype(np.float32),
        "grad_names": np.array(["projector.fc1.weight", "action_head/module.model.fc1.weight"]),
        "train_noise": normal[::-1].copy(),
        "train_timesteps": np.array([1, 6]),
        "ddim4_kept": np.arange(4),
        "ddim4_x": rng.standard_normal((4, chunk, size)).astype(np.float32),
        "ddim4_start": normal[0],
    }


@pytest.fixture(params=[(1, 5, 7, "bounds_q99"), (3, 4, 14, "bounds")], ids=["Bridge", "ALOHA"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Another folder of the fixture's kind, its outputs vlakit's own: the check runs, which is no parity."""
    images, chunk, size, normalization = request.param
    settings = {
        "images": images,
        "chunk": chunk,
        "action_dim": size,
        "proprio_dim": size,
        "lora_rank": 2,
        "lora_alpha": 2,
    }
    settings |= {"normalization": normalization, "unnorm_key": "one", "prompt_lengths": WORDS, "ddim_steps": [4]}
    settings |= {"diffusion_steps_train": 8}
    numbers = {name: np.linspace(0.1, 1, size) for name in ("q99", "max", "mean", "std")}
    numbers |= {"q01": -numbers["q99"], "min": -2 * numbers["q99"], "max": 2 * numbers["q99"]}
    table = {name: values.tolist() for name, values in numbers.items()}
    statistics = {"one": {"action": {**table, "mask": [True] * size}, "proprio": table}}
    place = tmp_path / "fixture"
    place.mkdir()
    (place / "oft.json").write_text(json.dumps(settings))
    config = {**released_config(towers=1, num_key_value_heads=2), "norm_stats": statistics}
    (place / "config.json").write_text(json.dumps(config))
    (place / "keys.json").write_text(json.dumps(keys_of(place, settings)))
    shutil.copyfile(FIXTURE / "seeded_weights.py", place / "seeded_weights.py")
    bounds = ("min", "max") if normalization == "bounds" else ("q01", "q99")
    arrays = given(settings, *(numbers[name] for name in bounds))
    names = [f"l1_{images}img_loss", f"diffusion_{images}img_proprio_loss", "discrete_loss"]
    np.savez(place / "expected.npz", **arrays, **{name: np.float64(1) for name in names})  # pyright: ignore
    (tmp_path / "scratch").mkdir()
    fixture = Fixture(place, tmp_path / "scratch")
    computed = {name: np.asarray(torch.as_tensor(value).detach()) for one in SECTIONS for name, value in one(fixture)}
    np.savez(place / "expected.npz", **{**arrays, **computed})  # pyright: ignore
    return place


def test_it_checks_any_such_folder_and_sees_what_is_off(folder: Path) -> None:
    lines, passed = check(folder)
    assert passed, lines
    assert {line.split()[0] for line in lines} >= {
        "grad_norms",
        "discrete_tokens",
        "ddim4_actions",
        "attention_allowed",
    }
    arrays = dict(np.load(folder / "expected.npz"))
    arrays |= {"projected": arrays["projected"] * 1.01, "an_array_of_tomorrow": arrays["projected"]}
    np.savez(folder / "expected.npz", **arrays)  # pyright: ignore
    again, passed = check(folder)
    assert not passed
    assert {line.split()[0] for line in again if line.endswith("FAIL")} == {"projected", "an_array_of_tomorrow"}
