"""LIBERO by the protocol of OpenVLA's evaluation: four suites of ten tasks with 50 recorded starts each.

Actions are in the controller's units, as in its datasets: 1 asks for 0.05 m or 0.5 rad at 20 Hz; gripper 1 = open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from vlakit.errors import ConfigError, InvalidData, PartMissing, UnknownName, nearest
from vlakit.evaluation.suite import InitialState, Step
from vlakit.evaluation.suites.libero import setup as libero_setup
from vlakit.processing.images import lanczos
from vlakit.schema import Float32, Float64, Observation, UInt8

log = logging.getLogger(__name__)

MAX_STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
SETTLE_STEPS = 10  # objects are dropped from a small height at the start
IMAGE_SIZE = 256
SEED = 0  # fixtures are placed by it, also when objects come from a recorded start
_ATTEMPTS = 100  # placements that robosuite may reject
_NO_OP = np.array([0, 0, 0, 0, 0, 0, -1], float)


class LiberoSuite:
    """One of libero_spatial, libero_object, libero_goal, libero_10. assets: folder of meshes, None: where usual."""

    control_hz = 20.0

    def __init__(self, name: str, assets: str | None = None, dataset: str | None = None) -> None:
        if name not in MAX_STEPS:
            raise UnknownName(f"no LIBERO suite {name!r}", do=nearest(name, MAX_STEPS))
        self.name, self.assets = name, assets
        self.dataset = dataset or f"{name}_no_noops"
        self.surroundings: Mapping[str, Any] = {
            "camera": "primary",
            "action": "osc_pose_7",
            "control_hz": self.control_hz,
        }
        self.noise: Float32 = np.zeros(7, np.float32)
        self.action_range = ([-1.0] * 6 + [0.0], [1.0] * 7)

    @property
    def tasks(self) -> Sequence[str]:
        """LIBERO's own names, in its own order. Raises PartMissing without its package."""
        return list(libero_setup.instructions(self.name))

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of mujoco, robosuite, hf-libero and what draws."""
        return libero_setup.versions()

    def max_steps(self, task: str) -> int:
        """Steps of the policy; those in which objects settle do not count."""
        self._instruction(task)
        return MAX_STEPS[self.name]

    def initial_states(self, task: str, n: int) -> Sequence[InitialState]:
        """The first n of the 50 recorded starts. Raises ConfigError for more."""
        instruction = self._instruction(task)
        available = len(libero_setup.start_vectors(self.name, task))
        if n > available:
            raise ConfigError(
                f"LIBERO recorded {available} starts a task, {n} are asked for",
                where=f"suite {self.name}, task {task}",
                do=f"give episodes={available * len(self.tasks)} at most",
            )
        return [InitialState(f"{task}-{i}", task, SEED, instruction, {"index": i}) for i in range(n)]

    def training_states(self, task: str, n: int, seed: int) -> Sequence[InitialState]:
        """LIBERO has none beside those it evaluates on: PartMissing."""
        raise _no_expert(self.dataset)

    def environment(self) -> LiberoEnvironment:
        """A new slot. Raises PartMissing naming the folder of meshes when it is absent; warns of known drift."""
        assets = libero_setup.find_assets(self.assets)
        for warning in libero_setup.drift(self.versions):
            log.warning(warning)
        simulator = libero_setup.simulator_class(assets)
        return LiberoEnvironment(self.name, self.dataset, simulator)

    def _instruction(self, task: str) -> str:
        known = libero_setup.instructions(self.name)
        if task not in known:
            raise UnknownName(f"no task {task!r}", where=f"suite {self.name}", do=nearest(task, known))
        return known[task]


class LiberoEnvironment:
    """One LIBERO scene at a time; another task means another scene, which takes seconds to build."""

    def __init__(self, suite: str, dataset: str, simulator: Callable[..., Any]) -> None:
        self.suite, self.dataset, self._simulator = suite, dataset, simulator
        self._world: Any = None
        self._task = ""
        self._gripper = 1.0
        self._instruction = ""
        self._image: UInt8 = np.empty((0, 0, 3), np.uint8)

    def reset(self, state: InitialState) -> Observation:
        """Seed, reset, recorded start, and ten steps without motion and with an open gripper.

        The seed is set again for each episode, so that fixtures stand the same whatever ran before.
        """
        vector = libero_setup.start_vectors(self.suite, state.task)[int(state.content["index"])]
        self._load(state.task)
        self._instruction, self._gripper = state.instruction, 1.0
        self._free_pictures()
        with _own_global_seed():
            _reset(self._world)
        held = self._world.get_sim_state()
        if held.shape != vector.shape:
            raise InvalidData(
                f"the scene has {held.size} values, its recorded start {vector.size}",
                where=f"{self.suite}, {state.task}",
                do="the assets belong to another version of LIBERO: fetch them again",
            )
        raw = self._world.set_init_state(vector)
        for _ in range(SETTLE_STEPS):
            raw, *_ = self._world.step(_NO_OP)
        return self._observe(raw)

    def step(self, action: Float32) -> Step:
        """One action; `done` of LIBERO is success, and there is no partial credit."""
        self._draw_here()
        raw, _, done, _ = self._world.step(to_simulator(action))
        self._gripper = float(action[6])
        return Step(self._observe(raw), float(done), bool(done))

    def hold(self) -> Float32:
        """No motion, the gripper as last told."""
        return np.array([0, 0, 0, 0, 0, 0, self._gripper], np.float32)

    def expert(self) -> Float32:
        """LIBERO has none: PartMissing."""
        raise _no_expert(self.dataset)

    def picture(self, size: int) -> UInt8:
        """What the policy sees, resized."""
        return self._image if size == IMAGE_SIZE else lanczos(self._image, size, size)

    def close(self) -> None:
        """Free scene and renderer."""
        if self._world is not None:
            self._free_pictures()
            self._world.close()
            self._world, self._task = None, ""

    def _draw_here(self) -> Any:
        """Make this scene's OpenGL context the current one: robosuite 1.4 draws into whichever was made last."""
        context = self._world.sim._render_context_offscreen
        context.gl_ctx.make_current()
        return context

    def _free_pictures(self) -> None:
        """Free OpenGL objects now and in their own context; when collected later, they would take another's along."""
        self._draw_here().con.free()

    def _load(self, task: str) -> None:
        if task == self._task:
            return
        self.close()
        file = libero_setup.package_folder() / "bddl_files" / self.suite / f"{task}.bddl"
        try:
            with _own_global_seed():
                camera = {"camera_names": ["agentview"], "camera_heights": IMAGE_SIZE, "camera_widths": IMAGE_SIZE}
                self._world = self._simulator(bddl_file_name=str(file), **camera)
        except (OSError, ValueError) as error:  # ValueError: MuJoCo misses a mesh
            raise PartMissing(
                f"a scene cannot be built: {error}", where=f"{self.suite}, {task}", do="fetch LIBERO's assets again"
            ) from error
        self._task = task

    def _observe(self, raw: Mapping[str, Any]) -> Observation:
        self._image = upright(raw["agentview_image"])
        return Observation.of(self._image, self._instruction, self.dataset)


def to_simulator(action: Float32) -> Float64:
    """An action (7,) as LIBERO's controller takes it: gripper 0 to 1 (1 = open) becomes +1 closed or -1 open.

    >>> to_simulator(np.array([0.5, 0, 0, 0, 0, 0, 1], np.float32)).tolist()
    [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    """
    sent = np.asarray(action, float).copy()
    sent[6] = -np.sign(2 * sent[6] - 1)
    return sent


def upright(image: UInt8) -> UInt8:
    """A picture as robosuite returns it, turned by 180 degrees as in LIBERO's converted datasets."""
    return np.ascontiguousarray(image[::-1, ::-1])


def _reset(world: Any) -> None:
    """Seed and reset the scene below LIBERO's wrapper, whose own reset repeats for ever on any error."""
    errors = libero_setup.rejected_placement()
    world.seed(SEED)
    for attempt in range(_ATTEMPTS):
        try:
            world.env.reset()
            return
        except errors:
            if attempt == _ATTEMPTS - 1:
                raise


@contextmanager
def _own_global_seed() -> Iterator[None]:
    """LIBERO draws from NumPy's global generator: whatever else uses it shall not notice."""
    before = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _no_expert(dataset: str) -> PartMissing:
    return PartMissing(
        "LIBERO has no scripted expert; its demonstrations are recorded ones",
        do=f"take them from the dataset {dataset}: vlakit shards dataset={dataset} source=DIR",
    )
