"""Meta-World's MT10 and MT50 as a suite: one Sawyer arm, fifty tasks, a sentence for each.

Success is the package's own, reached at any control step; an episode may last the package's 500 control steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any
from zlib import crc32

import numpy as np

from vlakit.errors import ConfigError, PartMissing, UnknownName, nearest
from vlakit.evaluation.renderer import choose_backend
from vlakit.evaluation.suite import InitialState, Step
from vlakit.evaluation.suites.metaworld.tasks import BENCHMARKS, SENTENCES
from vlakit.evaluation.suites.metaworld.world import World
from vlakit.schema import Float32, Float64, Observation, UInt8

SIMULATOR_HZ = 80  # frame_skip 5 at a time step of 2.5 ms: SawyerXYZEnv.metadata["render_fps"]
LIMIT = 500  # control steps of an episode: SawyerXYZEnv.max_path_length
REACH = 0.01  # metres that the hand's target moves in one control step at most: SawyerXYZEnv's action_scale
CAMERA = "corner4"  # at (0.75, 0.075, 0.7), fovy 60: where studies from pixels move `corner2` to
WORLDS_KEPT = 10  # models in memory a slot, some 50 MB each
CAMERAS = ("corner", "corner2", "corner3", "corner4", "topview", "gripperPOV", "behindGripper")


class MetaWorld:
    """MT10 or MT50, `repeat` control steps an action: at 5, 16 Hz and about 15 actions from start to success.

    Actions are vlakit's (7,): the hand moves by the first three in metres, at most `repeat` cm a step and axis; its
    three rotations are fixed in Meta-World and ignored here; gripper 1 = open, 0 = closed, is effort -1 to 1.
    tasks: a choice of the benchmark's. Raises PartMissing without the package, UnknownName, ConfigError.
    """

    def __init__(
        self,
        benchmark: str = "MT10",
        *,
        repeat: int = 5,
        image_size: int = 64,
        camera: str = CAMERA,
        tasks: Sequence[str] = (),
        dataset: str | None = None,
    ) -> None:
        if find_spec("metaworld") is None:
            raise PartMissing(
                "Meta-World is not installed", where=f"suite {benchmark}", do="pip install 'vlakit[metaworld]'"
            )
        if not 1 <= repeat <= LIMIT or image_size < 8:
            raise ConfigError(
                f"repeat={repeat} image_size={image_size} cannot be used",
                where=f"suite {benchmark}",
                do=f"give repeat in [1, {LIMIT}] control steps and image_size of 8 px or more",
            )
        known = BENCHMARKS[_known(benchmark, BENCHMARKS, "benchmark")]
        self._tasks = tuple(_known(task, known, "task") for task in tasks) or known
        self.repeat, self.image_size, self.camera = repeat, image_size, _known(camera, CAMERAS, "camera")
        self.name = f"metaworld_{benchmark.lower()}"
        self.dataset = dataset or self.name
        self.control_hz = SIMULATOR_HZ / repeat
        self.surroundings: Mapping[str, Any] = {
            "camera": "primary",
            "view": f"metaworld {self.camera}",
            "action": "delta_eef 7",
            "control_hz": self.control_hz,
        }
        self.noise: Float32 = np.array([0.25 * REACH * repeat] * 3 + [0] * 4, np.float32)
        self.action_range = None
        self._drawn: dict[tuple[str, int], list[list[float]]] = {}

    @property
    def tasks(self) -> Sequence[str]:
        """Names as the package has them, such as door-open-v3."""
        return self._tasks

    @property
    def versions(self) -> Mapping[str, str]:
        """Renderer, MuJoCo and Meta-World."""
        return {"renderer": choose_backend(), "mujoco": version("mujoco"), "metaworld": version("metaworld")}

    def max_steps(self, task: str) -> int:
        """The package's own limit for every task."""
        _known(task, self.tasks, "task")
        return LIMIT // self.repeat

    def initial_states(self, task: str, n: int) -> Sequence[InitialState]:
        """Starts `<task>/eval-<i>`: places of objects and goal, drawn as the package draws them."""
        return self._states(task, n, "eval", 0)

    def training_states(self, task: str, n: int, seed: int) -> Sequence[InitialState]:
        """Starts `<task>/train-<seed>-<i>` of another random stream; no two streams share a start."""
        return self._states(task, n, f"train-{seed}", seed + 1)

    def environment(self) -> MetaWorldEnvironment:
        """A slot that can run every task."""
        return MetaWorldEnvironment(self.repeat, self.image_size, self.camera, self.dataset)

    def _states(self, task: str, n: int, kind: str, stream: int) -> list[InitialState]:
        _known(task, self.tasks, "task")
        drawn = self._drawn.setdefault((task, stream), [])
        if len(drawn) < n:
            rng = np.random.default_rng([crc32(task.encode()), stream])
            drawn[:] = World(task).variations(rng, n)
        return [
            InitialState(f"{task}/{kind}-{i}", task, stream, SENTENCES[task], {"rand_vec": drawn[i]}) for i in range(n)
        ]


class MetaWorldEnvironment:
    """One slot; models of the tasks it has run lately are kept."""

    def __init__(self, repeat: int, image_size: int, camera: str, dataset: str) -> None:
        self.repeat, self.image_size, self.camera, self.dataset = repeat, image_size, camera, dataset
        self._worlds: OrderedDict[str, World] = OrderedDict()
        self._world: World | None = None
        self._instruction = ""
        self._gripper = 1.0

    def reset(self, state: InitialState) -> Observation:
        """Start `state`; raises UnknownName for a task that Meta-World lacks."""
        self._world = self._opened(_known(state.task, SENTENCES, "task"))
        self._world.reset(state.content["rand_vec"])
        self._instruction, self._gripper = state.instruction, 1.0  # the package's reset ends with the gripper open
        return self._observation()

    def step(self, action: Float32) -> Step:
        """`repeat` control steps, fewer when one of them succeeds; parts of an action out of reach are cut off."""
        native = own_action(action, self.repeat)
        self._gripper = float(action[6])
        success = any(self._running.step(native) for _ in range(self.repeat))
        return Step(self._observation(), float(success), success)

    def hold(self) -> Float32:
        """No motion, the gripper as it is."""
        return np.array([0, 0, 0, 0, 0, 0, self._gripper], np.float32)

    def expert(self) -> Float32:
        """What the package's scripted policy would do in the next `repeat` control steps."""
        return vlakit_action(self._running.scripted(self.repeat), self.repeat)

    def picture(self, size: int) -> UInt8:
        """The policy's camera, larger."""
        return self._running.draw(size, self.camera)

    def close(self) -> None:
        """Free the renderers."""
        while self._worlds:
            self._worlds.popitem()[1].close()

    @property
    def _running(self) -> World:
        if self._world is None:
            raise ConfigError("no episode has begun", where="Meta-World", do="reset the environment first")
        return self._world

    def _observation(self) -> Observation:
        image = self._running.draw(self.image_size, self.camera)
        return Observation.of(image, self._instruction, self.dataset)

    def _opened(self, task: str) -> World:
        if task in self._worlds:
            self._worlds.move_to_end(task)
            return self._worlds[task]
        while len(self._worlds) >= WORLDS_KEPT:
            self._worlds.popitem(last=False)[1].close()
        return self._worlds.setdefault(task, World(task))


def own_action(action: Float32, repeat: int) -> Float64:
    """Meta-World's action (4,) of one control step, in [-1, 1], of vlakit's (7,) for `repeat` of them.

    >>> own_action(np.array([0.05, -0.025, 1, 0, 0, 0, 1], np.float32), 5).round(6).tolist()
    [1.0, -0.5, 1.0, -1.0]
    """
    moves = np.asarray(action[:3], np.float64) / (REACH * repeat)
    return np.clip(np.append(moves, 1 - 2 * float(action[6])), -1, 1)


def vlakit_action(own: Float64, repeat: int) -> Float32:
    """The inverse: metres, three zeros, gripper 1 = open.

    >>> vlakit_action(np.array([1.0, -0.5, 0.0, -1.0]), 5).tolist()[-1]
    1.0
    """
    return np.concatenate([own[:3] * REACH * repeat, np.zeros(3), [(1 - own[3]) / 2]]).astype(np.float32)


def _known(name: str, known: Iterable[str], kind: str) -> str:
    """`name` itself; raises UnknownName with the nearest where it is not among the `known`."""
    if name not in known:
        raise UnknownName(f"Meta-World has no {kind} called {name!r}", do=nearest(name, known))
    return name
