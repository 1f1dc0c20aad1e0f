"""The page of a sweep whose jobs were evaluated: arms on shared starts, with verdicts, as `vlakit compare` has it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlakit.errors import VlakitError
from vlakit.files import write_atomically

log = logging.getLogger(__name__)
PAGE = "comparison.html"


def write_page(folder: Path, jobs: Mapping[Path, Sequence[str]]) -> Path | None:
    """comparison.html in a sweep's folder, or None where fewer than two arms were evaluated.

    jobs: folder -> the words in which jobs differ. Those that differ in the seed alone are trainings of one arm. What
    cannot be compared is a warning: the sweep has ended well without its page.
    """
    arms = evaluated_arms(jobs)
    if len(arms) < 2:
        return None
    from vlakit.cli.compare import compare_episodes
    from vlakit.cli.configuration import verb_config

    try:
        text = compare_episodes({**verb_config("compare", ["format=html"]), "runs": arms})
    except VlakitError as error:
        log.warning("no %s: %s", PAGE, error.what)
        return None
    write_atomically(folder / PAGE, text)
    return folder / PAGE


def evaluated_arms(jobs: Mapping[Path, Sequence[str]]) -> dict[str, list[str]]:
    """Name of an arm -> the evaluations of its trainings. Words that all jobs share are in no name."""
    shared = set.intersection(*(set(words) for words in jobs.values())) if jobs else set[str]()
    arms: dict[str, list[str]] = {}
    for job, words in jobs.items():
        own = [word.lstrip("+") for word in words if word not in shared and not word.startswith("seed=")]
        name = " ".join(word.removeprefix("experiment=") for word in own) or "all"
        arms.setdefault(name, []).extend(str(file.parent) for file in sorted(job.glob("evaluation/*/episodes.jsonl")))
    return {name: folders for name, folders in arms.items() if folders}
