"""`vlakit doctor`: what this machine and this installation have, what is missing for which extra, what to do.

Nothing of it imports torch or MLflow: it works where they are broken, and within seconds.
"""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from shutil import disk_usage
from textwrap import fill
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from vlakit import __version__
from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_format, emit
from vlakit.configs import conf_root
from vlakit.errors import VlakitError
from vlakit.tracking.store import REMEDIES, REMEDY, SQLITE

SIMULATOR = "sim"  # the extra that the demo needs
STEPS = "just demo", "vlakit demonstrate suite=tabletop_target is its first step; all of it needs a checkout"
PROBE_S = 3


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is there, what was found, what to do; demo: whether the demo needs it."""

    name: str
    ok: bool
    found: str
    do: str = ""
    demo: bool = False


@dataclass(frozen=True)
class Declared:
    """What the package says that it needs: versions of Python, and requirements, those of extras with their marker."""

    python: str
    requirements: Sequence[Requirement]
    extras: Sequence[str]

    @classmethod
    def here(cls) -> Declared:
        """From pyproject.toml in a checkout, whose metadata are those of the day of its installation."""
        file = conf_root().parent / "pyproject.toml"
        if conf_root().name == "conf" and file.is_file():
            project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
            optional = project["optional-dependencies"]
            lines = [*project["dependencies"]]
            lines += [f"{line}; extra == '{extra}'" for extra, needed in optional.items() for line in needed]
            return cls(project["requires-python"], [Requirement(line) for line in lines], sorted(optional))
        said = metadata("vlakit")
        lines = said.get_all("Requires-Dist") or []
        extras = said.get_all("Provides-Extra") or []
        return cls(said["Requires-Python"], [Requirement(line) for line in lines], sorted(extras))

    def of(self, extra: str) -> list[Requirement]:
        """What an extra adds; of "": what every installation needs."""
        plain = [one for one in self.requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
        if not extra:
            return plain
        return [one for one in self.requirements if one not in plain and one.marker.evaluate({"extra": extra})]  # pyright: ignore[reportOptionalMemberAccess]


def main(overrides: Sequence[str]) -> None:
    """Print a line a part; exit status 1 where the demo cannot run."""
    cfg = verb_config("doctor", overrides)
    check_format(cfg["format"])
    findings = list(examined(Declared.here(), Path(cfg["runs"]), cfg["tracking_uri"], cfg["disk_gb"]))
    lacking = [finding.name for finding in findings if finding.demo and not finding.ok]
    verdict = f"the demo cannot run: {', '.join(lacking)}" if lacking else f"the demo can run: {demo(conf_root())}"
    report = {"demo": not lacking, "findings": [asdict(finding) for finding in findings]}
    emit(report, "\n".join([*map(_line, findings), verdict]), cfg["format"])
    if lacking:
        sys.exit(1)


def demo(conf: Path) -> str:
    """How the demo is begun; conf: the folder, beside the Justfile in a checkout."""
    return STEPS[not (conf.parent / "Justfile").is_file()]


def examined(declared: Declared, runs: Path, tracking_uri: str, disk_gb: float) -> Iterator[Finding]:
    """Every part, in the order in which they are printed."""
    found = platform.python_version()
    fits = SpecifierSet(declared.python).contains(found, prereleases=True)
    yield Finding(
        "python", fits, f"{found}, wanted {declared.python}", "" if fits else "install another Python", demo=True
    )
    yield _packages("packages", declared.of(""), "pip install --upgrade vlakit", demo=True)
    yield _model()
    yield _renderer()
    yield _gpu()
    yield _cpu()
    yield from _folder(runs, disk_gb)
    yield _store(tracking_uri)
    for extra in declared.extras:
        do = f"pip install 'vlakit[{extra}]'"
        yield _packages(f"extra {extra}", declared.of(extra), do, demo=extra == SIMULATOR)


def _line(finding: Finding) -> str:
    told = [f"{'ok' if finding.ok else 'missing':<8} {finding.name:<16} {finding.found}"]
    told += [f"{'':<25} do: {finding.do}"] if finding.do and not finding.ok else []
    return "\n".join(fill(line, 120, subsequent_indent=" " * 26, break_on_hyphens=False) for line in told)


def _packages(name: str, needed: Iterable[Requirement], do: str, *, demo: bool) -> Finding:
    here = {one: _version(one.name) for one in needed}
    wrong = [
        f"{one.name}{one.specifier}: {found or 'not installed'}" for one, found in here.items() if not _fits(one, found)
    ]
    all_fit = ", ".join(f"{one.name} {found}" for one, found in here.items())
    told = f"vlakit {__version__}, {all_fit}" if name == "packages" else all_fit
    return Finding(name, not wrong, "; ".join(wrong) or told, do, demo)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _fits(needed: Requirement, found: str | None) -> bool:
    return found is not None and needed.specifier.contains(found, prereleases=True)


def _model() -> Finding:
    from vlakit.checkpoints.shipped import resolve

    try:
        return Finding("shipped model", True, str(resolve("tiny")), demo=True)
    except VlakitError as error:
        return Finding("shipped model", False, error.what, error.do, demo=True)


def _renderer() -> Finding:
    from vlakit.evaluation.renderer import choose_backend

    try:
        return Finding("renderer", True, f"MuJoCo draws with {choose_backend()}", demo=True)
    except VlakitError as error:
        return Finding("renderer", False, error.what, error.do, demo=True)


def _gpu() -> Finding:
    """What the driver lists, and whether torch is a build for it."""
    none = "nothing for the demo; 7B trains on an NVIDIA GPU with its driver"
    try:
        import pynvml

        pynvml.nvmlInit()
        cards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        sizes = [float(str(pynvml.nvmlDeviceGetMemoryInfo(card).total)) / 1e9 for card in cards]
        names = [f"{pynvml.nvmlDeviceGetName(c)} {size:.0f} GB" for c, size in zip(cards, sizes, strict=True)]
        driver = pynvml.nvmlSystemGetDriverVersion()
    except Exception as error:  # pynvml's own kinds, and whatever a broken driver makes of its library
        return Finding("gpu", False, f"none: {error}", none)
    build = _cuda_of_torch()
    found = f"{', '.join(names) or 'none'}; driver {driver}; torch for CUDA {build}"
    do = none if build else "install torch for CUDA: its own index names the builds"
    return Finding("gpu", bool(names and build), found, do)


def _cuda_of_torch() -> str | None:
    """The CUDA of torch's build, from the file in which it says so: importing torch takes seconds."""
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return run_path(str(file)).get("cuda") if file and file.is_file() else None


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads, memory = os.environ.get("OMP_NUM_THREADS", "not set"), psutil.virtual_memory()
    found = f"{cores} cores for this process, OMP_NUM_THREADS {threads}"
    return Finding("cpu", True, f"{found}; memory {memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB free")


def _folder(runs: Path, disk_gb: float) -> Iterator[Finding]:
    try:
        check_writable(runs)
    except VlakitError as error:
        yield Finding("runs", False, f"{error.what}: {error.where}", f"{error.do}; VLAKIT_RUNS=DIR", demo=True)
        return
    yield Finding("runs", True, f"{runs.expanduser().absolute()} can be written", demo=True)
    place = next(
        folder for folder in (runs.expanduser().absolute(), *runs.expanduser().absolute().parents) if folder.exists()
    )
    free = disk_usage(place).free / 1e9
    do = "free some space, or VLAKIT_RUNS=DIR on another disk"
    yield Finding("disk", free >= disk_gb, f"{free:.1f} GB free, {disk_gb:g} wanted", do, demo=True)


def _store(uri: str) -> Finding:
    """Whether the store answers; one that is not there yet is made by the first run."""
    file = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not file.is_file():
        return Finding("mlflow store", True, f"{uri}: made by the first run", demo=True)
    try:
        if uri.startswith(SQLITE):
            with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=PROBE_S)) as store:
                (runs,) = store.execute("SELECT count(*) FROM runs").fetchone()
            return Finding("mlflow store", True, f"{uri}: {runs} runs", demo=True)
        if uri.startswith(("http://", "https://")):
            with urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_S):
                return Finding("mlflow store", True, f"{uri} answers", demo=True)
        return Finding("mlflow store", True, f"{uri}: of a kind that is not tried here", demo=True)
    except (sqlite3.Error, OSError, HTTPError) as error:
        remedy = next((do for words, do in REMEDIES.items() if re.search(words, str(error))), REMEDY)
        return Finding("mlflow store", False, f"{uri}: {error}", remedy.format(file=file, uri=uri), demo=True)
