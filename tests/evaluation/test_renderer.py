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
