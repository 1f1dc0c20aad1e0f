"""The parquet tables of a LeRobot dataset, with the metadata by which pandas and datasets know them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlakit.data.lerobot.info import Feature

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def rows_schema(features: Sequence[Feature]) -> pa.Schema:
    """Of data/: one column a feature but for videos."""
    stored = [one for one in features if one.dtype != "video"]
    described = {"info": {"features": {one.name: _described(one) for one in stored}}}
    fields = [(one.name, PICTURE if one.camera else _type(one)) for one in stored]
    return pa.schema(fields, metadata={"huggingface": json.dumps(described)})


def rows_table(schema: pa.Schema, values: Mapping[str, Any]) -> pa.Table:
    """One episode: arrays (T,) or (T, D) by feature, pictures as T encoded byte strings."""
    return pa.table([_array(values[field.name], field) for field in schema], schema=schema)


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """tasks.parquet in order of task_index: LeRobot looks a task up by its row, and by pandas' index."""
    columns = [_pandas("task_index", "int64", "int64"), _pandas("task", "unicode", "object")]
    index = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    about = {"index_columns": ["task"], "column_indexes": [index], "columns": columns, "attributes": {}}
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps({**about, "creator": {}})}
    )
    table = pa.table([pa.array(range(len(tasks)), pa.int64()), pa.array(tasks, pa.string())], schema=schema)
    write_table(path, table)


def write_table(path: Path, table: pa.Table) -> None:
    """A file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy")


def _type(feature: Feature) -> pa.DataType:
    kind = pa.from_numpy_dtype(np.dtype(feature.dtype))
    return kind if feature.shape == (1,) else pa.list_(kind, feature.shape[0])


def _array(values: Any, field: pa.Field) -> pa.Array:
    if field.type == PICTURE:
        cells = [{"bytes": value, "path": f"frame-{n:06d}{_ending(value)}"} for n, value in enumerate(values)]
        return pa.array(cells, PICTURE)
    if not pa.types.is_fixed_size_list(field.type):
        return pa.array(np.ravel(values), field.type)
    flat = pa.array(np.ascontiguousarray(values).ravel(), field.type.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, field.type.list_size)


def _ending(picture: bytes) -> str:
    return ".jpg" if picture[:2] == b"\xff\xd8" else ".png"


def _described(feature: Feature) -> dict[str, Any]:
    if feature.camera:
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    return value if feature.shape == (1,) else {"feature": value, "length": feature.shape[0], "_type": "List"}


def _pandas(name: str, kind: str, dtype: str) -> dict[str, Any]:
    return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
