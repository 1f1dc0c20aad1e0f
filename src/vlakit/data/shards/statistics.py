"""Action statistics in OpenVLA's dataset_statistics layout: physical units, quantiles exact and linearly interpolated.

`mask` stands beside `action` only; a dataset without proprio has zeros there, never a missing key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlakit.errors import InvalidData, StatisticsMissing
from vlakit.files import write_atomically
from vlakit.schema import DatasetStatistics, Float32, Float64

NAMES = ("mean", "std", "max", "min", "q01", "q99")
EMPTY_PROPRIO_SIZE = 7  # what OpenVLA writes when it loads no proprio


def default_mask(action_size: int) -> npt.NDArray[np.bool_]:
    """Every dimension is normalised but the last, the gripper: OpenVLA's mask of EEF actions.

    >>> default_mask(3).tolist()
    [True, True, False]
    """
    return np.arange(action_size) < action_size - 1


def column_statistics(blocks: Sequence[npt.NDArray[Any]]) -> dict[str, Float64]:
    """Statistics of (D, n_i) blocks put side by side, each (D,) float64; only one column is ever copied."""
    columns: dict[str, list[float]] = {name: [] for name in NAMES}
    for dimension in range(len(blocks[0])):
        column = np.concatenate([np.asarray(block[dimension], np.float64) for block in blocks])
        q01, q99 = np.quantile(column, (0.01, 0.99), method="linear")
        values = (column.mean(), column.std(), column.max(), column.min(), q01, q99)
        for name, value in zip(NAMES, values, strict=True):
            columns[name].append(float(value))
    return {name: np.array(column) for name, column in columns.items()}


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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StatisticsMissing("no statistics file", where=str(path), do="convert the dataset to shards") from error
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
        mask = np.array(entry["action"].get("mask", default_mask(size)), dtype=bool)
        proprio = _vectors(entry.get("proprio") or {}, (entry.get("proprio") or {}).keys() & set(NAMES))
        counts = (int(entry.get("num_transitions", 0)), int(entry.get("num_trajectories", 0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidData(
            f"statistics lack or garble {error}", where=where, do=f"each entry needs action with {', '.join(NAMES)}"
        ) from error
    if any(value.shape != (size,) for value in action.values()) or mask.shape != (size,):
        raise InvalidData(f"action statistics of different lengths, mean has {size}", where=where, do="convert again")
    empty = set(proprio) != set(NAMES) or not any(value.any() for value in proprio.values())
    return DatasetStatistics(
        **action, mask=mask, num_transitions=counts[0], num_trajectories=counts[1], proprio=None if empty else proprio
    )


def _vectors(table: Mapping[str, Any], names: Iterable[str]) -> dict[str, Float64]:
    return {name: np.array(table[name], dtype=np.float64) for name in names}
