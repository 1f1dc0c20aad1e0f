"""check_octo.py passes on the original's outputs, and on any folder of its kind; it sees what is off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity.check_octo import GIVEN, SECTIONS, Fixture, check

FIXTURE = Path(__file__).parent.parent / "fixtures" / "octo"


def test_every_array_of_the_original_is_reproduced() -> None:
    lines, passed = check(FIXTURE)
    assert passed, lines
    done = {line.split()[0] for line in lines}
    assert {name for name in np.load(FIXTURE / "expected.npz").files if not GIVEN.fullmatch(name)} <= done
    assert sum(name.startswith("masks/") for name in done) == 8


def resized(keys: dict[str, dict[str, list[int]]]) -> dict[str, dict[str, list[int]]]:
    """The parts of another width, depth and head: 32 for 48, 2 heads for 4, a third block."""
    wide = {part: {k: [32 if n == 48 else n for n in s] for k, s in table.items()} for part, table in keys.items()}
    for table in wide.values():
        for path, shape in table.items():
            if "/query/" in path or "/key/" in path or "/value/" in path:
                inner = 8 if "map_head" in path else 2
                shape[-2:] = [inner, 32 // inner]
            elif path.endswith("MultiHeadDotProductAttention_0/out/kernel"):
                inner = 8 if "map_head" in path else 2
                shape[:] = [inner, 32 // inner, 32]
            elif path.endswith("reverse_network/Dense_0/kernel"):
                shape[0] -= 16
            elif path.endswith("map_head/MlpBlock_0/Dense_0/kernel"):
                shape[1] = 128
            elif path.endswith("map_head/MlpBlock_0/Dense_1/kernel"):
                shape[0] = 128
            elif path.endswith("map_head/MlpBlock_0/Dense_0/bias"):
                shape[0] = 128
    blocks = "octo_transformer/BlockTransformer_0/Transformer_0/encoderblock_"
    third = {k.replace("encoderblock_1", "encoderblock_2"): s for k, s in wide["module"].items() if f"{blocks}1" in k}
    return {**wide, "module": {**wide["module"], **third}}


def another(place: Path) -> Path:
    """A folder of other sizes and another seed, its outputs vlakit's own: the check runs, which is no parity."""
    shutil.copytree(FIXTURE, place)
    config = json.loads((FIXTURE / "config.json").read_text())
    keys = resized(json.loads((FIXTURE / "keys.json").read_text()))
    (place / "keys.json").write_text(json.dumps(keys))
    (place / "config.json").write_text(json.dumps({**config, "seed": 5, "d": 32, "heads": 2, "layers": 3}))
    arrays: dict[str, Any] = dict(np.load(FIXTURE / "expected.npz"))
    arrays["head/embeddings"] = arrays["head/embeddings"][..., :32]
    np.savez(place / "expected.npz", **arrays)
    fixture = Fixture(place)
    with torch.no_grad():
        computed = {name: np.asarray(value) for one in SECTIONS for name, value in one(fixture)}
    kept = {name: value for name, value in computed.items() if not name.startswith("masks/")}
    np.savez(place / "expected.npz", **{**arrays, **kept})
    return place


def test_it_checks_any_such_folder_and_sees_what_is_off(tmp_path: Path) -> None:
    folder = another(tmp_path / "octo")
    lines, passed = check(folder)
    assert passed, lines
    arrays: dict[str, Any] = dict(np.load(folder / "expected.npz"))
    arrays |= {"learning_rate": arrays["learning_rate"] * 1.01, "an_array_of_tomorrow": arrays["learning_rate"]}
    np.savez(folder / "expected.npz", **arrays)
    lines, passed = check(folder)
    assert not passed
    assert {line.split()[0] for line in lines if line.endswith("FAIL")} == {"learning_rate", "an_array_of_tomorrow"}
