"""Action statistics in OpenVLA's dataset_statistics layout: physical units, quantiles exact and linearly interpolated.

Beyond EXACT_UP_TO transitions they are those of a sketch, within .05 % of a column's range.

`mask` stands beside `action` only; a dataset without proprio has zeros there, never a missing key.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlakit.data.shards.sketch import sketch
from vlakit.errors import InvalidData, StatisticsMissing
from vlakit.files import write_atomically
from vlakit.schema import DatasetStatistics, Float32, Float64

log = logging.getLogger(__name__)
NAMES = ("mean", "std", "max", "min", "q01", "q99")
EXACT_UP_TO = 50_000_000  # transitions; an exact quantile takes 16 bytes of memory for each
EMPTY_PROPRIO_SIZE = 7  # what OpenVLA writes when it loads no proprio


def default_mask(action_size: int) -> npt.NDArray[np.bool_]:
    """Every dimension is normalised but the last, the gripper: OpenVLA's mask of EEF actions.

    >>> default_mask(3).tolist()
    [True, True, False]
    """
    return np.arange(action_size) < action_size - 1


def column_statistics(blocks: Sequence[npt.NDArray[Any]]) -> dict[str, Float64]:
    """Statistics of (D, n_i) blocks put side by side, each (D,) float64; only one column is ever copied, or none."""
    columns: dict[str, list[float]] = {name: [] for name in NAMES}
    summary = _exact if sum(block.shape[1] for block in blocks) <= EXACT_UP_TO else _sketched
    for dimension in range(len(blocks[0])):
        values = summary([block[dimension] for block in blocks])
        for name, value in zip(NAMES, values, strict=True):
            columns[name].append(float(value))
    return {name: np.array(column) for name, column in columns.items()}


def _exact(blocks: Sequence[npt.NDArray[Any]]) -> tuple[float, ...]:
    """One column, in the order of NAMES."""
    column = np.concatenate([np.asarray(block, np.float64) for block in blocks])
    q01, q99 = np.quantile(column, (0.01, 0.99), method="linear")
    return column.mean(), column.std(), column.max(), column.min(), q01, q99


def _sketched(blocks: Sequence[npt.NDArray[Any]]) -> tuple[float, ...]:
    """The same in little memory."""
    one = sketch(blocks)
    return one.mean, one.std, one.high, one.low, one.quantile(0.01), one.quantile(0.99)


def compute_statistics(
    actions: Sequence[npt.NDArray[Any]],
    proprio: Sequence[npt.NDArray[Any]],
    num_trajectories: int,
    mask: npt.NDArray[np.bool_] | None = None,
) -> DatasetStatistics:
    """Statistics of actions given as blocks of (A, n_i), and of proprio as (P, n_i) or of no block at all.

    Raises InvalidData when there is no transition.
    """
    total = sum(block.shape[1] for block in actions)
    if not total:
        raise InvalidData("no transition to take statistics of", do="check that the source holds labelled episodes")
    chosen = default_mask(len(actions[0])) if mask is None else np.asarray(mask, bool)
    has_proprio = bool(proprio) and len(proprio[0]) > 0
    return DatasetStatistics(
        **column_statistics(actions),
        mask=chosen,
        num_transitions=total,
        num_trajectories=num_trajectories,
        proprio=column_statistics(proprio) if has_proprio else None,
    )


def proprio_columns(proprio: Mapping[str, Float32], order: Sequence[str | None], n_steps: int) -> Float32:
    """Proprio keys side by side (T, P) in the spec's `order`; each null is one column of zeros, as in OpenVLA."""
    columns = [np.zeros((n_steps, 0), np.float32)]
    for key in order:
        pad = np.zeros((n_steps, 1), np.float32)
        columns.append(pad if key is None else np.asarray(proprio[key], np.float32).reshape(n_steps, -1))
    return np.concatenate(columns, axis=1)


def save_statistics(path: Path, statistics: Mapping[str, DatasetStatistics]) -> None:
    """Write {dataset: {action, proprio, num_transitions, num_trajectories}} as JSON; whole or not at all."""
    write_atomically(path, json.dumps(statistics_to_json(statistics), indent=2) + "\n")


def statistics_to_json(statistics: Mapping[str, DatasetStatistics]) -> dict[str, Any]:
    """Plain values in OpenVLA's dataset_statistics layout."""
    return {name: _to_json(one) for name, one in statistics.items()}


def load_statistics(path: Path) -> dict[str, DatasetStatistics]:
    """Read a statistics file of this kit or of OpenVLA, one entry a dataset.

    Raises StatisticsMissing when there is no such file, InvalidData when an entry is not of this layout.
    """
    if not path.is_file():
        raise StatisticsMissing("no statistics file", where=str(path), do="convert the dataset to shards")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidData(f"not JSON: {error}", where=str(path), do="restore the file or convert again") from error
    return statistics_from_json(content, where=str(path))


def statistics_from_json(content: Any, *, where: str) -> dict[str, DatasetStatistics]:
    """The opposite of statistics_to_json; raises InvalidData."""
    if not isinstance(content, dict):
        raise InvalidData("not a table of datasets", where=where, do="give a dataset_statistics.json")
    return {name: _from_json(entry, f"{where}, dataset {name}") for name, entry in content.items()}


def _to_json(statistics: DatasetStatistics) -> dict[str, Any]:
    action: dict[str, Any] = {name: getattr(statistics, name).tolist() for name in NAMES}
    action["mask"] = [bool(value) for value in statistics.mask]
    zeros = np.zeros(EMPTY_PROPRIO_SIZE)
    proprio = statistics.proprio or dict.fromkeys(NAMES, zeros)
    return {
        "action": action,
        "proprio": {name: proprio[name].tolist() for name in NAMES},
        "num_transitions": statistics.num_transitions,
        "num_trajectories": statistics.num_trajectories,
    }


def _from_json(entry: Any, where: str) -> DatasetStatistics:
    try:
        action = _vectors(entry["action"], NAMES)
        size = len(action["mean"])
        mask = _mask(entry["action"].get("mask"), size, where)
        proprio = _vectors(entry.get("proprio") or {}, (entry.get("proprio") or {}).keys() & set(NAMES))
        counts = (int(entry.get("num_transitions", 0)), int(entry.get("num_trajectories", 0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidData(
            f"statistics lack or garble {error}", where=where, do=f"each entry needs action with {', '.join(NAMES)}"
        ) from error
    if not size or any(value.shape != (size,) for value in action.values()) or mask.shape != (size,):
        raise InvalidData(f"action statistics of different lengths, mean has {size}", where=where, do="convert again")
    _check_numbers(action, where)
    _check_numbers(proprio, f"{where}, proprio")
    empty = set(proprio) != set(NAMES) or not any(value.any() for value in proprio.values())
    return DatasetStatistics(
        **action, mask=mask, num_transitions=counts[0], num_trajectories=counts[1], proprio=None if empty else proprio
    )


def _mask(values: Any, size: int, where: str) -> npt.NDArray[np.bool_]:
    """(A,) bool; without one every column is normalised, as the original's code has it."""
    if values is None:
        log.warning("%s has no mask: every column is normalised, the gripper too, as OpenVLA does then", where)
        return np.ones(size, np.bool_)
    wrong = [value for value in values if not isinstance(value, bool)]
    if wrong:
        raise InvalidData(
            f"mask holds {wrong[0]!r}", where=where, do="give true or false for each number of the action"
        )
    return np.array(values, np.bool_)


def _check_numbers(table: Mapping[str, Float64], where: str) -> None:
    """Raise InvalidData where statistics are no numbers, or where their order cannot be."""
    for name, values in table.items():
        if not np.isfinite(values).all():
            column = int(np.argmin(np.isfinite(values)))
            remedy = "take the file that came with the data or the weights"
            raise InvalidData(f"{name} of column {column} is {values[column]}", where=where, do=remedy)
    for low, high in (("q01", "q99"), ("min", "max")):
        if low in table and high in table and (table[low] > table[high]).any():
            column = int(np.argmax(table[low] > table[high]))
            message = f"{low} {table[low][column]} is above {high} {table[high][column]} in column {column}"
            raise InvalidData(message, where=where, do="swap them, or convert the dataset again")
    if {"q01", "q99", "min", "max"} <= set(table):
        constant = table["min"] == table["max"]
        off = constant & ~np.isclose([table["q01"], table["q99"]], table["min"], rtol=1e-5, atol=1e-6).all(axis=0)
        if off.any():
            message = f"min = max = {table['min'][off][0]} in column {int(np.argmax(off))}, and q01, q99 are others"
            raise InvalidData(message, where=where, do="convert the dataset again: a constant column has one value")


def _vectors(table: Mapping[str, Any], names: Iterable[str]) -> dict[str, Float64]:
    return {name: np.array(table[name], dtype=np.float64) for name in names}
