"""One Meta-World task in MuJoCo: exact resets, actions that last several control steps, the scripted policy, pictures.

The package's own environments do the physics; they are drawn here, since gymnasium's renderer fails with two of them.
"""

from __future__ import annotations

import atexit
import logging
import pickle
import warnings
from functools import lru_cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from vlakit.errors import PartMissing
from vlakit.evaluation.renderer import choose_backend
from vlakit.schema import Float64, UInt8

METRES = 0.01  # what 1 of an action moves the hand in one control step: SawyerXYZEnv's action_scale


@lru_cache(maxsize=1)
def simulator() -> SimpleNamespace:
    """mujoco, and Meta-World's `environments` and `policies` by task, and its Task; imported here, once drawing is set.

    Raises PartMissing.
    """
    choose_backend()
    logging.getLogger("OpenGL").setLevel(logging.WARNING)  # it reports an accelerator that it does without
    # half of the policies' answers are above 1, which is what they rely on to move at full speed
    warnings.filterwarnings("ignore", message="Constant.s. may be too high", module="metaworld")
    return SimpleNamespace(
        mujoco=import_module("mujoco"),
        environments=import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS,
        policies=import_module("metaworld.policies").ENV_POLICY_MAP,
        Task=import_module("metaworld.types").Task,
    )


class World:
    """One task's environment. Actions here are Meta-World's own (4,): three moves in [-1, 1], effort 1 = close."""

    def __init__(self, task: str) -> None:
        self.task = task
        self._mujoco = simulator().mujoco
        self._class = simulator().environments[task]
        self.env: Any = self._class()
        self._scripted = simulator().policies[task]()
        self._seen: Float64 = np.empty(0)
        self._painters: dict[int, Painter] = {}

    def variations(self, rng: np.random.Generator, n: int) -> list[list[float]]:
        """The package's own draws of where objects and goal are, with its own rejections; more begin with fewer."""
        env = self.env
        self._select(np.zeros(0))
        env._freeze_rand_vec, env.seeded_rand_vec, env.np_random = False, True, rng
        vectors: list[list[float]] = []
        for _ in range(n):
            env.reset_model()
            vectors.append([float(value) for value in env._last_rand_vec])
        return vectors

    def reset(self, variation: list[float]) -> None:
        """Put objects and goal where `variation` says; what happened before leaves no trace."""
        self._select(np.array(variation))
        self._mujoco.mj_resetData(self.env.model, self.env.data)
        self._seen, _ = self.env.reset()

    def step(self, action: Float64) -> bool:
        """One control step of 1/80 s; returns success."""
        self._seen, _, _, _, info = self.env.step(action)
        return bool(info["success"])

    def scripted(self, repeat: int) -> Float64:
        """What the scripted policy does in the next `repeat` control steps, (4,): its moves' mean, its last effort.

        It is let act on the real physics, which are then put back: its gains are too high for longer steps.
        """
        env, mujoco = self.env, self._mujoco
        everything = mujoco.mjtState.mjSTATE_INTEGRATION
        before = np.empty(mujoco.mj_stateSize(env.model, everything))
        mujoco.mj_getState(env.model, env.data, before, everything)
        frame, seen = env._prev_obs, self._seen
        start = env.data.mocap_pos[0].copy()
        command = self._command(seen)
        for left in reversed(range(repeat)):
            env.set_xyz_action(command[:3])
            env.do_simulation([command[3], -command[3]], n_frames=env.frame_skip)
            if left:
                mujoco.mj_forward(env.model, env.data)
                seen = env._get_obs()
                command = self._command(seen)
        moved = (env.data.mocap_pos[0] - start) / (METRES * repeat)
        mujoco.mj_setState(env.model, env.data, before, everything)
        mujoco.mj_forward(env.model, env.data)
        env._prev_obs = frame
        return np.append(moved, command[3])

    def _command(self, seen: Float64) -> Float64:
        return np.clip(np.asarray(self._scripted.get_action(seen), np.float64), -1, 1)

    def draw(self, size: int, camera: str) -> UInt8:
        """(size, size, 3) uint8 RGB, turned by 180 degrees: the package's corner cameras stand on their heads."""
        for site, position in self.env._target_site_config:
            self.env._set_pos_site(site, position)
        if size not in self._painters:
            self._painters[size] = Painter(self.env.model, size)
        return self._painters[size].paint(self.env.data, camera)

    def close(self) -> None:
        """Free what it drew with."""
        while self._painters:
            self._painters.popitem()[1].close()

    def _select(self, variation: Float64) -> None:
        # partially_observable=False as in the package's MT benchmarks: the scripted policy must know the goal
        data = {"rand_vec": variation, "env_cls": self._class, "partially_observable": False}
        self.env.set_task(simulator().Task(self.task, pickle.dumps(data)))
        self.env.seeded_rand_vec = False


class Painter:
    """Draws one model at one size.

    Not mujoco.Renderer: each has an OpenGL context of its own, and closing one while another is current aborts.
    """

    def __init__(self, model: Any, size: int) -> None:
        mujoco = self._mujoco = simulator().mujoco
        _gl_context().make_current()
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        self._model, self._size = model, size
        self._options, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        # shadows and reflections are nine tenths of the drawing time without a GPU
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        try:
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        except mujoco.FatalError as error:
            raise PartMissing(
                f"MuJoCo cannot draw: {str(error)[:120]}",
                where="Meta-World",
                do="set MUJOCO_GL=egl (or osmesa) before mujoco is first imported",
            ) from error

    def paint(self, data: Any, camera: str) -> UInt8:
        """(size, size, 3) uint8 RGB, turned by 180 degrees."""
        mujoco = self._mujoco
        _gl_context().make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, everything, self._scene)
        box, pixels = mujoco.MjrRect(0, 0, self._size, self._size), np.empty((self._size, self._size, 3), np.uint8)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        mujoco.mjr_render(box, self._scene, self._context)
        mujoco.mjr_readPixels(pixels, None, box, self._context)
        return np.ascontiguousarray(pixels[:, ::-1])  # OpenGL's first row is the lowest: half of the turn

    def close(self) -> None:
        """Free meshes and textures on the graphics side."""
        _gl_context().make_current()
        self._context.free()


@lru_cache(maxsize=1)
def _gl_context() -> Any:
    """The one OpenGL context of this process that all models share."""
    context = simulator().mujoco.GLContext(64, 64)
    atexit.register(context.free)  # before the interpreter takes OpenGL's own modules down
    return context
