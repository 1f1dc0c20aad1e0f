"""The page at the end of a sweep: trainings that differ in the seed alone are one arm, and the page is no condition."""

from pathlib import Path

import pytest
from evaluations import outcomes, write_own

from vlakit.cli.sweep_page import PAGE, evaluated_arms, write_page

WORDS = ["hparams_search=table1", "evaluate.suite=tabletop"]


def jobs_of(sweep: Path, *, states: tuple[str, str] = ("1f", "1f")) -> dict[Path, list[str]]:
    jobs = {}
    for number, (arm, seed) in enumerate((arm, seed) for arm in ("full", "lora_r32") for seed in (0, 1)):
        folder = sweep / str(number)
        rate = 0.9 if arm == "full" else 0.2
        write_own(folder / "evaluation/tabletop", outcomes(60, rate, number), states=states[arm == "full"])
        jobs[folder] = [f"experiment={arm}", *WORDS, f"seed={seed}"]
    return jobs


def test_trainings_of_one_arm_stand_together_and_shared_words_in_no_name(tmp_path: Path) -> None:
    arms = evaluated_arms(jobs_of(tmp_path))
    assert {name: [Path(folder).parts[-3] for folder in folders] for name, folders in arms.items()} == {
        "full": ["0", "1"],
        "lora_r32": ["2", "3"],
    }


def test_the_page_has_the_verdict(tmp_path: Path) -> None:
    page = write_page(tmp_path, jobs_of(tmp_path))
    assert page == tmp_path / PAGE
    text = page.read_text()
    assert "full better" in text
    assert "lora_r32" in text


def test_one_arm_or_none_makes_no_page(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path)
    assert write_page(tmp_path, dict(list(jobs.items())[:2])) is None
    assert write_page(tmp_path, {}) is None
    assert write_page(tmp_path, {tmp_path / "9": ["experiment=full"]}) is None


def test_what_cannot_be_compared_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert write_page(tmp_path, jobs_of(tmp_path, states=("1f", "2e"))) is None
    assert f"no {PAGE}" in caplog.text
    assert not (tmp_path / PAGE).exists()
