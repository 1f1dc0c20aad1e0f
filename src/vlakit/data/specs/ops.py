"""The small vocabulary that dataset specs are written in; `zlib_f32:7` calls zlib_f32 with 7.

A gripper column leaves these ops as 1 = open, 0 = closed, whatever the robot sent.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vlakit.errors import ConfigError, CorruptRecord, InvalidData, UnknownName, nearest
from vlakit.registry import Registry
from vlakit.schema import Float32

Array = npt.NDArray[Any]
Field = Any  # (T, ...) array or a list of T byte strings, as an RLDS reader returns it
F = TypeVar("F", bound=Callable[..., Any])

OPS: Registry[Any] = Registry("op")
_ROLES: dict[str, str] = {}
_NEEDS: dict[str, tuple[str, ...]] = {}

_JUST_OPEN, _JUST_CLOSED = 0.95, 0.05
_EVENT = 0.1  # relative gripper commands smaller than this are no event
_DROID_BOUNDS = np.array(  # q01, q99 of each motion axis
    [
        (-0.7776297926902771, 0.7597932070493698),
        (-0.5803514122962952, 0.5726242214441299),
        (-0.5795090794563293, 0.7351000607013702),
        (-0.6464047729969025, 0.6705610305070877),
        (-0.7041108310222626, 0.6464948207139969),
        (-0.8895104378461838, 0.8897542208433151),
    ]
)


def _op(name: str, role: str = "column", needs: tuple[str, ...] = ()) -> Callable[[F], F]:
    _ROLES[name], _NEEDS[name] = role, needs
    return OPS.register(name)


def find(op: str, role: str = "column") -> Callable[..., Any]:
    """The function of `name`, `name:arg` or 'package.module:function', ready to call with the data alone.

    Roles: column (values), post (action, steps), drop (steps, count), frame_filter (action), augment (cameras, seed).
    Raises UnknownName for a name of no op, or of an op of another role; ConfigError for an argument it cannot take.

    >>> find("zlib_f32:2")([zlib.compress(np.array([1, 2], np.float32).tobytes())]).tolist()
    [[1.0, 2.0]]
    """
    name, _, argument = op.partition(":")
    if name not in _ROLES and ":" in op:
        return OPS.get(op)
    if _ROLES.get(name) != role:
        raise UnknownName(f"no {role} op called {name!r}", do=nearest(name, (n for n in _ROLES if _ROLES[n] == role)))
    function = OPS.get(name)
    if not argument:
        return function
    if role != "column" or len(signature(function).parameters) < 2 or not argument.isdecimal() or int(argument) < 1:
        raise ConfigError(f"op {name!r} cannot take the argument {argument!r}", do=f"write {name}, or zlib_f32:7")
    return partial(function, **{list(signature(function).parameters)[1]: int(argument)})


def needs(op: str) -> tuple[str, ...]:
    """Step paths that an op reads besides the values handed to it."""
    return _NEEDS.get(op.partition(":")[0], ())


@_op("as_column")
def as_column(values: Array) -> Array:
    """Make a (T,) or (T, k) field a (T, 1) column; of several columns only the first stays.

    >>> as_column(np.array([3.0, 4.0])).tolist()
    [[3.0], [4.0]]
    """
    return values[:, None] if values.ndim == 1 else values[:, :1]


@_op("cast_f32")
def cast_f32(values: Array) -> Float32:
    """Cast booleans and integers to float32.

    >>> cast_f32(np.array([True, False])).tolist()
    [1.0, 0.0]
    """
    return values.astype(np.float32)


@_op("divide")
def divide(values: Array, by: int = 1) -> Float32:
    """Divide by a whole number: `divide:255` turns a gripper of 0 to 255 into one of 0 to 1.

    >>> divide(np.array([0, 255]), 255).tolist()
    [0.0, 1.0]
    """
    return cast_f32(values) / np.float32(by)


@_op("clip01")
def clip01(values: Array) -> Array:
    """Clip to [0, 1].

    >>> clip01(np.array([-1.0, 0.5, 2.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return np.clip(values, 0, 1)


@_op("invert")
def invert(values: Array) -> Array:
    """Turn 1 = closed into 1 = open; integers and booleans become float32 first, lest 1 - x wraps around.

    >>> invert(np.array([[0.0], [0.25]])).tolist()
    [[1.0], [0.75]]
    """
    return 1 - (values if values.dtype.kind == "f" else cast_f32(values))


@_op("gripper_rel2abs")
def gripper_rel2abs(values: Array) -> Float32:
    """Integrate commands (-1 opening, +1 closing, near 0 no change) over time into 1 open, 0 closed.

    Before its first command a gripper is taken to be in the opposite state, and open where no command ever comes.

    >>> gripper_rel2abs(np.array([0.0, 1.0, 0.0, -1.0])).tolist()
    [1.0, 0.0, 0.0, 1.0]
    """
    opening = values < -_EVENT
    event = opening | (values > _EVENT)
    last = np.maximum.accumulate(np.where(event, _steps_like(values), -1), axis=0)
    if len(values) == 0:
        return cast_f32(values)
    first_opens = np.take_along_axis(opening, event.argmax(axis=0, keepdims=True), axis=0)
    before = ~first_opens | ~event.any(axis=0, keepdims=True)
    held = np.take_along_axis(opening, np.maximum(last, 0), axis=0)
    return cast_f32(np.where(last >= 0, held, before))


@_op("gripper_binarize")
def gripper_binarize(values: Array) -> Float32:
    """Round a gripper position above 0.95 to 1 and below 0.05 to 0; in between, to where it is going next.

    A trajectory that ends in between keeps its raw last value over that whole tail.

    >>> gripper_binarize(np.array([1.0, 0.5, 0.0, 0.5, 0.75])).tolist()
    [1.0, 0.0, 0.0, 0.75, 0.75]
    """
    if len(values) == 0:
        return cast_f32(values)
    opened = values > _JUST_OPEN
    end = len(values) - 1
    decided = np.where(opened | (values < _JUST_CLOSED), _steps_like(values), end + 1)
    coming = np.minimum.accumulate(decided[::-1], axis=0)[::-1]
    goal = np.take_along_axis(opened, np.minimum(coming, end), axis=0)
    return cast_f32(np.where(coming <= end, goal, values[-1:]))


def _steps_like(values: Array) -> npt.NDArray[np.int64]:
    """Number the steps 0..T-1 along the first axis, in the shape of `values`."""
    steps = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    return np.broadcast_to(steps, values.shape)


@_op("quat_xyzw_to_euler")
def quat_xyzw_to_euler(values: Array) -> Float32:
    """Turn quaternions (T, 4), scalar last, into roll, pitch, yaw (T, 3) in radians; rotate by x, then y, then z.

    Lengths other than 1 are normalised away. Straight up or down only the sum of roll and yaw is known: yaw is 0 there.
    Raises InvalidData on a quaternion of length 0.

    >>> quat_xyzw_to_euler(np.array([[0.0, 0.0, 1.0, 1.0]])).round(4).tolist()
    [[0.0, 0.0, 1.5707999467849731]]
    """
    x, y, z, w = _unit(np.asarray(values, np.float64)).T
    forward, side = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z)
    pitch = np.arctan2(2 * (w * y - x * z), np.hypot(forward, side))
    locked = np.hypot(forward, side) < 1e-7
    roll = np.arctan2(2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
    only_roll = np.arctan2(2 * x * w, w * w - x * x)  # twice the half angle, already in (-pi, pi]
    yaw = np.arctan2(side, forward)
    return cast_f32(np.stack([np.where(locked, only_roll, roll), pitch, np.where(locked, 0.0, yaw)], axis=-1))


def _unit(quaternions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if quaternions.ndim != 2 or quaternions.shape[1] != 4:
        raise InvalidData(f"quaternions have shape {quaternions.shape}, expected (T, 4)", do="check cols of the spec")
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    if not length.all():
        raise InvalidData(f"step {int(length.argmin())} has a quaternion of length 0", do="drop this trajectory")
    return quaternions / length


@_op("zlib_f32")
def zlib_f32(values: Field, width: int = 1) -> Float32:
    """Inflate T byte strings and read them as float32 rows (-1, width).

    A reader that already inflated them hands in numbers, which only take the shape. Raises CorruptRecord.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return values.astype(np.float32).reshape(-1, width)
    try:
        raw = b"".join(zlib.decompress(value) for value in values)
        return np.frombuffer(raw, "<f4").astype(np.float32).reshape(-1, width)
    except (zlib.error, ValueError) as error:
        raise CorruptRecord(f"not zlib bytes of float32 rows of {width}: {error}", do="download it again") from error


@_op("depth_channel0_f32")
def depth_channel0_f32(values: Array) -> Float32:
    """Take channel 0 of a depth map (T, H, W, C) as float32 (T, H, W).

    >>> depth_channel0_f32(np.array([[[[7, 0, 0]]]])).tolist()
    [[[7.0]]]
    """
    return values[..., 0].astype(np.float32)


@_op("unicode_codepoints_to_str")
def unicode_codepoints_to_str(values: Array) -> list[bytes]:
    """Encode rows (T, L) of code points as UTF-8; a number that is no character becomes U+FFFD.

    >>> unicode_codepoints_to_str(np.array([[104, 233, 0]]))
    [b'h\\xc3\\xa9\\x00']
    """
    return ["".join(_character(int(code)) for code in row).encode() for row in values]


def _character(code: int) -> str:
    surrogate = 0xD800 <= code <= 0xDFFF
    return chr(code) if 0 <= code <= 0x10FFFF and not surrogate else "\ufffd"


@_op("cut_at_nul")
def cut_at_nul(values: Iterable[bytes]) -> list[bytes]:
    """Keep what stands before the first NUL.

    >>> cut_at_nul([b"push\\x00\\x00", b"pull"])
    [b'push', b'pull']
    """
    return [value.partition(b"\x00")[0] for value in values]


@_op("drop_first_steps", role="drop")
def drop_first_steps(steps: Mapping[str, Field], count: int) -> dict[str, Field]:
    """Remove the first `count` steps from every field, before any other op sees them.

    >>> drop_first_steps({"reward": [0, 1, 2]}, 1)
    {'reward': [1, 2]}
    """
    return {path: values[count:] for path, values in steps.items()}


@_op("relabel_motion_from_state", role="post", needs=("observation/state",))
def relabel_motion_from_state(action: Array, steps: Mapping[str, Field]) -> Array:
    """Replace the commanded motion (T, 6) by the achieved one, state[t+1] - state[t]: (T-1, 7), the last step is lost.

    The gripper stays the commanded one.

    >>> moved = {"observation/state": np.array([[0.0] * 6, [2.0] * 6])}
    >>> relabel_motion_from_state(np.array([[9.0] * 6 + [1.0], [9.0] * 6 + [0.0]]), moved).tolist()
    [[2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]]
    """
    state = np.asarray(steps["observation/state"])[:, :6]
    return np.concatenate([state[1:] - state[:-1], action[:-1, -1:]], axis=-1)


@_op("drop_zero_motion", role="frame_filter")
def drop_zero_motion(action: Array) -> npt.NDArray[np.bool_]:
    """Mark with True the steps (T,) whose motion differs from zero; the gripper does not count.

    OpenVLA compares after normalisation with bounds written into its code, so the tolerance of 1e-5 is normalised too.

    >>> drop_zero_motion(np.array([[0, 0, 0, 0, 0, 0, 1.0], [0.1, 0, 0, 0, 0, 0, 1]])).tolist()
    [False, True]
    """
    q01, q99 = _DROID_BOUNDS.T
    scale = 2 / (q99 - q01 + 1e-8)
    normalized, standstill = scale * (action[:, :6] - q01) - 1, scale * -q01 - 1
    return np.any(np.abs(normalized - standstill) > 1e-5, axis=1)


@_op("swap_exterior_cameras_p0.5", role="augment")
def swap_exterior_cameras(cameras: Mapping[str, str | None], seed: bytes) -> dict[str, str | None]:
    """Exchange the primary and the secondary camera of every other trajectory, chosen by a hash of its content.

    OpenVLA draws anew each epoch; here a trajectory always falls on the same side.

    >>> [swap_exterior_cameras({"primary": "left", "secondary": "right"}, seed)["primary"] for seed in (b"a", b"e")]
    ['left', 'right']
    """
    if hashlib.sha256(seed).digest()[0] % 2 == 0:
        return dict(cameras)
    return {**cameras, "primary": cameras.get("secondary"), "secondary": cameras.get("primary")}
