"""check_octo.py passes on the original's outputs, and on any folder of its kind; it sees what is off."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import product
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


def heads_of(path: str) -> int:
    return 8 if "map_head" in path else 2


# What of a path's shape is not merely 32 in place of 48.
RESHAPED: list[tuple[str, Callable[[str, list[int]], list[int]]]] = [
    (r"/(query|key|value)/", lambda path, shape: [*shape[:-2], heads_of(path), 32 // heads_of(path)]),
    (r"Attention_0/out/kernel$", lambda path, shape: [heads_of(path), 32 // heads_of(path), 32]),
    (r"reverse_network/Dense_0/kernel$", lambda path, shape: [shape[0] - 16, shape[1]]),
    (r"map_head/MlpBlock_0/", lambda path, shape: [128 if n == 192 else n for n in shape]),
]


def resized(keys: dict[str, dict[str, list[int]]]) -> dict[str, dict[str, list[int]]]:
    """The parts at width 32 for 48, with 2 heads for 4 and a third block."""
    wide = {part: {k: [32 if n == 48 else n for n in s] for k, s in table.items()} for part, table in keys.items()}
    for table in wide.values():
        for path, (pattern, reshape) in product(table, RESHAPED):
            if re.search(pattern, path):
                table[path] = reshape(path, table[path])
    third = {k.replace("encoderblock_1", "encoderblock_2"): s for k, s in wide["module"].items() if "block_1" in k}
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
