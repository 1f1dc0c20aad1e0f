"""Compare an RLDS folder, read by vlakit, with the digests of what TFDS returns for it, leaf by leaf, step by step.

Run: python tests/parity/check_rlds.py RLDS_DIR EXPECTED.json. Exits with 1 on any difference.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.rlds.features import Leaf
from vlakit.data.rlds.reader import (
    Episode,
    RecordHeader,
    RldsFolder,
    decode_image,
    open_rlds,
    parse_episode,
    read_records,
)
from vlakit.errors import VlakitError

FILES_AT_ONCE = EPISODES_AT_ONCE = 16  # TFDS has 16 files open and takes 16 episodes of one before the next


def compare(folder: RldsFolder, expected: dict[str, Any]) -> tuple[list[str], int]:
    """Differences, one a line by split/episode/leaf, and the number of values compared."""
    found: list[str] = []
    n_values = 0
    for split in sorted(set(folder.splits) | set(expected)):
        if split not in folder.splits or split not in expected:
            found.append(f"{split}: {'not in the folder' if split in expected else 'not expected'}")
            continue
        differences, count = compare_split(folder, split, expected[split], in_file_order=False)
        if differences and len(folder.splits[split]) > 1:  # the expectation may have read one file after another
            again = compare_split(folder, split, expected[split], in_file_order=True)
            differences, count = min((differences, count), again, key=lambda result: len(result[0]))
        found += differences
        n_values += count
    return found, n_values


def compare_split(
    folder: RldsFolder, split: str, expected: list[dict[str, Any]], *, in_file_order: bool
) -> tuple[list[str], int]:
    """Differences within one split and the number of values compared."""
    found: list[str] = []
    n_values = 0
    files = folder.splits[split]
    records = chain.from_iterable(map(read_records, files)) if in_file_order else interleaved(files)
    for index, (record, wanted) in enumerate(zip_longest(records, expected)):
        if record is None or wanted is None:
            found.append(f"{split}/{index}: {'missing' if record is None else 'not expected'}")
            continue
        header, payload = record
        episode = parse_episode(payload, folder.features, where=str(header))
        differences, count = compare_episode(episode, folder, wanted)
        found += [f"{split}/{index}/{difference}" for difference in differences]
        n_values += count
    return found, n_values


def compare_episode(episode: Episode, folder: RldsFolder, wanted: dict[str, Any]) -> tuple[list[str], int]:
    """Differences within one episode and the number of values compared."""
    found = [] if episode.n_steps == wanted["n_steps"] else [f"{episode.n_steps} steps, not {wanted['n_steps']}"]
    n_values = 0
    leaves, steps = folder.features.steps, wanted["steps"]
    missing = set(leaves) ^ set(steps) if episode.n_steps or steps else set()
    for path in sorted(missing):
        found.append(f"steps/{path}: {'not decoded' if path in steps else 'not expected'}")
    for path in sorted(set(leaves) & set(steps)):
        ours = [digest(value, leaves[path], leaves[path].levels[1:]) for value in episode.steps[path]]
        n_values += len(ours)
        wrong = [index for index, (a, b) in enumerate(zip_longest(ours, steps[path])) if a != b]
        if wrong:
            found.append(f"steps/{path}: differs in step {', '.join(map(str, wrong))}")
    metadata = folder.features.metadata
    for path in sorted(set(metadata) | set(wanted["episode"])):
        n_values += 1
        if path not in metadata or path not in wanted["episode"]:
            found.append(f"{path}: {'not decoded' if path not in metadata else 'not expected'}")
        elif digest(episode.metadata[path], metadata[path], metadata[path].levels) != wanted["episode"][path]:
            found.append(f"{path}: differs")
    return found, n_values


def interleaved(files: list[Path]) -> Iterator[tuple[RecordHeader, bytes]]:
    """Records of one split in the order of TFDS."""
    waiting = (read_records(file) for file in files)
    active = list(islice(waiting, FILES_AT_ONCE))
    slot = 0
    while active:
        slot %= len(active)
        block = list(islice(active[slot], EPISODES_AT_ONCE))
        yield from block
        if len(block) == EPISODES_AT_ONCE:
            slot += 1
        elif (following := next(waiting, None)) is not None:
            active[slot] = following
        else:
            del active[slot]


def digest(value: Any, leaf: Leaf, levels: tuple[int | None, ...]) -> str:
    """First 16 hex digits of the SHA-256 of one value, images decoded, as the expectation defines it."""
    if len(levels) > 1:
        return _hash(b"ragged|", json.dumps(_nested_lists(value, leaf)).encode())
    if leaf.kind == "string":
        if isinstance(value, bytes):
            scalar = np.asarray(value)  # a lone string reaches NumPy as a fixed-width one, padded to a byte if empty
            return _hash(f"{scalar.dtype}|()|".encode(), scalar.tobytes())
        items = _flat(value, len(levels) + len(leaf.shape))
        shape = _string_shape(value, leaf, len(levels) + len(leaf.shape))
        return _hash(f"bytes|{shape}|".encode(), b"\x1e".join(items))
    array = as_array(value, leaf, stacked=len(levels) == 1)
    return _hash(f"{leaf.dtype}|{array.shape}|".encode(), raw_bytes(array, leaf.dtype))


def as_array(value: Any, leaf: Leaf, *, stacked: bool) -> np.ndarray:
    """The value as TFDS has it: images decoded, items of a sequence stacked."""
    if not stacked:
        return decode_image(value, leaf.dtype, leaf.shape[-1] or 0) if leaf.kind == "image" else np.asarray(value)
    if isinstance(value, np.ndarray):
        return value
    if not len(value):
        dtype = leaf.dtype if leaf.kind == "image" else leaf.numpy_dtype
        return np.empty((0, *(size or 0 for size in leaf.shape)), dtype)
    return np.stack([as_array(item, leaf, stacked=False) for item in value])


def raw_bytes(array: np.ndarray, dtype: str) -> bytes:
    """Memory of the array; bfloat16 is the upper half of float32."""
    if dtype == "bfloat16":
        return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return array.tobytes()


def _nested_lists(value: Any, leaf: Leaf) -> Any:
    if isinstance(value, list):
        return [_nested_lists(item, leaf) for item in value]
    if isinstance(value, bytes):
        return as_array(value, leaf, stacked=False).tolist() if leaf.kind == "image" else value.decode()
    return value.tolist()


def _flat(value: Any, depth: int) -> list[bytes]:
    return [value] if not depth else list(chain.from_iterable(_flat(item, depth - 1) for item in value))


def _string_shape(value: Any, leaf: Leaf, depth: int) -> tuple[int, ...]:
    shape: list[int] = []
    for level in range(depth):
        declared = (None, *leaf.shape)[level - depth]
        shape.append(len(value) if isinstance(value, list) else declared or 0)
        value = value[0] if isinstance(value, list) and value else None
    return tuple(shape)


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def main(arguments: list[str]) -> int:
    """Command line: RLDS_DIR EXPECTED.json."""
    if len(arguments) != 2:
        print(__doc__)
        return 2
    try:
        found, n_values = compare(open_rlds(arguments[0]), json.loads(Path(arguments[1]).read_bytes()))
    except VlakitError as error:
        print(error)
        return 1
    for line in found:
        print(line)
    print(f"{'DIFFERS' if found else 'agrees'}: {n_values} values compared, {len(found)} differences")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
