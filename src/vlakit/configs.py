"""Where configuration files are: conf/ of vlakit, and the folders that a user adds with --config-dir."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vlakit.errors import ConfigError, UnknownName, nearest

FOLDERS = "VLAKIT_CONFIG_DIR"  # in the environment, which loaders, simulators and the jobs of a sweep inherit


def conf_root() -> Path:
    """The folder conf/: the checkout's own beside src/, else the one shipped inside the installed package."""
    package = Path(__file__).parent
    checkout = package.parents[1] / "conf"
    return checkout if package.parent.name == "src" and checkout.is_dir() else package / "conf"


def config_roots() -> list[Path]:
    """Every folder with configuration files: vlakit's, then the user's in their order."""
    return [conf_root(), *map(Path, filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)))]


def config_names(group: str) -> list[str]:
    """Names of all files of a group in every folder, sorted; one that begins with _ is a part of others."""
    files = (file for root in config_roots() for file in (root / group).glob("*.yaml"))
    return sorted({file.stem for file in files if not file.stem.startswith("_")})


def config_file(group: str, name: str) -> Path:
    """The file GROUP/NAME.yaml. Raises UnknownName with the nearest names and the folders that were looked through."""
    for root in config_roots():
        if (file := root / group / f"{name}.yaml").is_file():
            return file
    raise UnknownName(f"no {group} called {name!r}", where=shown_folders(group), do=nearest(name, config_names(group)))


def config_file_with(text: str) -> str:
    """The file that holds this text, as `shown`; a user's rather than vlakit's, and "" where none does."""
    files = (file for root in reversed(config_roots()) for file in _files(root))
    return next((shown(file) for file in files if text in file.read_text(encoding="utf-8", errors="replace")), "")


def shown(path: Path) -> str:
    """A configuration file or folder as people call it: conf/... for vlakit's, else as seen from the working folder."""
    if path.is_relative_to(conf_root()):
        return str("conf" / path.relative_to(conf_root()))
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def shown_folders(group: str) -> str:
    """The folders in which files of a group are looked for."""
    return ", ".join(shown(root / group) for root in config_roots())


@contextmanager
def also_in(folders: Iterable[str | Path]) -> Iterator[None]:
    """Find configuration files in these folders too, in this process and in those that it starts meanwhile.

    Raises ConfigError for what is no such folder, and for a file that vlakit or another of the folders has as well.
    """
    before = os.environ.get(FOLDERS)
    roots = [conf_root().resolve()]
    for place in [*config_roots()[1:], *map(Path, folders)]:
        folder = place.expanduser().resolve()
        if folder not in roots:
            _check(folder, roots)
            roots.append(folder)
    os.environ[FOLDERS] = os.pathsep.join(map(str, roots[1:]))
    try:
        yield
    finally:
        del os.environ[FOLDERS]
        if before is not None:
            os.environ[FOLDERS] = before


def _check(folder: Path, roots: Iterable[Path]) -> None:
    files = _files(folder)
    if not files:
        raise ConfigError(
            "no configuration files here" if folder.is_dir() else "no such folder",
            where=str(folder),
            do="--config-dir takes a folder with strategy/NAME.yaml, dataset/NAME.yaml and so on",
        )
    for file in files:
        for root in roots:
            if (other := root / file.relative_to(folder)).is_file():
                raise ConfigError(
                    f"two files are called {file.relative_to(folder)}",
                    where=f"{shown(file)} and {shown(other)}",
                    do=f"give {shown(file)} another name: it would never be certain which of them is meant",
                )


def _files(root: Path) -> list[Path]:
    return sorted(file for depth in ("*.yaml", "*/*.yaml", "*/*/*.yaml") for file in root.glob(depth))
