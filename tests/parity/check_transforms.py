"""Compare our standardisation with recorded outputs of OpenVLA's own: python tests/parity/check_transforms.py DIR.

A recording holds only the fields that the original function read: where `action` is missing, it passed through as is.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.specs.spec import DatasetSpec, Segment, load_spec
from vlakit.data.specs.standardize import standardize_raw
from vlakit.errors import VlakitError

Recording = dict[str, np.ndarray]


def trajectories(recording: Recording) -> list[str]:
    """Numbers of the trajectories of one recording, as text."""
    return sorted({key.split("/")[1] for key in recording}, key=int)


def raw_steps(recording: Recording, number: str, spec: DatasetSpec) -> dict[str, Any]:
    """The step fields handed to the original function: slash path -> T values."""
    prefix, steps = f"in/{number}/", {}
    for key, values in recording.items():
        path = key.removeprefix(prefix).replace("|", "/")
        if not key.startswith(prefix) or path.endswith("#length"):
            continue
        if path.endswith("#bytes"):
            lengths = recording[key.removesuffix("#bytes") + "#length"]
            rows = zip(values, lengths, strict=True)
            steps[path.removesuffix("#bytes")] = [row[:length].tobytes() for row, length in rows]
        else:
            steps[path] = values.tolist() if values.dtype.kind == "S" else values
    if "action" not in steps and spec.action == (Segment(take="action"),):
        steps["action"] = recording[f"out/{number}/action"]
    return steps


def gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, as a share of the largest value where that exceeds 1; infinite for another shape or a NaN."""
    if ours.shape != theirs.shape:
        return np.inf
    if theirs.size == 0:
        return 0.0
    worst = np.abs(ours.astype(np.float64) - theirs).max() / max(1.0, np.abs(theirs).max())
    return float(worst) if np.isfinite(worst) else np.inf


def gaps(recording: Recording, spec: DatasetSpec) -> Iterator[tuple[str, float]]:
    """Every recorded output and how far ours is from it; unequal instructions count as infinitely far."""
    for number in trajectories(recording):
        out = f"out/{number}/"
        keys = [key.removeprefix(f"{out}obs/") for key in recording if key.startswith(f"{out}obs/")]
        ours = standardize_raw(raw_steps(recording, number, spec), spec, observations=keys, where=f"in/{number}")
        yield f"{out}action", gap(ours.action, recording[f"{out}action"])
        instructions = [text.encode() for text in ours.instructions]
        yield f"{out}language", 0.0 if instructions == recording[f"{out}language"].tolist() else np.inf
        for key in keys:
            yield f"{out}obs/{key}", gap(ours.observation[key], recording[f"{out}obs/{key}"])


def check_file(file: Path, tolerance: float = 1e-5) -> tuple[bool, str]:
    """Whether one recording agrees, and the line that says so."""
    try:
        with np.load(file) as archive:
            found = dict(gaps({key: archive[key] for key in archive.files}, load_spec(file.stem)))
    except (VlakitError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return False, f"{file.stem}: {error}"
    if not found:
        return False, f"{file.stem}: holds no trajectory"
    worst = max(found, key=lambda key: found[key])
    agrees = found[worst] <= tolerance
    return agrees, f"{file.stem}: {found[worst]:.2e}" + ("" if agrees else f" in {worst}")


def check_folder(folder: Path, tolerance: float = 1e-5) -> tuple[list[str], bool]:
    """One line a recording and a last one with the count; True when there are some and all agree."""
    results = [check_file(file, tolerance) for file in sorted(folder.glob("*.npz"))]
    agreeing = sum(agrees for agrees, _ in results)
    lines = [line for _, line in results] + [f"{agreeing} of {len(results)} datasets agree"]
    return lines, 0 < agreeing == len(results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of DATASET.npz files")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="relative to the scale of each output")
    arguments = parser.parse_args()
    lines, passed = check_folder(arguments.folder, arguments.tolerance)
    print("\n".join(lines))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
