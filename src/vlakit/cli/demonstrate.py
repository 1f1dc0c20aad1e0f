"""`vlakit demonstrate suite=metaworld_mt10 episodes=100 out=DIR workers=2`: the scripted expert as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_format, emit
from vlakit.cli.progress import progress_bar
from vlakit.cli.suites import split_words, suite_settings
from vlakit.compare.grids import Grid, aligned
from vlakit.errors import ConfigError


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
    plan = DemonstrationPlan(cfg["episodes"], cfg["seed"], cfg["noise"], tuple(cfg["tasks"]))
    out = check_writable(cfg["out"] or Path(cfg["root"]) / build().dataset)
    with progress_bar("demonstrations") as progress:
        record = write_demonstrations(Demonstrator(build, plan, cfg["workers"]), out, progress=progress)
    emit({"out": str(out), **record}, table(record, out), cfg["format"])


def table(record: dict[str, Any], out: Path) -> str:
    """One line a task: episodes kept, the expert's success, steps an episode."""
    rows = [
        [task, f"{tally['kept']}", f"{tally['kept'] / tally['tried']:.3f}", f"{tally['steps'] / tally['kept']:.1f}"]
        for task, tally in record["tasks"].items()
    ]
    lines = aligned(Grid("", ["task", "kept", "expert", "steps"], rows))
    episodes, steps = (sum(tally[key] for tally in record["tasks"].values()) for key in ("kept", "steps"))
    return "\n".join([*lines, f"{episodes:,} episodes, {steps:,} steps in {out}"])
