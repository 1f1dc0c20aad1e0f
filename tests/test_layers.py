"""What may import what, and what importing costs."""

import re
import subprocess
import sys

import pytest
from places import ROOT

HEAVY = ("torch", "lightning", "transformers", "timm", "peft", "mlflow", "numpy")
TENSORFLOW = re.compile(r"^\s*(import|from) tensorflow", re.MULTILINE)


def loaded_by(statement: str) -> set[str]:
    """Top-level modules of a fresh process after a statement that may end it."""
    code = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


def test_the_layers_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


def test_importing_vlakit_imports_nothing_heavy() -> None:
    assert not loaded_by("import vlakit").intersection(HEAVY)


@pytest.mark.parametrize("words", ["", "--help", "nosuchverb", "shards --help", "evaluate formt=json"])
def test_verbs_that_only_speak_import_no_torch(words: str) -> None:
    assert "torch" not in loaded_by(f"from vlakit.cli.app import main; sys.argv[1:] = {words.split()}; main()")


def test_help_of_train_imports_no_torch() -> None:
    loaded = loaded_by(
        "sys.argv[:] = ['train.py', '--help']; import runpy; runpy.run_path('train.py', run_name='__main__')"
    )
    assert "hydra" in loaded
    assert "torch" not in loaded


def test_composing_an_experiment_imports_no_torch() -> None:
    loaded = loaded_by("from vlakit.cli.configuration import check_run; check_run('train', ['experiment=lora_r32'])")
    assert "torch" not in loaded


def test_nothing_imports_tensorflow() -> None:
    parts = [ROOT / part for part in ("src", "tests", "experiments", "conf")]
    files = [file for part in parts for file in part.rglob("*") if file.suffix in {".py", ".ipynb", ".yaml"}]
    assert len(files) > 100
    assert not [file.name for file in files if TENSORFLOW.search(file.read_text(encoding="utf-8"))]
