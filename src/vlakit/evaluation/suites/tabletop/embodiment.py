"""Embodiments: a robot set-up as data, one YAML file each in conf/embodiment; a new set-up is a new file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from vlakit.configs import config_file, shown
from vlakit.errors import ConfigError, UnknownName, nearest

Rgb = tuple[float, float, float]
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


@dataclass(frozen=True)
class View:
    """A free camera in degrees and metres; azimuth 0 looks along +x, from behind the robot. jitter: of an episode."""

    azimuth: float
    elevation: float
    distance: float
    lookat: tuple[float, float, float] = (0.03, 0.0, 0.04)
    fovy: float = 45.0
    jitter: tuple[float, float, float] = (8.0, 4.0, 0.03)  # degrees, degrees, share of the distance


@dataclass(frozen=True)
class Look:
    """Colours and light. table: one colour, or two for a chequered one; light: from where, how bright."""

    table: tuple[Rgb, ...]
    wall: Rgb
    gripper: Rgb
    fingers: Rgb
    light_from: tuple[float, float, float] = (0.3, 0.4, 1.5)
    diffuse: float = 0.6
    ambient: float = 0.4


@dataclass(frozen=True)
class Embodiment:
    """Gripper (metres), step size, palette and view of one robot set-up. control_hz: actions a second."""

    name: str
    view: View
    look: Look
    colours: tuple[str, ...]
    plate_colours: tuple[str, ...]
    step_m: float = 0.06  # the longest move along an axis in one control step
    opening_m: float = 0.045  # how far a finger stands from the middle when open
    finger_width_m: float = 0.012  # half of it
    palm_m: tuple[float, float, float] = (0.018, 0.045, 0.012)  # half sizes
    control_hz: float = 5.0


def _from_yaml(values: dict[str, Any], where: str) -> Embodiment:
    try:
        view, look = dict(values.pop("view")), dict(values.pop("look"))
        look["table"] = tuple(tuple(colour) for colour in look["table"])
        parts = {**values, "view": View(**_tuples(view)), "look": Look(**_tuples(look))}
        made = Embodiment(**_tuples(parts))
    except (TypeError, KeyError) as error:
        names = ", ".join(f.name for f in fields(Embodiment))
        raise ConfigError(f"not an embodiment: {error}", where=where, do=f"its keys are {names}") from error
    unknown = [c for c in (*made.colours, *made.plate_colours) if c not in COLOURS]
    if unknown:
        raise UnknownName(f"no colour {unknown[0]!r}", where=where, do=nearest(unknown[0], COLOURS))
    return made


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def load_embodiment(name: str) -> Embodiment:
    """The embodiment in embodiment/NAME.yaml of any folder. Raises UnknownName, ConfigError."""
    return _load(config_file("embodiment", name))


@lru_cache(maxsize=32)
def _load(file: Path) -> Embodiment:
    return _from_yaml({"name": file.stem, **yaml.safe_load(file.read_text(encoding="utf-8"))}, shown(file))
