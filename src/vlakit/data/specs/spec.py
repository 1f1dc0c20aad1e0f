"""Dataset specs and mixtures, one YAML file each under conf/; a key that nobody reads is an error, never ignored."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml

from vlakit.configs import conf_root
from vlakit.data.specs import ops
from vlakit.errors import ConfigError, UnknownName, VlakitError, nearest

Reader: TypeAlias = Callable[[Any], Any]  # a YAML value -> the checked value; raises ConfigError without the file

CAMERAS = ("primary", "secondary", "wrist", "left_wrist", "right_wrist")
STATE_ENCODINGS = ("NONE", "POS_EULER", "POS_QUAT", "JOINT", "JOINT_BIMANUAL")
Masks: TypeAlias = tuple[tuple[bool, ...], tuple[bool, ...]]
ACTION_ENCODINGS: dict[str, Masks | None] = {  # which columns are normalised, which are absolute
    "EEF_POS": ((True,) * 6 + (False,), (False,) * 6 + (True,)),
    "EEF_R6": ((True,) * 9 + (False,), (False,) * 9 + (True,)),
    "JOINT_POS_BIMANUAL": ((True,) * 14, (True,) * 14),
    "JOINT_POS": None,  # OpenVLA refuses to load it and gives it no mask
}
_TELLING = ("gripper", "download", "published", "control_hz")  # say something about the data, change nothing in it


@dataclass(frozen=True, slots=True)
class Segment:
    """Some columns of one step field after its ops, or a constant block of `zeros` or `ones` columns."""

    take: str | None = None
    cols: tuple[int | None, int | None] | None = None  # a Python slice of the last axis
    ops: tuple[str, ...] = ()
    zeros: int = 0
    ones: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """Figures that others measured over the whole dataset: q01, q99 (A,) physical units."""

    num_trajectories: int | None = None
    num_transitions: int | None = None
    q01: tuple[float, ...] | None = None
    q99: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """How the raw steps of one dataset become a `Trajectory`.

    action: segments side by side. observation: keys that the transform makes; others are taken as stored.
    proprio: observation keys in order; each null stands for one column of zeros.
    mask, absolute_action_mask: (A,), None where the encoding has no default.
    """

    name: str
    images: dict[str, str | None]  # camera -> key under observation/
    language: Segment
    action: tuple[Segment, ...]
    depth: dict[str, str | None] = field(default_factory=dict[str, str | None])
    proprio: tuple[str | None, ...] = ()
    state_encoding: str = "NONE"
    action_encoding: str = "EEF_POS"
    observation: dict[str, tuple[Segment, ...]] = field(default_factory=dict[str, tuple[Segment, ...]])
    drop_first_steps: int = 0
    post: tuple[str, ...] = ()
    augment: tuple[str, ...] = ()
    frame_filter: str | None = None
    mask: tuple[bool, ...] | None = None
    absolute_action_mask: tuple[bool, ...] | None = None
    gripper: str = ""
    download: dict[str, Any] = field(default_factory=dict[str, Any])
    published: Published = field(default_factory=Published)
    control_hz: float | None = None

    @property
    def width(self) -> int | None:
        """Action size A; None where the encoding fixes none."""
        return None if self.mask is None else len(self.mask)

    def segments(self, key: str) -> tuple[Segment, ...]:
        """The segments that make one observation key: its own, or the stored field as it is."""
        return self.observation.get(key, (Segment(take=f"observation/{key}"),))

    def keys(self) -> list[str]:
        """All step paths that transform, cameras and proprio read, sorted; depth maps are not among them."""
        proprio = [segment for key in self.proprio if key for segment in self.segments(key)]
        paths = {segment.take for segment in (self.language, *self.action, *proprio) if segment.take}
        paths |= {f"observation/{key}" for key in self.images.values() if key}
        return sorted(paths.union(*map(ops.needs, self.post)))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Datasets to train on together; the share of one is its weight times its transitions."""

    name: str
    datasets: dict[str, float]


def spec_names(folder: Path | None = None) -> list[str]:
    """Names of all dataset specs of a folder (default: conf/dataset), sorted."""
    return sorted(file.stem for file in (folder or conf_root() / "dataset").glob("*.yaml"))


def mixture_names(folder: Path | None = None) -> list[str]:
    """Names of all mixtures of a folder (default: conf/mixture), sorted."""
    return spec_names(folder or conf_root() / "mixture")


def load_spec(name: str | Path, folder: Path | None = None) -> DatasetSpec:
    """Read and check the spec called `name`, or a YAML file of one's own.

    Raises UnknownName with the nearest names, ConfigError naming file, key and the nearest key.
    """
    file = _find(name, folder or conf_root() / "dataset", "dataset")
    values = _load(file, _SPEC, ("images", "language", "action"))
    masks = ACTION_ENCODINGS[values.get("action_encoding", "EEF_POS")]
    if masks:
        values.setdefault("mask", masks[0])
        values.setdefault("absolute_action_mask", masks[1])
    spec = DatasetSpec(**values)
    if len(spec.mask or ()) != len(spec.absolute_action_mask or ()):
        raise ConfigError("mask and absolute_action_mask differ in length", where=str(file), do="write both")
    return spec


def load_mixture(name: str | Path, folder: Path | None = None) -> Mixture:
    """Read and check the mixture called `name`, or a YAML file of one's own; errors as `load_spec`."""
    file = _find(name, folder or conf_root() / "mixture", "mixture")
    return Mixture(**_load(file, {"name": _text, "datasets": _weights}, ("datasets",)))


def fingerprint(spec: DatasetSpec) -> str:
    """sha256 (hex) of everything in a spec that changes its trajectories; notes and published figures do not count."""
    content = {key: value for key, value in asdict(spec).items() if key not in _TELLING}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _find(name: str | Path, folder: Path, kind: str) -> Path:
    if Path(name).suffix in {".yaml", ".yml"}:
        if Path(name).is_file():
            return Path(name)
        raise UnknownName(f"no file {str(name)!r}", do="check the path")
    if name not in spec_names(folder):
        hint = nearest(str(name), spec_names(folder))
        raise UnknownName(f"no {kind} called {str(name)!r}", where=str(folder), do=f"{hint} or give a YAML file")
    return folder / f"{name}.yaml"


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error; PyYAML itself lets the last one win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [str(key.value) for key, _ in node.value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} given twice, near line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _load(file: Path, readers: Mapping[str, Reader], required: Iterable[str]) -> dict[str, Any]:
    try:
        values = {"name": file.stem, **_fields(yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys), readers)}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not readable as YAML: {error}", where=str(file), do="correct the file") from error
    except ConfigError as error:
        raise ConfigError(error.what, where=str(file), do=error.do) from error
    for key in set(required) - set(values):
        raise ConfigError(f"key {key!r} is missing", where=str(file), do=f"add {key}:")
    return values


def _fields(content: Any, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Read every key with its reader, whose error gains the key."""
    values: dict[str, Any] = {}
    for key, value in _mapping(content).items():
        if key not in readers:
            raise ConfigError(f"unknown key {key!r}", do=nearest(key, readers))
        try:
            values[key] = readers[key](value)
        except VlakitError as error:
            raise ConfigError(f"key {key!r}: {error.what}", do=error.do) from error
    return values


def _typed(accepts: Callable[[Any], bool], expected: str) -> Reader:
    def read(value: Any) -> Any:
        if not accepts(value):
            raise ConfigError(f"expected {expected}, got {value!r}", do=f"give {expected}")
        return value

    return read


def _one_of(known: Iterable[str]) -> Reader:
    def read(value: Any) -> str:
        if str(value) not in known:
            raise ConfigError(f"unknown value {value!r}", do=nearest(str(value), known))
        return str(value)

    return read


def _op(role: str) -> Reader:
    def read(value: Any) -> str:
        ops.find(_text(value), role)
        return value

    return read


def _tuple_of(reader: Reader) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        return tuple(reader(item) for item in _list(value))

    return read


def _or_null(reader: Reader) -> Reader:
    return lambda value: None if value is None else reader(value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"expected `key: value` pairs, got {value!r}", do="write {key: value}")
    return {str(key): item for key, item in cast("dict[Any, Any]", value).items()}


def _cameras(value: Any) -> dict[str, str | None]:
    return _fields(value, dict.fromkeys(CAMERAS, _or_null(_text)))


def _cols(value: Any) -> tuple[int | None, int | None]:
    ends: list[Any] = _list(value)
    if len(ends) != 2 or not all(end is None or type(end) is int for end in ends):
        raise ConfigError(f"expected [start, stop], got {value!r}", do="write null for an open end")
    return ends[0], ends[1]


def _segment(value: Any) -> Segment:
    segment = Segment(**_fields({"take": value} if isinstance(value, str) else value, _SEGMENT))
    if sum(map(bool, (segment.take, segment.zeros, segment.ones))) != 1:
        raise ConfigError(f"expected one of take, zeros, ones, got {value!r}", do="write {take: PATH} or {zeros: 1}")
    return segment


def _segments(value: Any) -> tuple[Segment, ...]:
    return tuple(_segment(item) for item in _filled(value))


def _weights(value: Any) -> dict[str, float]:
    weights = {dataset: float(_number(weight)) for dataset, weight in _mapping(value).items()}
    wrong = [dataset for dataset, weight in weights.items() if not 0 < weight < float("inf")]
    if wrong or not weights:
        raise ConfigError(f"weights must be above 0: {wrong or 'there are none'}", do="leave the dataset out")
    return weights


_text = _typed(lambda value: isinstance(value, str) and value != "", "text")
_list = _typed(lambda value: isinstance(value, list), "a list")
_filled = _typed(lambda value: isinstance(value, list) and value != [], "a list of {take: PATH} and {zeros: 1}")
_count = _typed(lambda value: type(value) is int and value >= 0, "a whole number of at least 0")
_number = _typed(lambda value: type(value) in (int, float), "a number (YAML takes 1e-5 for text, 1.0e-5 for a number)")
_bools = _tuple_of(_typed(lambda value: isinstance(value, bool), "true or false"))
_SEGMENT = {"take": _text, "cols": _cols, "ops": _tuple_of(_op("column")), "zeros": _count, "ones": _count}
_numbers = _tuple_of(_number)
_PUBLISHED = {"num_trajectories": _count, "num_transitions": _count, "q01": _numbers, "q99": _numbers}
_SPEC: dict[str, Reader] = {
    "name": _text,
    "images": _cameras,
    "depth": _cameras,
    "proprio": _tuple_of(_or_null(_text)),
    "state_encoding": _one_of(STATE_ENCODINGS),
    "action_encoding": _one_of(ACTION_ENCODINGS),
    "language": _segment,
    "action": _segments,
    "observation": lambda value: {key: _segments(item) for key, item in _mapping(value).items()},
    "drop_first_steps": _count,
    "post": _tuple_of(_op("post")),
    "augment": _tuple_of(_op("augment")),
    "frame_filter": _or_null(_op("frame_filter")),
    "mask": _bools,
    "absolute_action_mask": _bools,
    "gripper": _text,
    "download": _mapping,
    "published": lambda value: Published(**_fields(value, _PUBLISHED)),
    "control_hz": _number,
}
