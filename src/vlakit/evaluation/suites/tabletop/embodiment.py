"""Embodiments: a robot set-up as data, one YAML file each in conf/embodiment; a new set-up is a new file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import SkipValidation

from vlakit.checked import Text, also, load
from vlakit.configs import config_file
from vlakit.errors import ConfigError, UnknownName, nearest


def _number(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"expected a number, got {value!r}", do="give a number")
    return value


# Not pydantic's float: the fingerprint by which stored starts are known tells 0 from 0.0.
Real: TypeAlias = Annotated[float, SkipValidation, also(_number)]
Triple: TypeAlias = tuple[Real, Real, Real]
Rgb: TypeAlias = Triple
COLOURS: dict[str, Rgb] = {
    "red": (0.80, 0.08, 0.08),
    "green": (0.10, 0.55, 0.12),
    "blue": (0.08, 0.20, 0.80),
    "yellow": (0.92, 0.82, 0.10),
    "orange": (0.95, 0.45, 0.05),
    "purple": (0.45, 0.12, 0.60),
    "white": (0.93, 0.93, 0.93),
    "black": (0.05, 0.05, 0.05),
    "pink": (0.95, 0.45, 0.70),
    "cyan": (0.10, 0.75, 0.80),
    "brown": (0.42, 0.24, 0.10),
    "teal": (0.02, 0.42, 0.42),
    "maroon": (0.40, 0.02, 0.12),
    "magenta": (0.85, 0.05, 0.70),
}


def _known_colours(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in COLOURS:
            raise UnknownName(f"no colour {name!r}", do=nearest(name, COLOURS))
    return names


Colours: TypeAlias = Annotated[tuple[Text, ...], also(_known_colours)]


@dataclass(frozen=True)
class View:
    """A free camera in degrees and metres; azimuth 0 looks along +x, from behind the robot. jitter: of an episode."""

    azimuth: Real
    elevation: Real
    distance: Real
    lookat: Triple = (0.03, 0.0, 0.04)
    fovy: Real = 45.0
    jitter: Triple = (8.0, 4.0, 0.03)  # degrees, degrees, share of the distance


@dataclass(frozen=True)
class Look:
    """Colours and light. table: one colour, or two for a chequered one; light: from where, how bright."""

    table: tuple[Rgb, ...]
    wall: Rgb
    gripper: Rgb
    fingers: Rgb
    light_from: Triple = (0.3, 0.4, 1.5)
    diffuse: Real = 0.6
    ambient: Real = 0.4


@dataclass(frozen=True)
class Embodiment:
    """Gripper (metres), step size, palette and view of one robot set-up. control_hz: actions a second."""

    name: Text
    view: View
    look: Look
    colours: Colours
    plate_colours: Colours
    step_m: Real = 0.06  # the longest move along an axis in one control step
    opening_m: Real = 0.045  # how far a finger stands from the middle when open
    finger_width_m: Real = 0.012  # half of it
    palm_m: Triple = (0.018, 0.045, 0.012)  # half sizes
    control_hz: Real = 5.0


def load_embodiment(name: str) -> Embodiment:
    """The embodiment in embodiment/NAME.yaml of any folder. Raises UnknownName, ConfigError."""
    return _load(config_file("embodiment", name))


@lru_cache(maxsize=32)
def _load(file: Path) -> Embodiment:
    return load(Embodiment, file, name=file.stem)
