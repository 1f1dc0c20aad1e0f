"""`vlakit demonstrate suite=metaworld_mt10 episodes=100 out=DIR workers=2`: the scripted expert as a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_format, emit
from vlakit.cli.progress import progress_bar
from vlakit.cli.suites import split_words, suite_settings
from vlakit.compare.grids import Grid, aligned
from vlakit.errors import ConfigError

if TYPE_CHECKING:
    from vlakit.evaluation.suite import Suite


def main(overrides: Sequence[str]) -> None:
    """Write the demonstrations and say how often the expert succeeded."""
    if not any(word.partition("=")[0] == "suite" for word in overrides):
        raise ConfigError("no suite was named", where="command line", do="add suite=NAME, a file of conf/suite")
    words, suite_words = split_words(overrides)
    cfg = verb_config("demonstrate", words)
    check_format(cfg["format"])
    from vlakit.evaluation.building import build_suite
    from vlakit.evaluation.demonstration_writer import write_demonstrations
    from vlakit.evaluation.demonstrator import DemonstrationPlan, Demonstrator

    build = partial(build_suite, suite_settings(cfg["suite"], suite_words))
    if cfg["questions"] is not None:
        ask(build, cfg)
        return
    plan = DemonstrationPlan(cfg["episodes"], cfg["seed"], cfg["noise"], tuple(cfg["tasks"]))
    out = check_writable(cfg["out"] or Path(cfg["root"]) / build().dataset)
    with progress_bar("demonstrations") as progress:
        record = write_demonstrations(Demonstrator(build, plan, cfg["workers"]), out, progress=progress)
    emit({"out": str(out), **record}, table(record, out), cfg["format"])


def ask(build: Callable[[], Suite], cfg: Mapping[str, Any]) -> None:
    """Write questions about the scenes and say how many there are of each kind."""
    from vlakit.evaluation.question_writer import QuestionPlan, write_questions

    plan = QuestionPlan(cfg["questions"], cfg["seed"], cfg["noise"], tuple(cfg["tasks"]))
    out = check_writable(cfg["out"] or Path(cfg["root"]).parent / "questions" / build().name)
    with progress_bar("questions") as progress:
        record = write_questions(build, plan, out, progress=progress)
    rows = [[kind, f"{number:,}"] for kind, number in record["kinds"].items()]
    lines = [*aligned(Grid("", ["kind", "questions"], rows)), f"about {record['pictures']:,} pictures in {out}"]
    emit({"out": str(out), **record}, "\n".join(lines), cfg["format"])


def table(record: dict[str, Any], out: Path) -> str:
    """One line a task: episodes kept, the expert's success, steps an episode."""
    rows = [
        [task, f"{tally['kept']}", f"{tally['kept'] / tally['tried']:.3f}", f"{tally['steps'] / tally['kept']:.1f}"]
        for task, tally in record["tasks"].items()
    ]
    lines = aligned(Grid("", ["task", "kept", "expert", "steps"], rows))
    episodes, steps = (sum(tally[key] for tally in record["tasks"].values()) for key in ("kept", "steps"))
    return "\n".join([*lines, f"{episodes:,} episodes, {steps:,} steps in {out}"])
