"""The language model that ships: what it is, and that it plans as the committed measurement says."""

from __future__ import annotations

import csv
from hashlib import sha256
from pathlib import Path

import pytest
from places import ROOT

from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.planning.choosing import Chooser, Choosing, presence
from vlakit.planning.language_models import SHIPPED, CausalScorer
from vlakit.planning.prompts import written
from vlakit.planning.settings import load_planner, scorer_of
from vlakit.planning.skills import DONE, library
from vlakit.planning.suite import FAMILY_ORDER, plan_start, things_of

FOLDER, RECORD = SHIPPED["tiny"], ROOT / "experiments/planning/plans.csv"
ROBOT = load_embodiment("d0")


@pytest.fixture(scope="module")
def tiny() -> CausalScorer:
    return CausalScorer.from_folder("tiny")


def test_it_is_about_a_million_parameters_and_small_enough_to_ship(tiny: CausalScorer) -> None:
    n = sum(parameter.numel() for parameter in tiny.model.parameters())
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert 0.8e6 < n < 1.2e6
    assert f"{n:,}" in card
    assert f"{n:,}" in tiny.name
    assert sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest() in card
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 5e6


def test_a_planner_has_it_unless_another_is_named(tiny: CausalScorer, tmp_path: Path) -> None:
    for name, folder in (("saycan_tiny", None), ("saycan_no_vf", "tiny")):
        scorer = scorer_of(load_planner(name), folder)
        assert isinstance(scorer, CausalScorer)
        assert scorer.content_hash == tiny.content_hash


def replanned(tiny: CausalScorer, row: dict[str, str]) -> list[str]:
    """The plan for a committed row, chosen skill by skill."""
    things, skills = things_of(plan_start(ROBOT, row["family"], int(row["number"]), "test")), library(ROBOT)
    chooser = Chooser(tiny, skills.options, len(skills), written, Choosing())
    values, plan = presence([*(skill.needs for skill in skills), []], things), list[str]()
    while DONE not in plan:
        plan.append(skills.options[chooser.choose(row["instruction"], plan, values).option])
    return plan


def test_it_plans_as_measured_what_it_was_never_shown(tiny: CausalScorer) -> None:
    with RECORD.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["way"] == "saycan_tiny" and row["held_out"] != "no"]
    for family in FAMILY_ORDER:
        row = next(row for row in rows if row["family"] == family and row["plan"].count(";") < 5)
        assert "; ".join(replanned(tiny, row)) == row["plan"]
    assert tiny.uses_trie
