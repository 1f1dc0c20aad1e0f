"""vlakit evaluate planner=NAME: a language model chooses, a policy carries out, a table says who failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import complaint, report, says
from planning.language_model_cases import folder

EPISODES = ("suite=tabletop_plans", "episodes=6", "slots=3", "tasks=[single,noun]", "planner=saycan_hf")


def test_a_local_language_model_plans_for_the_expert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*EPISODES, "policy=expert", f"lm={folder(tmp_path / 'lm')}", f"out={tmp_path / 'out'}")
    said = report(capsys, "evaluate", *words)
    families = said["plans"]["families"]
    assert [(row["family"], row["n"]) for row in families] == [("single", 3), ("noun", 3), ("all", 6)]
    assert "parameters" in said["plans"]["planner"]  # which language model it was
    steps = [json.loads(line) for line in (tmp_path / "out" / "plans.jsonl").read_text().splitlines()]
    assert len({step["state"] for step in steps}) == 6
    assert {"skill", "log_p", "value", "joined"} <= steps[0].keys()
    failed = sum(families[-1]["blame"].values())
    assert failed == 6 - round(6 * families[-1]["exec_success"])
    assert report(capsys, "evaluate", *words) == said  # the same again: nothing is rolled out twice


def test_the_shipped_language_model_is_a_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("suite=tabletop_plans", "tasks=[single]", "episodes=2", "policy=expert", f"out={tmp_path / 'out'}")
    said = report(capsys, "evaluate", *words, "planner=saycan_tiny")
    assert "tiny_lm (" in said["plans"]["planner"]
    assert said["plans"]["families"][-1]["plan_success"] == 1


@pytest.mark.slow
def test_learnt_values_are_of_one_policy_and_of_one_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = tmp_path / "values.pt"
    made = report(capsys, "affordances", "ckpt=tiny", "episodes=12", "slots=6", "epochs=1", f"out={values}")
    assert made["tries"] > 12
    assert 0 <= made["ece"] <= 1
    words = ("ckpt=tiny", *EPISODES[:2], "slots=6", "planner=saycan_learned", f"lm={folder(tmp_path / 'lm')}")
    said = report(capsys, "evaluate", *words, f"values={values}", f"out={tmp_path / 'out'}")
    assert said["plans"]["families"][-1]["n"] == 6
    other = complaint(capsys, "evaluate", *words, f"values={values}", "suite.skills=[lift red cube,lift red ball]")
    says(other, "CheckpointMismatch", "values of other skills")
    says(complaint(capsys, "evaluate", *words), "ConfigError", "vlakit affordances")


def test_what_cannot_be_planned_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expert = (*EPISODES, "policy=expert", f"out={tmp_path / 'out'}")
    says(complaint(capsys, "evaluate", *expert), "no language model", "lm=DIR", "lm=tiny")
    says(complaint(capsys, "evaluate", *expert, "planner=saycan_hv"), "saycan_hf")
    says(complaint(capsys, "evaluate", *expert, "suite=tabletop", "tasks=[]"), "has no skills", "tabletop_plans")
    mute = folder(tmp_path / "mute", tokenized=False)
    says(complaint(capsys, "evaluate", *expert, f"lm={mute}"), "PartMissing", "without a tokenizer")
    says(complaint(capsys, "evaluate", *expert, f"lm={mute}", "suite.skills=[juggle]"), "no skill called 'juggle'")
    alone = ("policy=expert", "suite=tabletop_plans", f"lm={mute}", f"out={tmp_path / 'out'}")
    says(complaint(capsys, "evaluate", *alone), "of a planner", "planner=NAME")
    says(complaint(capsys, "affordances", "ckpt=tiny", "suite=tabletop"), "has no skills")
    assert not (tmp_path / "out").exists()
