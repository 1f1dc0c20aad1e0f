"""Which OpenGL MuJoCo draws with: EGL where it works, else OSMesa; a set MUJOCO_GL is left alone."""

import logging
import os
import subprocess
import sys
from functools import lru_cache

from vlakit.errors import PartMissing

log = logging.getLogger(__name__)
logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.ERROR)  # it says at each start what it can do without
_TRIAL = "import mujoco; c = mujoco.GLContext(8, 8); c.make_current(); c.free()"


@lru_cache(maxsize=1)
def choose_backend() -> str:
    """Set MUJOCO_GL before mujoco is first imported and return it: "egl" or "osmesa". Raises PartMissing.

    EGL is tried in a child process, because a failed attempt cannot be undone in this one.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return chosen
    if "mujoco" in sys.modules:  # too late to choose: it has taken the platform's default
        return "default"
    for backend in ("egl", "osmesa"):
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL], env={**os.environ, "MUJOCO_GL": backend}, capture_output=True, check=False
        )
        if trial.returncode == 0:
            if backend != "egl":
                log.warning("no EGL here: drawing with OSMesa, whose pictures differ in a few pixels")
            os.environ["MUJOCO_GL"] = backend
            return backend
        if b"No module named 'mujoco'" in trial.stderr:
            raise PartMissing("MuJoCo is not installed", do="install the simulator: pip install 'vlakit[sim]'")
    raise PartMissing(
        "neither EGL nor OSMesa can draw on this machine",
        where=trial.stderr.decode(errors="replace").strip().splitlines()[-1],
        do="install one of them: apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6",
    )
