"""Pictures of a world: one OpenGL context a process and picture size, shared by all its worlds."""

from __future__ import annotations

import atexit
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from vlakit.evaluation.renderer import choose_backend
from vlakit.evaluation.suites.tabletop.scene import World
from vlakit.schema import UInt8


class Painter:
    """Draws worlds at one size. Textures live in the context, so it is loaded anew for another embodiment or look."""

    def __init__(self, size: int) -> None:
        choose_backend()
        mujoco: Any = import_module("mujoco")
        self._mujoco, self.size = mujoco, size
        self._gl = mujoco.GLContext(max(size, 64), max(size, 64))
        atexit.register(self._gl.free)  # before the interpreter takes OpenGL's own modules down
        self._gl.make_current()
        self._scenes: dict[Any, tuple[Any, Any]] = {}
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._pixels = np.empty((size, size, 3), np.uint8)

    def paint(self, world: World) -> UInt8:
        """(size, size, 3) uint8 RGB of the world as its camera sees it."""
        return np.ascontiguousarray(self._draw(world, segments=False)[::-1])  # OpenGL's first row is the lowest

    def visible_pixels(self, world: World) -> dict[int, int]:
        """Thing -> how many pixels of it are seen."""
        scene, _ = self._scene(world)
        numbers = self._draw(world, segments=True).astype(np.int64) @ np.array([1, 256, 65536]) - 1
        seen, counts = np.unique(numbers[numbers >= 0], return_counts=True)
        geoms = {geom.segid: geom.objid for geom in scene.geoms[: scene.ngeom]}
        things: dict[int, int] = {}
        for number, count in zip(seen.tolist(), counts.tolist(), strict=True):
            thing = world.thing_of_geom(geoms.get(number, -1))
            if thing is not None:
                things[thing] = things.get(thing, 0) + count
        return things

    def _draw(self, world: World, *, segments: bool) -> UInt8:
        mujoco, camera = self._mujoco, self._camera
        self._gl.make_current()
        scene, context = self._scene(world)
        camera.azimuth, camera.elevation, camera.distance = world.layout.view
        camera.lookat[:] = world.embodiment.view.lookat
        mujoco.mjv_updateScene(
            world.model, world.data, self._options, None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, scene
        )
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = int(segments)
        box = mujoco.MjrRect(0, 0, self.size, self.size)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
        mujoco.mjr_render(box, scene, context)
        mujoco.mjr_readPixels(self._pixels, None, box, context)
        return self._pixels

    def _scene(self, world: World) -> tuple[Any, Any]:
        key = world.layout.look or world.embodiment.look
        if key not in self._scenes:
            if len(self._scenes) > 16:  # looks drawn at random: free the oldest
                self._scenes.pop(next(iter(self._scenes)))[1].free()
            mujoco = self._mujoco
            # MuJoCo clears all of its buffer, whose size is the model's, for every picture.
            world.model.vis.global_.offwidth = world.model.vis.global_.offheight = self.size
            scene = mujoco.MjvScene(world.model, maxgeom=64)
            scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            context = mujoco.MjrContext(world.model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
            self._scenes[key] = scene, context
        return self._scenes[key]


@lru_cache(maxsize=4)
def painter(size: int) -> Painter:
    """This process's painter of a size."""
    return Painter(size)
