"""Comparing anybody's episodes needs four packages: whoever has no torch and no MLflow gets the same verdict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluations import outcomes, write_own
from places import ROOT

ALLOWED = {"numpy", "scipy", "hydra", "omegaconf", "antlr4", "packaging", "yaml", "rich", "pygments", "markdown_it"}
BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {allowed} and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
from vlakit.cli.app import main
for words in {lines}:
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        print(end.code)
"""


def speak(*lines: list[str]) -> subprocess.CompletedProcess[str]:
    """`vlakit` WORDS for each of these in one process that has no other package than those allowed."""
    code = BLOCKED.format(allowed={*ALLOWED, "vlakit"}, lines=list(lines))
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)


@pytest.fixture
def pair(tmp_path: Path) -> str:
    places = [write_own(tmp_path / name, outcomes(40, rate, 3)) for name, rate in (("full", 0.9), ("last_layer", 0.4))]
    return f"runs=[{places[0]},{places[1]}]"


def test_two_evaluations_are_compared_with_four_packages_alone(pair: str) -> None:
    formats = ("text", "csv", "latex", "json")
    done = speak(*(["compare", pair, "against=table1", f"format={name}"] for name in formats))
    assert done.stderr == ""
    *others, last = done.stdout.splitlines()
    assert json.loads(last)["pairs"][0]["verdict"] == "full better"
    assert sum("full better" in line for line in others) >= len(formats) - 1


def test_what_needs_more_is_said_in_words(pair: str) -> None:
    done = speak(["compare", pair, "format=html"], ["compare", "tracking_uri=http://localhost:1"], ["train"])
    assert done.stdout.split() == ["1", "1", "1"]
    for package in ("jinja2", "mlflow"):
        assert f"PartMissing: {package} is not installed" in done.stderr
    assert "Traceback" not in done.stderr
