"""The recipe is no part of vlakit: its folder joins the path as PYTHONPATH=experiments/tiny_pretraining does."""

import sys
from pathlib import Path

from places import ROOT

sys.path[:0] = [str(ROOT / "experiments" / "tiny_pretraining"), str(Path(__file__).parent)]
