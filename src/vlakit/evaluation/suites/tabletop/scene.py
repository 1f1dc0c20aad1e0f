"""The world of one episode: MJCF from an embodiment and a layout, compiled anew each time.

Compiling costs milliseconds and keeps bounding boxes true; rewriting geometries of a compiled model does not (objects
then fall without being touched, and "knock over" plays itself).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from vlakit.evaluation.suites.tabletop.embodiment import COLOURS, Embodiment, Look, Rgb
from vlakit.schema import Float64

TIMESTEP_S = 0.005
HOVER_M, CEILING_M = 0.13, 0.22  # where the gripper travels, and how high it can go
REACH_M = (0.20, 0.24)  # how far from the middle of the table it can go along x and y
SHAPES: dict[str, tuple[str, tuple[float, ...], float]] = {  # geometry, half sizes in metres, height of the centre
    "cube": ("box", (0.023, 0.023, 0.023), 0.023),
    "ball": ("sphere", (0.025,), 0.025),
    "cylinder": ("cylinder", (0.023, 0.023), 0.023),
    "bottle": ("cylinder", (0.021, 0.046), 0.046),
    "brick": ("box", (0.034, 0.021, 0.018), 0.018),
    "egg": ("ellipsoid", (0.029, 0.022, 0.022), 0.022),
    "disc": ("cylinder", (0.028, 0.012), 0.012),
    "plate": ("cylinder", (0.055, 0.005), 0.005),
    "bowl": ("cylinder", (0.048, 0.012), 0.012),
}
RECEPTACLES = ("plate", "bowl")


@dataclass(frozen=True)
class Thing:
    """One object: name "red cube", where it stands (metres, radians), size as a share of its shape's own."""

    colour: str
    shape: str
    x: float
    y: float
    yaw: float = 0.0
    size: float = 1.0

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.colour} {self.shape}"

    @property
    def height(self) -> float:
        """Metres from the table to its centre when it stands."""
        return SHAPES[self.shape][2] * self.size

    @property
    def radius(self) -> float:
        """Half its width in metres, about."""
        return max(SHAPES[self.shape][1][:2]) * self.size if self.shape in {"brick", "egg"} else self._base

    @property
    def _base(self) -> float:
        return SHAPES[self.shape][1][0] * self.size


@dataclass(frozen=True)
class Layout:
    """All that an episode's world is made from; plain numbers, so that a file can hold it.

    hand: x, y, z of the gripper. view: azimuth, elevation (degrees), distance (metres). look: None = the embodiment's.
    """

    things: tuple[Thing, ...]
    hand: tuple[float, float, float]
    view: tuple[float, float, float]
    look: Look | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layout:
        """The opposite of asdict."""
        look = values.get("look")
        return cls(
            tuple(Thing(**thing) for thing in values["things"]),
            tuple(values["hand"]),
            tuple(values["view"]),
            None if look is None else Look(**{k: _tuple(v) for k, v in look.items()}),
        )


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list | tuple) else value


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _rgba(rgb: Rgb) -> str:
    return f'rgba="{_numbers(rgb)} 1"'


def mjcf(embodiment: Embodiment, layout: Layout) -> str:
    """The XML of a world: table, wall, a Cartesian gripper and the layout's things."""
    look = layout.look or embodiment.look
    first, second = (look.table * 2)[:2]
    pattern = "checker" if len(look.table) > 1 else "flat"
    return f"""<mujoco>
<compiler angle="radian" autolimits="true"/>
<option timestep="{TIMESTEP_S}" integrator="implicitfast" cone="elliptic" impratio="3" noslip_iterations="1"/>
<visual>
  <global fovy="{embodiment.view.fovy}" offwidth="640" offheight="640"/>
  <quality shadowsize="0" offsamples="0" numslices="14" numstacks="10" numquads="2"/>
  <headlight ambient="{_numbers([look.ambient] * 3)}" diffuse="0.15 0.15 0.15" specular="0 0 0"/>
  <map znear="0.02" zfar="20"/>
</visual>
<asset>
  <texture name="wall" type="skybox" builtin="flat" rgb1="{_numbers(look.wall)}" rgb2="{_numbers(look.wall)}"
    width="8" height="48"/>
  <texture name="table" type="2d" builtin="{pattern}" rgb1="{_numbers(first)}" rgb2="{_numbers(second)}"
    width="64" height="64"/>
  <material name="table" texture="table" texrepeat="5 5" specular="0" shininess="0"/>
</asset>
<default><geom solref="0.01 1" friction="1 0.02 0.002" condim="4"/></default>
<worldbody>
  <light pos="{_numbers(look.light_from)}" dir="{_numbers([-v for v in look.light_from])}" directional="true"
    diffuse="{_numbers([look.diffuse] * 3)}" specular="0 0 0" castshadow="false"/>
  <geom name="table" type="box" size="0.36 0.42 0.02" pos="0 0 -0.02" material="table"/>
  {_hand(embodiment, look, layout.hand)}
  {"".join(_thing(i, thing) for i, thing in enumerate(layout.things))}
</worldbody>
<actuator>{_actuators()}</actuator>
</mujoco>"""


def _hand(embodiment: Embodiment, look: Look, at: tuple[float, float, float]) -> str:
    palm, width = embodiment.palm_m, embodiment.finger_width_m
    joints = "".join(
        f'<joint name="{name}" type="{kind}" axis="{axis}" damping="{damping}" armature="{armature}"/>'
        for name, kind, axis, damping, armature in [
            ("x", "slide", "1 0 0", 30, 0.5), ("y", "slide", "0 1 0", 30, 0.5), ("z", "slide", "0 0 1", 30, 0.5),
            ("yaw", "hinge", "0 0 1", 0.3, 0.01), ("pitch", "hinge", "0 1 0", 0.3, 0.01),
            ("roll", "hinge", "1 0 0", 0.3, 0.01),
        ]
    )  # fmt: skip
    fingers = "".join(
        f'<body name="{name}" pos="0 {side * 0.008} 0.02" gravcomp="1">'
        f'<joint name="{name}" type="slide" axis="0 {side} 0" range="0 {embodiment.opening_m - 0.004}" damping="3" '
        f'armature="0.02"/>'
        f'<geom name="{name}" type="box" size="{width} 0.006 0.03" mass="0.03" friction="2 0.05 0.005" '
        f'solimp="0.95 0.99 0.001" {_rgba(look.fingers)}/></body>'
        for name, side in (("left", 1), ("right", -1))
    )
    return f"""<body name="hand" pos="{_numbers(at)}" gravcomp="1">{joints}
    <geom name="palm" type="box" size="{_numbers(palm)}" pos="0 0 {0.05 + palm[2]}" mass="0.3" {_rgba(look.gripper)}/>
    <geom name="wrist" type="cylinder" size="0.012 0.1" pos="0 0 {0.15 + palm[2]}" mass="0.1" contype="0"
      conaffinity="0" {_rgba(look.gripper)}/>
    {fingers}</body>"""


def _actuators() -> str:
    slides = "".join(
        f'<position name="{j}" joint="{j}" kp="900" kv="60" forcerange="-60 60"/>' for j in ("x", "y", "z")
    )
    hinges = "".join(
        f'<position name="{j}" joint="{j}" kp="8" kv="0.6" forcerange="-3 3"/>' for j in ("yaw", "pitch", "roll")
    )
    fingers = "".join(
        f'<position name="{j}" joint="{j}" kp="150" kv="5" forcerange="-5 5"/>' for j in ("left", "right")
    )
    return slides + hinges + fingers


def _thing(i: int, thing: Thing) -> str:
    kind, half, _ = SHAPES[thing.shape]
    size = _numbers([value * thing.size for value in half])
    colour = COLOURS[thing.colour]
    place = f'pos="{thing.x:.5f} {thing.y:.5f} {thing.height + 0.0005:.5f}" euler="0 0 {thing.yaw:.4f}"'
    if thing.shape in RECEPTACLES:  # stands fast
        rim = _rgba((0.8 * colour[0], 0.8 * colour[1], 0.8 * colour[2]))
        inner = _numbers([half[0] * 0.7 * thing.size, half[1] * thing.size])
        return (
            f'<body name="thing{i}" {place}><geom name="thing{i}" type="cylinder" size="{size}" {rim}/><geom '
            f'type="cylinder" size="{inner}" pos="0 0 0.0005" contype="0" conaffinity="0" {_rgba(colour)}/></body>'
        )
    cap = ""
    if thing.shape == "bottle":
        cap = (
            f'<geom type="cylinder" size="{_numbers([0.009 * thing.size, 0.008 * thing.size])}" '
            f'pos="0 0 {(half[1] + 0.008) * thing.size:.5f}" mass="0.002" {_rgba((0.85, 0.85, 0.85))}/>'
        )
    rolls = 'condim="6" friction="1 0.02 0.006"' if kind in {"sphere", "ellipsoid"} else ""
    return (
        f'<body name="thing{i}" {place}><freejoint/>'
        f'<geom name="thing{i}" type="{kind}" size="{size}" mass="0.05" {rolls} {_rgba(colour)}/>{cap}</body>'
    )


class World:
    """A compiled layout in motion; metres and radians.

    An action moves the commanded pose; the gripper is a pair of position-controlled fingers (1 = open).
    """

    def __init__(self, embodiment: Embodiment, layout: Layout) -> None:
        mujoco: Any = import_module("mujoco")  # without types, and not before a backend was chosen
        self._mujoco = mujoco
        self.embodiment, self.layout = embodiment, layout
        self.model = mujoco.MjModel.from_xml_string(mjcf(embodiment, layout))
        self.data = mujoco.MjData(self.model)
        self.home = np.array(layout.hand)
        self.command = np.zeros(6)  # x y z from home, yaw pitch roll: the actuators' order
        self.gripper = 1.0
        self._bodies = [self.model.body(f"thing{i}").id for i in range(len(layout.things))]
        self._hand = self.model.body("hand").id
        self._pads = {self.model.geom(name).id for name in ("left", "right")}
        self._touching = self._pads | {self.model.geom("palm").id}
        self._geoms = {self.model.geom(f"thing{i}").id: i for i in range(len(layout.things))}
        self.data.qpos[6:8] = self.opening
        self.data.ctrl[6:8] = self.opening
        mujoco.mj_forward(self.model, self.data)

    @property
    def opening(self) -> float:
        """A finger's position when open."""
        return self.embodiment.opening_m - 0.008

    @property
    def hand(self) -> Float64:
        """(3,) where the middle between the finger tips is, 1 cm above their ends."""
        return self.data.qpos[:3] + self.home

    @property
    def finger_gap(self) -> float:
        """How far the fingers stand open: 1 as when open, 0 closed, a little beyond where they swing."""
        return float(self.data.qpos[6:8].mean() / self.opening)

    @property
    def state(self) -> Float64:
        """(8,) x y z and roll pitch yaw of the hand, metres and radians, 0, the fingers' gap: its proprioception."""
        return np.concatenate([self.hand, self.data.qpos[5:2:-1], [0, self.finger_gap]])

    def position(self, i: int) -> Float64:
        """(3,) centre of thing i."""
        return self.data.xpos[self._bodies[i]]

    def upright(self, i: int) -> float:
        """Cosine of the tilt of thing i."""
        return float(self.data.xmat[self._bodies[i]][8])

    def speed(self, i: int) -> float:
        """Metres a second of thing i."""
        return float(np.linalg.norm(self.data.cvel[self._bodies[i]][3:]))

    def thing_of_geom(self, geom: int) -> int | None:
        """The thing that a geometry belongs to."""
        body = int(self.model.geom_bodyid[geom]) if geom >= 0 else -1
        return self._bodies.index(body) if body in self._bodies else None

    def touched(self) -> set[int]:
        """The things that the gripper touches."""
        return {i for geom, i in self._touches() if geom in self._touching}

    def gripped(self, i: int) -> bool:
        """Do both fingers touch thing i?"""
        return {geom for geom, thing in self._touches() if thing == i} >= self._pads

    def _touches(self) -> list[tuple[int, int]]:
        """(geometry of something else, thing) of every contact of a thing."""
        pairs = self.data.contact.geom.tolist()
        both = [*pairs, *([b, a] for a, b in pairs)]
        return [(a, self._geoms[b]) for a, b in both if b in self._geoms]

    def settle(self, seconds: float = 0.3) -> None:
        """Let things come to rest."""
        self._mujoco.mj_step(self.model, self.data, round(seconds / TIMESTEP_S))

    def act(self, action: Float64) -> None:
        """One control period with an action (7,), clipped to the longest step and to the reach."""
        embodiment = self.embodiment
        move = np.clip(np.asarray(action[:3], float), -embodiment.step_m, embodiment.step_m)
        turn = np.clip(np.asarray(action[3:6], float), -0.5, 0.5)[::-1]  # roll pitch yaw -> yaw pitch roll
        # A command runs ahead of a blocked gripper by a fingertip, no more.
        ahead = np.clip(self.command[:3] - self.data.qpos[:3], -0.015, 0.015)
        target = self.data.qpos[:3] + ahead + move + self.home
        low = (-REACH_M[0], -REACH_M[1], 0.012)
        target = np.clip(target, low, (*REACH_M, CEILING_M)) - self.home
        goal = np.concatenate([target, np.clip(self.command[3:] + turn, -0.8, 0.8)])
        self.gripper = float(np.clip(action[6], 0, 1))
        n_steps = round(1 / (embodiment.control_hz * TIMESTEP_S))
        start, ramp = self.command.copy(), 4
        self.data.ctrl[6:8] = self.opening * self.gripper
        for part in range(1, ramp + 1):  # the command glides to its goal in the first half of the period
            self.data.ctrl[:6] = start + (goal - start) * part / ramp
            self._mujoco.mj_step(self.model, self.data, n_steps // (2 * ramp))
        self._mujoco.mj_step(self.model, self.data, n_steps - ramp * (n_steps // (2 * ramp)))
        self.command = goal
