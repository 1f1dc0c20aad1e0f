"""What LIBERO's package needs before it can be used: no question on the terminal, no download, known versions.

hf-libero brings tasks and initial states; the meshes and textures ("assets") are a folder that a user must have.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml

from vlakit.errors import InvalidData, PartMissing
from vlakit.evaluation.renderer import choose_backend
from vlakit.files import write_atomically
from vlakit.schema import Float64

ASSET_FOLDERS = ("articulated_objects", "scenes", "stable_hope_objects", "stable_scanned_objects", "turbosquid_objects")
ASSET_SOURCE = "lerobot/libero-assets"  # the Hugging Face dataset that hf-libero 0.1.4 itself would fetch
DARKER_FROM = (3, 3, 3)
ROBOSUITE = ("1.4.0", "1.4.1")
_INSTALL = "install the simulator: pip install 'vlakit[libero]'"


def package_folder() -> Path:
    """The installed libero/libero. Raises PartMissing."""
    package = find_spec("libero")
    if package is None or not package.submodule_search_locations:
        raise PartMissing("LIBERO is not installed", do=_INSTALL)
    folder = Path(next(iter(package.submodule_search_locations))) / "libero"
    if not (folder / "init_files").is_dir():
        raise PartMissing("this is not hf-libero: it has no init_files", where=str(folder), do=_INSTALL)
    return folder


def write_config() -> Path:
    """See to it that config.yaml exists, whose absence makes LIBERO ask on import; one that exists is left alone.

    It goes to the user's cache, or to a temporary folder where that cannot be written, and LIBERO_CONFIG_PATH names it.
    """
    chosen = Path(os.environ.get("LIBERO_CONFIG_PATH") or Path.home() / ".libero") / "config.yaml"
    if chosen.is_file():
        return chosen
    package = package_folder()
    paths = {"benchmark_root": package, "bddl_files": package / "bddl_files", "init_states": package / "init_files"}
    paths |= {"datasets": package.parent / "datasets", "assets": package / "assets"}
    content = yaml.safe_dump({name: str(path) for name, path in paths.items()})
    name = f"libero-{sha256(content.encode()).hexdigest()[:8]}"  # another installation, another folder
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlakit" / name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(cache / "config.yaml", content)
    except OSError:
        cache = Path(tempfile.mkdtemp(prefix=f"vlakit-{name}-"))
        write_atomically(cache / "config.yaml", content)
    os.environ["LIBERO_CONFIG_PATH"] = str(cache)
    return cache / "config.yaml"


@lru_cache(maxsize=8)
def instructions(suite: str) -> Mapping[str, str]:
    """Task -> sentence of one suite, in LIBERO's order (its task order 0)."""
    benchmark = _module("libero.libero.benchmark")
    return {name: task.language for name, task in benchmark.task_maps[suite].items()}


@lru_cache(maxsize=64)
def start_vectors(suite: str, task: str) -> Float64:
    """The 50 recorded simulator states (50, S) float64 of one task: time, qpos, qvel.

    They are pickles, which can run code when read: only files inside the installed package are opened.
    """
    root = (package_folder() / "init_files").resolve()
    path = (root / suite / f"{task}.pruned_init").resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise InvalidData("the installed LIBERO has no initial states of this task", where=str(path), do=_INSTALL)
    return torch.load(path, weights_only=False)


def find_assets(given: str | Path | None = None) -> Path:
    """The folder of meshes and textures: `given`, else inside the package, else where hf-libero keeps a download.

    Raises PartMissing naming the places looked at. Nothing is ever downloaded.
    """
    usual = [package_folder() / "assets", Path.home() / ".cache" / "libero" / "assets"]
    places = [Path(given).expanduser()] if given else usual
    for place in places:
        missing = [name for name in ASSET_FOLDERS if not (place / name).is_dir()]
        if not missing:
            return place.resolve()
        if len(missing) < len(ASSET_FOLDERS):
            what = f"LIBERO's assets are incomplete: {', '.join(missing)} missing"
            raise PartMissing(what, where=str(place), do=_fetch(place))
    raise PartMissing(
        "LIBERO's assets (meshes and textures) are not on this machine: its package does not contain them",
        where=" and ".join(map(str, places)),
        do=_fetch(places[-1]) + ", or name a copy of LIBERO's libero/libero/assets: suite.assets=DIR",
    )


def _fetch(place: Path) -> str:
    return f"fetch them once: hf download {ASSET_SOURCE} --repo-type dataset --local-dir {place}"


def versions() -> dict[str, str]:
    """What pictures and physics depend on. Raises PartMissing."""
    try:
        installed = {name: version(name) for name in ("mujoco", "robosuite", "hf-libero")}
    except PackageNotFoundError as error:
        raise PartMissing(f"{error.name} is not installed", do=_INSTALL) from None
    return {**installed, "renderer": choose_backend()}


def drift(installed: Mapping[str, str]) -> list[str]:
    """Why results under these versions differ from published ones, one sentence each; empty when nothing is known.

    Source: OpenVLA issues 282 and 335, LIBERO issue 88 and pull request 140.
    """
    warnings: list[str] = []
    if _numbers(installed["mujoco"]) >= DARKER_FROM:
        warnings.append(
            f"MuJoCo {installed['mujoco']} draws the floors of libero_object darker than 3.3.2 and older do: there "
            "OpenVLA falls from 88 % to 68-70 %; install mujoco==3.3.0 to compare with published numbers"
        )
    if installed["robosuite"] not in ROBOSUITE:
        warnings.append(
            f"robosuite {installed['robosuite']}: published LIBERO numbers come from 1.4.1, hf-libero pins 1.4.0; "
            "install robosuite==1.4.0"
        )
    return warnings


def simulator_class(assets: Path) -> Any:
    """LIBERO's OffScreenRenderEnv, reading meshes from `assets`. Raises PartMissing when it cannot be imported."""
    choose_backend()  # robosuite settles it when it is imported
    _module("libero.libero")._assets_path_cache = str(assets)  # else it would look, and download, on its own
    return _module("libero.libero.envs").OffScreenRenderEnv


def rejected_placement() -> type[Exception]:
    """What robosuite raises when objects find no place."""
    return _module("robosuite.utils.errors").RandomizationError


def _module(name: str) -> Any:
    write_config()
    try:
        with _quiet_logs():
            return importlib.import_module(name)
    except ImportError as error:
        raise PartMissing(f"LIBERO cannot be imported: {error}", where=name, do=_INSTALL) from error
    except OSError as error:  # robosuite logs to one fixed file, which may be another user's
        remedy = "make the file that it names writable, or delete it"
        raise PartMissing(f"LIBERO cannot be imported: {error}", where=name, do=remedy) from error


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Without robosuite's three lines that advise to write a file into its package."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> _numbers("3.3.3rc1")
    (3, 3, 3)
    """
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
