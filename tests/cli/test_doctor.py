"""The doctor's lines are true, come from the package's own metadata, and cost neither torch nor an extra."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import metadata, packages_distributions, version
from pathlib import Path

import pytest
from commands import report, run
from packaging.requirements import Requirement
from places import ROOT

from vlakit.cli import doctor
from vlakit.cli.doctor import Declared, examined
from vlakit.evaluation.renderer import choose_backend

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lines_of(declared: Declared, runs: Path, uri: str | None = None, disk_gb: float = 0) -> dict[str, doctor.Finding]:
    return {one.name: one for one in examined(declared, runs, uri or f"sqlite:///{runs}/mlflow.db", disk_gb)}


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The renderer's trial, half a second in a process of its own, is what other tests try. What is chosen in this
    test's environment is forgotten with it: whoever draws next in this process must choose anew.
    """
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("VLAKIT_MUJOCO_GL", "egl")
    choose_backend.cache_clear()
    yield
    choose_backend.cache_clear()


def test_every_extra_is_a_line_and_the_exit_status_is_the_demos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"runs={tmp_path / 'runs'}", "tracking_uri=sqlite:///none/mlflow.db"]
    told = report(capsys, "doctor", *words)
    names = [finding["name"] for finding in told["findings"]]
    assert {f"extra {extra}" for extra in PROJECT["optional-dependencies"]} < set(names)
    assert told["demo"] is True
    (tmp_path / "runs").write_text("in the way")
    assert run("doctor", words) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("the demo cannot run: runs")
    assert max(map(len, said)) <= 120
    assert len([line for line in said if line.startswith(("ok ", "missing "))]) >= len(names) - 1


def test_what_is_missing_too_old_or_another_python_is_said_with_the_command_that_mends_it(tmp_path: Path) -> None:
    lines = ["numpy>=1", "numpy>=999", "no-such-package>=2; extra == 'mine'", "pyyaml>=6; extra == 'yours'"]
    found = lines_of(Declared(">=99", [Requirement(line) for line in lines], ["mine", "yours"]), tmp_path)
    assert (found["packages"].ok, found["packages"].found) == (False, f"numpy>=999: {version('numpy')}")
    mine = found["extra mine"]
    assert (mine.ok, mine.found, mine.demo) == (False, "no-such-package>=2: not installed", False)
    assert mine.do == "pip install 'vlakit[mine]'"
    assert found["extra yours"].ok
    assert found["extra yours"].found == f"pyyaml {version('pyyaml')}"
    assert not found["python"].ok


def test_an_installation_without_a_checkout_is_read_from_its_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "conf_root", lambda: ROOT / "src/vlakit/conf")
    declared = Declared.here()
    assert declared.extras == sorted(metadata("vlakit").get_all("Provides-Extra") or [])
    assert declared.python == metadata("vlakit")["Requires-Python"]
    assert [one.name for one in declared.of("sim")] == ["av", "mujoco"]
    assert "torch" in {one.name for one in declared.of("")}
    assert "mujoco" not in {one.name for one in declared.of("")}


def test_the_demos_command_is_one_that_is_there(tmp_path: Path) -> None:
    assert doctor.demo(ROOT / "conf") == "just demo"
    assert doctor.demo(tmp_path / "vlakit" / "conf").startswith("vlakit demonstrate suite=tabletop_target")


def test_a_disk_that_is_too_full_and_a_store_that_is_broken_stop_the_demo(tmp_path: Path) -> None:
    nothing = Declared(">=3", [], [])
    (tmp_path / "mlflow.db").write_text("no database, but long enough to be taken for a header of one" * 9)
    found = lines_of(nothing, tmp_path, disk_gb=1e9)
    assert not found["disk"].ok
    assert "1e+09 wanted" in found["disk"].found
    store = found["mlflow store"]
    assert (store.ok, store.demo) == (False, True)
    assert f"mv '{tmp_path}/mlflow.db'" in store.do
    assert lines_of(nothing, tmp_path, f"sqlite:///{tmp_path}/other.db")["mlflow store"].ok


def test_it_imports_neither_torch_nor_mlflow_nor_anything_of_an_extra(tmp_path: Path) -> None:
    code = (
        "import json, sys; from vlakit.cli.doctor import main; main(sys.argv[1:]); print(json.dumps(list(sys.modules)))"
    )
    environment = {**os.environ, "VLAKIT_RUNS": str(tmp_path)}
    words = ["format=json", f"tracking_uri=sqlite:///{tmp_path}/mlflow.db"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=True
    )
    modules = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not modules & {"torch", "lightning", "mlflow", "mujoco"}
    places = packages_distributions()
    distributions = {one for name in modules for one in places.get(name, [])}
    base = {Requirement(line).name for line in PROJECT["dependencies"]}
    optional = {Requirement(line).name for lines in PROJECT["optional-dependencies"].values() for line in lines}
    assert not distributions & (optional - base)
