"""From raw steps and a spec to a `Trajectory`; every op sees the steps only after the first ones were dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlakit.data.rlds.images import encode_png
from vlakit.data.specs import ops
from vlakit.data.specs.spec import DatasetSpec, Segment
from vlakit.errors import ActionNotFinite, FeatureMissing, InvalidData, VlakitError, nearest, printable
from vlakit.schema import Float32, Trajectory

Array = npt.NDArray[Any]
Steps = Mapping[str, Array | list[Any]]


@dataclass(frozen=True, slots=True)
class RawStandardized:
    """What a transform makes of one trajectory, before any frame filter or camera swap.

    action (T, A) float32, instructions (T,), observation: key -> (T, ...); rows: the raw steps that these T stand for.
    """

    action: Float32
    instructions: list[str]
    observation: dict[str, Array]
    rows: slice


def standardize(
    steps: Steps,
    spec: DatasetSpec,
    *,
    where: str = "",
    metadata: dict[str, Any] | None = None,
    cameras: Iterable[str] | None = None,
) -> Trajectory:
    """Turn raw steps (slash path -> T values) into a trajectory of at most T steps, possibly none.

    cameras: those to keep, all by default. Raises FeatureMissing, InvalidData (width, length), ActionNotFinite.
    """
    proprio = [key for key in spec.proprio if key]
    raw = standardize_raw(steps, spec, observations=proprio, where=where)
    keep = np.arange(len(raw.action))
    if spec.frame_filter:
        keep = np.flatnonzero(_run(spec.frame_filter, "frame_filter", (raw.action,), where))
    keys: dict[str, str | None] = {**spec.images}
    for augment in spec.augment:
        keys = _run(augment, "augment", (keys, raw.action.tobytes()), where)
    wanted = keys if cameras is None else [camera for camera in cameras if keys.get(camera)]
    paths = {camera: f"observation/{keys[camera]}" for camera in wanted if keys[camera]}
    lengthwise = [segment.take for segment in spec.action if segment.take]
    fields = _fields(steps, [*lengthwise, *paths.values()], spec, where)
    return Trajectory(
        dataset=spec.name,
        action=raw.action[keep],
        instructions=[raw.instructions[step] for step in keep],
        images={
            camera: _encoded(fields[path][raw.rows], keep, f"{where}, {path}" if where else path)
            for camera, path in paths.items()
        },
        proprio={key: _matrix(raw.observation[key])[keep] for key in proprio},
        metadata=dict(metadata or {}),
    )


def standardize_raw(
    steps: Steps, spec: DatasetSpec, *, observations: Sequence[str] = (), where: str = ""
) -> RawStandardized:
    """Run the transform alone: action, instructions and the named observation keys; errors as `standardize`."""
    made = [segment for key in observations for segment in spec.segments(key)]
    paths = {segment.take for segment in (*spec.action, spec.language, *made) if segment.take}
    fields = _fields(steps, sorted(paths.union(*map(ops.needs, spec.post))), spec, where)
    if not any(map(len, fields.values())):  # the arrays of an empty trajectory need not even have columns
        nothing = np.zeros((0, spec.width or 0), np.float32)
        return RawStandardized(nothing, [], dict.fromkeys(observations, nothing[:, :0]), slice(0, 0))
    fields = ops.drop_first_steps(fields, spec.drop_first_steps)
    action = _join(spec.action, fields, where)
    for post in spec.post:
        action = _run(post, "post", (action, fields), where)
        fields = {path: values[: len(action)] for path, values in fields.items()}
    action = _check_action(action.astype(np.float32), spec, where)
    return RawStandardized(
        action=action,
        instructions=_instructions(spec.language, fields, where),
        observation={key: _join(spec.segments(key), fields, where) for key in observations},
        rows=slice(spec.drop_first_steps, spec.drop_first_steps + len(action)),
    )


def _fields(steps: Steps, paths: Iterable[str], spec: DatasetSpec, where: str) -> dict[str, Array | list[Any]]:
    """The named fields, all of one length; plain lists of numbers become arrays."""
    fields: dict[str, Array | list[Any]] = {}
    for path in paths:
        if path not in steps:
            what = f"dataset {spec.name!r} needs the field {path!r}, which these steps lack"
            raise FeatureMissing(what, where=where, do=f"correct the spec or the data; {nearest(path, steps)}")
        fields[path] = _numeric(steps[path], path, where)
    lengths = {path: len(values) for path, values in fields.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidData(f"fields of one trajectory differ in length: {lengths}", where=where, do="drop it")
    return fields


def _numeric(values: Array | list[Any], path: str, where: str) -> Array | list[Any]:
    if isinstance(values, np.ndarray) or not values or isinstance(values[0], bytes | str):
        return values
    try:
        return np.asarray(values)
    except ValueError as error:
        what = f"field {path!r} changes its shape from step to step"
        raise InvalidData(what, where=where, do="drop this trajectory or take another field") from error


def _join(segments: Iterable[Segment], fields: Mapping[str, Array | list[Any]], where: str) -> Array:
    """The segments side by side on the last axis; constants take their length from the fields."""
    length = len(next(iter(fields.values()), ()))
    columns = [_segment(segment, fields, length, where) for segment in segments]
    for column in columns:
        side_by_side = column.ndim == 2 or len(columns) == 1
        if column.dtype.kind not in "fiub" or len(column) != length or not side_by_side:
            what = f"{column.dtype} values of shape {column.shape} where numbers of {length} steps belong"
            raise InvalidData(what, where=where, do="check take, cols and ops of the spec")
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=-1)


def _segment(segment: Segment, fields: Mapping[str, Array | list[Any]], length: int, where: str) -> Array:
    if segment.take is None:
        return np.full((length, segment.zeros or segment.ones), bool(segment.ones), np.float32)
    return np.asarray(_apply(segment, fields[segment.take], where))


def _apply(segment: Segment, values: Any, where: str) -> Any:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        values = values[:, None] if values.ndim == 1 else values
        values = values[..., slice(*segment.cols)] if segment.cols else values
    for op in segment.ops:
        values = _run(op, "column", (values,), f"{where}, {segment.take}" if where else str(segment.take))
    return values


def _run(op: str, role: str, arguments: tuple[Any, ...], where: str) -> Any:
    """Call one op; whatever it stumbles over becomes an error that says where."""
    try:
        return ops.find(op, role)(*arguments)
    except VlakitError as error:
        raise type(error)(f"op {op}: {error.what}", where=where, do=error.do) from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        what = f"op {op} cannot use these values: {error}"
        raise InvalidData(what, where=where, do="check take, cols and ops of the spec") from error


def _check_action(action: Float32, spec: DatasetSpec, where: str) -> Float32:
    if action.ndim != 2 or action.shape[1] != (spec.width or action.shape[1]):
        what = f"dataset {spec.name!r}: the action has shape {action.shape}, expected (T, {spec.width})"
        raise InvalidData(what, where=where, do="correct the action segments, or the mask, of its spec")
    broken = np.flatnonzero(~np.isfinite(action).all(axis=1))
    if len(broken):
        step = int(broken[0]) + spec.drop_first_steps
        what = f"dataset {spec.name!r}: step {step} has the action {action[broken[0]].tolist()}"
        raise ActionNotFinite(what, where=where, do="drop this trajectory or repair the recording")
    return action


def _instructions(language: Segment, fields: Mapping[str, Array | list[Any]], where: str) -> list[str]:
    if language.take is None:
        return [""] * len(next(iter(fields.values()), ()))
    values = _apply(language, fields[language.take], where)
    texts = np.ravel(values).tolist() if isinstance(values, np.ndarray) else values
    wrong = next((text for text in texts if not isinstance(text, bytes | str)), None)
    if wrong is not None:
        what = f"{language.take} holds {wrong!r} where an instruction belongs"
        raise InvalidData(what, where=where, do="check language of the spec")
    return [printable(text if isinstance(text, str) else text.decode("utf-8", "replace")) for text in texts]


def _encoded(values: Any, keep: npt.NDArray[np.int64], where: str) -> list[bytes]:
    """The images of the steps to keep; raw pixels become PNG, from which they go on as any PNG does."""
    images = [values[step] for step in keep]
    try:
        return [image if isinstance(image, bytes) else encode_png(image) for image in images]
    except InvalidData as error:
        raise InvalidData(error.what, where=where, do=error.do) from error


def _matrix(values: Array) -> Float32:
    return values.astype(np.float32).reshape(len(values), int(np.prod(values.shape[1:])))
