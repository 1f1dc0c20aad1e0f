"""Compare vlakit's image operations with TensorFlow's own results, stored in DIR/expected.npz under any suffixes.

Run: python tests/parity/check_images.py DIR. JPEG must agree bit for bit; of every other operation 99.9 % of the values
and none may be off by more than 1. Exits with 1 otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlakit.errors import VlakitError
from vlakit.processing.augment import brightness, contrast, hue, saturation
from vlakit.processing.images import (
    crop_and_resize,
    decode_jpeg,
    jpeg_round_trip,
    lanczos,
    to_uint8,
    to_unit,
)
from vlakit.schema import UInt8

EXACT = ("decoded", "jpeg_round_trip")
SHARE, DISTANCE = 0.999, 1
CROP_AREA = 0.9
CHANGES = (brightness, contrast, saturation, hue)


def results(expected: dict[str, np.ndarray], suffix: str) -> Iterator[tuple[str, UInt8]]:
    """Operation and what vlakit makes of its stored input, for every operation that one picture has."""
    picture = {key.removesuffix(suffix): value for key, value in expected.items() if key.endswith(suffix)}
    if "jpeg" in picture:
        yield "decoded", decode_jpeg(picture["jpeg"].tobytes())
    if "decoded" in picture:
        decoded = picture["decoded"]
        yield "jpeg_round_trip", jpeg_round_trip(decoded)
        yield "lanczos_224", lanczos(decoded, 224, 224)
        yield "lanczos_64", lanczos(decoded, 64, 64)
    if "jpeg_round_trip" in picture:
        yield "eval_chain_224", lanczos(picture["jpeg_round_trip"], 224, 224)
    if "eval_chain_224" in picture:
        yield from evaluated(picture)


def evaluated(picture: dict[str, np.ndarray]) -> Iterator[tuple[str, UInt8]]:
    """Operations that start from the resized picture."""
    square = picture["eval_chain_224"]
    yield "center_crop_224", crop_and_resize(square, CROP_AREA)
    if "crop_offset" in picture:
        y, x = picture["crop_offset"]
        yield "random_crop_224", crop_and_resize(square, CROP_AREA, (float(y), float(x)))
    if "colour_params" in picture:
        unit = to_unit(square)
        for change, amount in zip(CHANGES, picture["colour_params"], strict=True):
            unit = change(unit, float(amount))
            yield change.__name__, to_uint8(unit)[::4, ::4]
        yield "colour_224", to_uint8(unit)


def suffixes(expected: dict[str, np.ndarray]) -> list[str]:
    """The suffix of every picture, `_0`, `_1`, ..., in numerical order."""
    numbers = {key.rpartition("_")[2] for key in expected if key.rpartition("_")[0] in ("jpeg", "decoded")}
    return [f"_{number}" for number in sorted(numbers, key=lambda text: (len(text), text))]


def verdict(operation: str, ours: UInt8, theirs: np.ndarray) -> tuple[str, bool]:
    """`share of equal values, max difference` and whether that is good enough."""
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, not {theirs.shape}", False
    distance = np.abs(ours.astype(int) - theirs.astype(int))
    share, worst = float((distance == 0).mean()), int(distance.max())
    good = worst == 0 if operation in EXACT else share >= SHARE and worst <= DISTANCE
    return f"{share:.6f}, max {worst}", good


def main() -> int:
    """Print a line per operation and picture; the exit status."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    file = Path(sys.argv[1]) / "expected.npz"
    if not file.is_file():
        print(f"no file {file}")
        return 2
    with np.load(file) as stored:
        expected = {name: stored[name] for name in stored.files}
    n_checked, failed = 0, []
    for suffix in suffixes(expected):
        try:
            for operation, ours in results(expected, suffix):
                name = operation + suffix
                if name not in expected:
                    continue
                line, good = verdict(operation, ours, expected[name])
                print(f"{name}: {line}{'' if good else '  FAILED'}")
                n_checked += 1
                failed += [] if good else [name]
        except VlakitError as error:
            print(f"{suffix}: {error}  FAILED")
            failed.append(suffix)
    print(
        f"{n_checked} results of {len(suffixes(expected))} pictures: {len(failed)} failed {' '.join(failed)}".rstrip()
    )
    return 1 if failed or not n_checked else 0


if __name__ == "__main__":
    sys.exit(main())
