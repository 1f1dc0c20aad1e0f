"""Which OpenGL MuJoCo draws with: EGL where it works, else OSMesa; a set MUJOCO_GL is left alone."""

import logging
import os
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from importlib import import_module

from vlakit.errors import PartMissing

log = logging.getLogger(__name__)
logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.ERROR)  # it says at each start what it can do without
TRIED = "VLAKIT_MUJOCO_GL"  # in the environment: what drew a picture already, so that workers need not try again
_TRIAL = """
import mujoco
c = mujoco.GLContext(8, 8)
c.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 50)
c.free()
"""
_LIBRARIES = {  # package of Debian and Ubuntu by what MuJoCo draws with
    "egl": "libEGL.so.1: apt install libegl1 libgl1-mesa-dri",
    "osmesa": "libOSMesa.so.8: apt install libosmesa6",
    "glfw": "a display, which a server has not: unset MUJOCO_GL, or set it to egl or osmesa",
}


@lru_cache(maxsize=1)
def choose_backend() -> str:
    """Set MUJOCO_GL before mujoco is first imported and return it: "egl" or "osmesa", or what it is set to already.

    What is not known to draw is tried in a child process, because a failed attempt cannot be undone in this one, and
    some end the process. Raises PartMissing.
    """
    _load_compilers()
    chosen = os.environ.get("MUJOCO_GL")
    if chosen and (chosen == os.environ.get(TRIED) or "mujoco" in sys.modules):
        return chosen
    if "mujoco" in sys.modules:  # too late to choose: it has taken the platform's default
        return "default"
    why = ""
    for backend in [chosen] if chosen else ["egl", "osmesa"]:
        why = _refusal(backend)
        if not why:
            if backend != (chosen or "egl"):
                log.warning("no EGL here: drawing with OSMesa, whose pictures differ in a few pixels")
            os.environ["MUJOCO_GL"] = os.environ[TRIED] = backend
            return backend
    if chosen:
        need = _LIBRARIES.get(chosen.lower(), "to be egl or osmesa, or not to be set")
        raise PartMissing(
            f"MUJOCO_GL={chosen} cannot draw here: {why}", where=f"MUJOCO_GL={chosen}", do=f"needs {need}"
        )
    raise PartMissing(
        "neither EGL nor OSMesa can draw on this machine",
        where=why,
        do="install one of them: apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6",
    )


def _load_compilers() -> None:
    """Mesa draws with an LLVM of its own; torch's compiler, loaded behind it by the first optimizer, ends the process.

    The other way round both work (triton 3.9, Mesa 22.3 with LLVM 15).
    """
    with suppress(ImportError):
        import_module("triton._C.libtriton")


def _refusal(backend: str) -> str:
    """Why this draws nothing, "" where it draws. Raises PartMissing without MuJoCo."""
    surroundings = {**os.environ, "MUJOCO_GL": backend}
    trial = subprocess.run([sys.executable, "-c", _TRIAL], env=surroundings, capture_output=True, check=False)
    if b"No module named 'mujoco'" in trial.stderr:
        raise PartMissing("MuJoCo is not installed", do="install the simulator: pip install 'vlakit[sim]'")
    said = trial.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {trial.returncode}"]
    return said[-1] if trial.returncode else ""
