"""check_rt1.py: the original's numbers, and any other folder of the kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.check_rt1 import SECTIONS, Fixture, check, expected_masks
from rt1_keras import own_name

from vlakit.errors import CheckpointMismatch

FIXTURE = Path(__file__).parent.parent / "fixtures" / "rt1"


@pytest.mark.slow
def test_every_array_is_the_originals() -> None:
    lines, passed = check(FIXTURE)
    assert passed, lines
    assert len(lines) == 25


def resized(keys: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The transformer's parameters at other sizes; the other parts are left out or as they were."""
    slots = sum(1 if kind == "int32" else size for _, size, kind, *_ in new["spec"])
    length = new["T"] * (new["img_tokens"] + slots)
    words = {
        old["d"]: new["d"],
        old["heads"]: new["heads"],
        old["key"]: new["key"],
        old["vocab"]: new["vocab"],
        36: length,
    }
    layer = {k: v for k, v in keys["transformer"].items() if k.startswith("layer_0/")}
    shapes = {k: v for k, v in keys["transformer"].items() if not k.startswith("layer_")}
    for number in range(new["layers"]):
        shapes |= {k.replace("layer_0", f"layer_{number}"): v for k, v in layer.items()}
    return {"transformer": {k: [words[n] for n in v] for k, v in shapes.items()}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Another folder, its outputs vlakit's own: the check runs, which is no parity."""
    old = json.loads((FIXTURE / "config.json").read_text())
    spec = [["hand", 2, "float32", [-1.0, -2.0], [1.0, 0.5]], ["mode", 3, "int32", 0, 1], ["base", 1, "float32", 0, 3]]
    new = {
        **old,
        "seed": 5,
        "T": 4,
        "d": 24,
        "heads": 2,
        "key": 20,
        "layers": 3,
        "vocab": 32,
        "img_tokens": 3,
        "spec": spec,
    }
    place = tmp_path / "fixture"
    shutil.copytree(FIXTURE, place)
    keys = json.loads((FIXTURE / "keys.json").read_text())
    small = {name: keys[name] for name in ("film", "token_learner", "efficientnet_small")}
    (place / "keys.json").write_text(json.dumps(small | resized(keys, old, new)))
    (place / "config.json").write_text(json.dumps(new))
    rng = np.random.default_rng(0)
    kept = ("film/", "token_learner/", "crop/", "efficientnet_small/")
    arrays = {k: v for k, v in np.load(FIXTURE / "expected.npz").items() if k.startswith(kept)}
    for where, shape in (("tokeniser/in", (9,)), ("network/action", (2, 4))):
        choice = np.eye(3, dtype=np.int32)[rng.integers(0, 3, shape)]
        drawn = {n: rng.normal(size=(*shape, size)).astype(np.float32) for n, size in (("hand", 2), ("base", 1))}
        arrays |= {f"{where}/{name}": value for name, value in {**drawn, "mode": choice}.items()}
    arrays |= {"network/image_tokens": rng.normal(size=(2, 4, 3, 24)).astype(np.float32)}
    arrays |= {"stepwise/frames": rng.normal(size=(6, 3, 24)).astype(np.float32)}
    np.savez(place / "expected.npz", **arrays)  # pyright: ignore
    fixture = Fixture(place)
    with torch.no_grad():
        computed = {name: np.asarray(value) for one in SECTIONS for name, value in one(fixture)}
    computed = {name: value for name, value in computed.items() if name not in expected_masks(fixture)}
    np.savez(place / "expected.npz", **{**arrays, **computed})  # pyright: ignore
    return place


def test_it_checks_any_such_folder_and_sees_what_is_off(folder: Path) -> None:
    """The folder has no B3, whose size is one for all."""
    lines, passed = check(folder)
    assert passed, lines
    assert {"stepwise/tokens 0.00e+00 ok", "masks/0/mask 0.00e+00 ok"} <= set(lines)
    arrays = dict(np.load(folder / "expected.npz"))
    arrays |= {"network/logits": arrays["network/logits"] + 0.01, "an/array_of_tomorrow": arrays["film/y"]}
    np.savez(folder / "expected.npz", **arrays)  # pyright: ignore
    again, passed = check(folder)
    assert not passed
    assert {line.split()[0] for line in again if line.endswith("FAIL")} == {"network/logits", "an/array_of_tomorrow"}


def test_keras_paths_become_the_names_here() -> None:
    assert own_name("film_3/mult/kernel", "efficientnet") == "films.3.mult.weight"
    assert own_name("layer_1/mha1/output/bias", "transformer") == "layers.1.output.bias"
    with pytest.raises(CheckpointMismatch, match="no parameter 'layer_1/mha2/output/bias'"):
        own_name("layer_1/mha2/output/bias", "transformer")
