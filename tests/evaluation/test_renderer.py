"""Drawing says nothing about parts that it can do without."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import logging
logging.basicConfig(level=logging.INFO)
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
suite = TabletopSuite("d0")
suite.environment().reset(suite.initial_states("lift", 1)[0])
"""


@pytest.mark.sim
def test_the_first_picture_is_drawn_without_a_word() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert "OpenGL" not in done.stderr


@pytest.mark.sim
def test_who_has_drawn_can_still_train() -> None:
    """Mesa's LLVM and that of torch's compiler end a process in which the second comes last."""
    train = "import torch\ntorch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]).step()\n"
    pytest.importorskip("triton")
    done = subprocess.run([sys.executable, "-c", SCRIPT + train], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
