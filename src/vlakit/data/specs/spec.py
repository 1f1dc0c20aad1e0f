"""Dataset specs and mixtures, one YAML file each under conf/; a key that nobody reads is an error, never ignored."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import Strict

from vlakit.checked import Count, Flag, Number, Text, also, first, load, one_of
from vlakit.configs import config_file, config_names, shown_folders
from vlakit.data.specs import ops
from vlakit.errors import ConfigError, UnknownName, nearest

Masks: TypeAlias = tuple[tuple[bool, ...], tuple[bool, ...]]
ACTION_ENCODINGS: dict[str, Masks | None] = {  # which columns are normalised, which are absolute
    "EEF_POS": ((True,) * 6 + (False,), (False,) * 6 + (True,)),
    "EEF_R6": ((True,) * 9 + (False,), (False,) * 9 + (True,)),
    "JOINT_POS_BIMANUAL": ((True,) * 14, (True,) * 14),
    "JOINT_POS": None,  # OpenVLA refuses to load it and gives it no mask
}
End: TypeAlias = Annotated[int, Strict()] | None
_TELLING = ("gripper", "frame", "download", "published", "control_hz", "undecided")  # they change nothing in the data


def _op(role: str) -> Any:
    """Text that names an op of this role."""

    def known(op: str) -> str:
        ops.find(op, role)
        return op

    return also(known)


def _slice(ends: object) -> object:
    if not isinstance(ends, list) or len(cast("list[Any]", ends)) != 2:
        raise ConfigError(f"expected [start, stop], got {ends!r}", do="write null for an open end")
    return cast("object", ends)


def _path_or_pairs(segment: object) -> object:
    return {"take": segment} if isinstance(segment, str) else segment


def _one_source(segment: "Segment") -> "Segment":
    if sum(map(bool, (segment.take, segment.zeros, segment.ones))) != 1:
        raise ConfigError(f"expected one of take, zeros, ones, got {segment}", do="write {take: PATH} or {zeros: 1}")
    return segment


def _filled(segments: object) -> object:
    if not isinstance(segments, list) or not segments:
        what = "a list of {take: PATH} and {zeros: 1}"
        raise ConfigError(f"expected {what}, got {segments!r}", do=f"give {what}")
    return cast("object", segments)


@dataclass(frozen=True, slots=True)
class Segment:
    """Some columns of one step field after its ops, or a constant block of `zeros` or `ones` columns."""

    take: Text | None = None
    cols: Annotated[tuple[End, End], first(_slice)] | None = None  # a Python slice of the last axis
    ops: tuple[Annotated[Text, _op("column")], ...] = ()
    zeros: Count = 0
    ones: Count = 0


Source: TypeAlias = Annotated[Segment, first(_path_or_pairs), also(_one_source)]
Sources: TypeAlias = Annotated[tuple[Source, ...], first(_filled)]  # side by side
Cameras: TypeAlias = dict[Literal["primary", "secondary", "wrist", "left_wrist", "right_wrist"], Text | None]


@dataclass(frozen=True, slots=True)
class Published:
    """Figures that others measured over the whole dataset: q01, q99 (A,) physical units.

    control_hz: as RDT-1B lists it (configs/dataset_control_freq.json); for hours alone, a run's record says the spec's.
    """

    num_trajectories: Count | None = None
    num_transitions: Count | None = None
    control_hz: Number | None = None
    q01: tuple[Number, ...] | None = None
    q99: tuple[Number, ...] | None = None


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """How the raw steps of one dataset become a `Trajectory`.

    images, depth: camera -> key under observation/. action: segments side by side. observation: keys that the transform
    makes; others are taken as stored. proprio: observation keys in order; each null stands for one column of zeros.
    mask, absolute_action_mask: (A,), None where the encoding has no default. gripper, frame: in words, for people.
    undecided: what `vlakit data init` left to a person; a spec is read when nothing is.
    """

    name: Text
    images: Cameras
    language: Source
    action: Sources
    depth: Cameras = field(default_factory=dict[Any, Any])
    proprio: tuple[Text | None, ...] = ()
    state_encoding: Literal["NONE", "POS_EULER", "POS_QUAT", "JOINT", "JOINT_BIMANUAL"] = "NONE"
    action_encoding: Annotated[Text, one_of(ACTION_ENCODINGS)] = "EEF_POS"
    observation: dict[str, Sources] = field(default_factory=dict[str, Sources])
    drop_first_steps: Count = 0
    post: tuple[Annotated[Text, _op("post")], ...] = ()
    augment: tuple[Annotated[Text, _op("augment")], ...] = ()
    frame_filter: Annotated[Text, _op("frame_filter")] | None = None
    mask: tuple[Flag, ...] | None = None
    absolute_action_mask: tuple[Flag, ...] | None = None
    gripper: str = ""
    frame: str = ""
    undecided: tuple[Text, ...] = ()
    download: dict[str, Any] = field(default_factory=dict[str, Any])
    published: Published = field(default_factory=Published)
    control_hz: Number | None = None

    @property
    def width(self) -> int | None:
        """Action size A; None where the encoding fixes none."""
        return None if self.mask is None else len(self.mask)

    def segments(self, key: str) -> tuple[Segment, ...]:
        """The segments that make one observation key: its own, or the stored field as it is."""
        return self.observation.get(key, (Segment(take=f"observation/{key}"),))

    def keys(self, cameras: Collection[str] | None = None) -> list[str]:
        """All step paths that transform, cameras (default: all) and proprio read, sorted; without depth maps."""
        proprio = [segment for key in self.proprio if key for segment in self.segments(key)]
        paths = {segment.take for segment in (self.language, *self.action, *proprio) if segment.take}
        if cameras is None or self.augment:  # an augment may swap cameras, one of which is wanted
            cameras = self.images.keys()
        paths |= {f"observation/{key}" for camera, key in self.images.items() if key and camera in cameras}
        return sorted(paths.union(*map(ops.needs, self.post)))


def _positive(weights: dict[str, float]) -> dict[str, float]:
    wrong = [dataset for dataset, weight in weights.items() if not 0 < weight < float("inf")]
    if wrong or not weights:
        raise ConfigError(f"weights must be above 0: {wrong or 'there are none'}", do="leave the dataset out")
    return weights


@dataclass(frozen=True, slots=True)
class Mixture:
    """Datasets to train on together; the share of one is its weight times its transitions."""

    name: Text
    datasets: Annotated[dict[str, Number], also(_positive)]


def spec_names() -> list[str]:
    """Names of all dataset specs, sorted."""
    return config_names("dataset")


def load_spec(name: str | Path) -> DatasetSpec:
    """Read and check the spec called `name`, or a YAML file of one's own.

    Raises UnknownName with the nearest names, ConfigError naming file, key and the nearest key, or what is undecided.
    """
    file = _file(name, "dataset", spec_names())
    spec = load(DatasetSpec, file, name=file.stem)
    if spec.undecided:
        what = f"a person has not decided yet: {', '.join(spec.undecided)}"
        remedy = "check the lines marked DECIDE, and take each that is right off the list undecided"
        raise ConfigError(what, where=str(file), do=remedy)
    mask, absolute = ACTION_ENCODINGS[spec.action_encoding] or (None, None)
    spec = replace(spec, mask=spec.mask or mask, absolute_action_mask=spec.absolute_action_mask or absolute)
    if len(spec.mask or ()) != len(spec.absolute_action_mask or ()):
        raise ConfigError("mask and absolute_action_mask differ in length", where=str(file), do="write both")
    return spec


def load_mixture(name: str | Path) -> Mixture:
    """Read and check the mixture called `name`, or a YAML file of one's own; errors as `load_spec`.

    The name of a dataset that no mixture has stands for that dataset alone.
    """
    if name in spec_names() and name not in config_names("mixture"):
        return Mixture(str(name), {str(name): 1.0})
    file = _file(name, "mixture", [*config_names("mixture"), *spec_names()])
    return load(Mixture, file, name=file.stem)


def fingerprint(spec: DatasetSpec) -> str:
    """sha256 (hex) of everything in a spec that changes its trajectories; notes and published figures do not count."""
    content = {key: value for key, value in asdict(spec).items() if key not in _TELLING}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file(name: str | Path, kind: str, known: Sequence[str]) -> Path:
    if Path(name).suffix in {".yaml", ".yml"}:
        if Path(name).is_file():
            return Path(name)
        raise UnknownName(f"no file {str(name)!r}", do="check the path")
    if name not in known:
        hint = nearest(str(name), known)
        raise UnknownName(f"no {kind} called {name!r}", where=shown_folders(kind), do=f"{hint} or give a YAML file")
    return config_file(kind, str(name))
