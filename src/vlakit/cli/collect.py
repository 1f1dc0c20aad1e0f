"""`vlakit collect ckpt=CKPT suite=NAME rollouts_per_start=6 temperature=1`: rollouts to learn preferences from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.output import check_format, emit, request_of
from vlakit.cli.policies import load_policy
from vlakit.cli.progress import progress_bar
from vlakit.cli.suites import split_words, suite_settings
from vlakit.compare.grids import Grid, aligned
from vlakit.errors import ConfigError

if TYPE_CHECKING:
    from vlakit.preferences.episodes import Episode


def main(overrides: Sequence[str]) -> None:
    """Draw rollouts and say how often they succeeded, and how many starts both won and lost."""
    if not any(word.partition("=")[0] == "suite" for word in overrides):
        raise ConfigError("no suite was named", where="command line", do="add suite=NAME, a file of conf/suite")
    words, suite_words = split_words(overrides)
    cfg = verb_config("collect", words)
    check_format(cfg["format"])
    from vlakit.collecting.collector import Collector, CollectPlan
    from vlakit.evaluation.building import build_suite

    settings = suite_settings(cfg["suite"], suite_words)
    plan = request_of(CollectPlan, cfg, "collect")
    suite = build_suite(settings)
    out = check_writable(cfg["out"] or Path(cfg["root"]) / suite.name)
    check_device(cfg["device"])
    collector = Collector(load_policy(cfg), suite, plan)
    with progress_bar("rollouts") as progress:
        rollouts = collector.collect(out, collector.header(str(cfg["ckpt"]), cfg["suite"], settings), progress)
    episodes = rollouts.episodes()
    report = {"out": str(out), "policy": rollouts.header["policy"], "tasks": tallies(episodes)}
    emit(report, f"{table(episodes)}\nrollouts in {out}; next: vlakit pairs rollouts={out}", cfg["format"])


def tallies(episodes: Sequence[Episode]) -> dict[str, dict[str, float]]:
    """Task -> its starts, those with both outcomes, episodes, share of success, steps, errors; "all" for all."""
    groups: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        groups[episode.task].append(episode)
    return {name: _tally(some) for name, some in [*groups.items(), ("all", list(episodes))]}


def _tally(episodes: Sequence[Episode]) -> dict[str, float]:
    outcomes: dict[str, set[bool]] = defaultdict(set)
    for one in episodes:
        outcomes[one.start].add(one.success)
    return {
        "starts": len(outcomes),
        "mixed": sum(len(both) == 2 for both in outcomes.values()),
        "episodes": len(episodes),
        "success": sum(one.success for one in episodes) / len(episodes),
        "steps": sum(one.steps for one in episodes) / len(episodes),
        "errors": sum(one.error is not None for one in episodes),
    }


def table(episodes: Sequence[Episode]) -> str:
    """One line a task."""
    header = ["task", "starts", "won and lost", "episodes", "success", "steps", "errors"]
    rows = [[task, *_cells(tally)] for task, tally in tallies(episodes).items()]
    return "\n".join(aligned(Grid("", header, rows)))


def _cells(tally: Mapping[str, float]) -> list[str]:
    counts = [f"{tally[key]}" for key in ("starts", "mixed", "episodes")]
    return [*counts, f"{tally['success']:.3f}", f"{tally['steps']:.1f}", f"{tally['errors']}"]
