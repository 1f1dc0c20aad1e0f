"""`vlakit evaluate ckpt=runs/... suite=NAME`: closed loop, with records, a gate, videos and a table of success."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import parse_overrides, verb_config
from vlakit.cli.output import check_format, emit, request_of
from vlakit.cli.policies import home_of, load_policy
from vlakit.cli.progress import success_bar
from vlakit.cli.suites import split_words, suite_settings
from vlakit.compare.grids import Grid, aligned
from vlakit.errors import ConfigError, nearest

if TYPE_CHECKING:
    from vlakit.evaluation.records import Row
    from vlakit.evaluation.run import Evaluated
    from vlakit.evaluation.suite import Suite
    from vlakit.processing.processor import Processor

log = logging.getLogger(__name__)
OPEN_LOOP = ("split", "data", "batch_size", "max_frames", "plots")  # keys of `vlakit score` since version 0.2


def main(overrides: Sequence[str]) -> None:
    """Evaluate a checkpoint or a control in a suite; exits with 1 when an episode failed by an error."""
    words, suite_words = split_words(overrides)
    given = {override.key_or_group for override in parse_overrides(words)}
    refuse_open_loop(given, bool(suite_words), overrides)
    cfg = verb_config("evaluate", [*words, *(["ckpt=null"] if "policy" in given and "ckpt" not in given else [])])
    check_format(cfg["format"])
    evaluated = evaluate_as_configured(cfg, suite_words)
    emit(evaluated.to_dict(), text(evaluated), cfg["format"])
    if evaluated.failed:
        sys.exit(1)


def refuse_open_loop(given: set[str], suite_words: bool, overrides: Sequence[str]) -> None:
    """Raise ConfigError for the spelling that meant open loop before `vlakit score` was a verb."""
    if "suite" in given and not given & set(OPEN_LOOP):
        return
    if "policy" in given or suite_words:
        raise ConfigError("no suite was named", where="command line", do="add suite=NAME, a file of conf/suite")
    kept = [word for word in overrides if word.partition("=")[0] != "suite"]
    raise ConfigError(
        "open loop is a verb of its own" if given & set(OPEN_LOOP) else "no suite was named",
        where=" ".join(["vlakit evaluate", *overrides]),
        do=f"vlakit score {' '.join(kept) or 'ckpt=CKPT'}  (open loop), or in closed loop suite=NAME, of conf/suite",
    )


def check_suite(settings: Mapping[str, Any], processor: Processor) -> None:
    """Find out before a training whether the evaluation that is to end it can be run.

    settings: keys of conf/evaluate.yaml. Raises ConfigError, UnknownName, PartMissing, StatisticsMissing.
    """
    from vlakit.evaluation.building import build_suite
    from vlakit.evaluation.run import Request

    cfg = _at_end(settings)
    suite = build_suite(suite_settings(cfg["suite"]))
    request_of(Request, cfg, "evaluate").states(suite)
    processor.statistics_of(suite.dataset)


def evaluate_trained(settings: Mapping[str, Any], ckpt: Path, tracking_uri: str | None) -> dict[str, float]:
    """Evaluate the checkpoint of a run that just ended, beside it and in its record; returns eval/success.

    settings: keys of conf/evaluate.yaml. Raises ConfigError for others, and what an evaluation refuses.
    """
    cfg = _at_end(settings)
    cfg |= {"ckpt": str(ckpt), "tracking_uri": tracking_uri or cfg["tracking_uri"]}
    evaluated = evaluate_as_configured(cfg)
    log.info("%s", text(evaluated))
    return {"eval/success": evaluated.pooled.success}


def _at_end(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of conf/evaluate.yaml with those that a training gives. Raises ConfigError for others."""
    cfg = verb_config("evaluate", ["ckpt=null", f"suite={settings['suite']}"])
    for key in settings:
        if key not in cfg:
            raise ConfigError(f"{key!r} is no key of vlakit evaluate", where="evaluate", do=nearest(key, cfg))
    return {**cfg, **settings}


def evaluate_as_configured(cfg: Mapping[str, Any], suite_words: Sequence[str] = ()) -> Evaluated:
    """Evaluate as the keys of conf/evaluate.yaml say. Raises ConfigError, GateClosed, CheckpointMismatch."""
    from vlakit.evaluation.building import build_suite
    from vlakit.evaluation.run import Request, evaluate
    from vlakit.evaluation.speed import actions_per_second
    from vlakit.evaluation.tracked import record_success

    request = request_of(Request, cfg, "evaluate")
    settings = suite_settings(cfg["suite"], suite_words)
    if cfg["policy"] is not None and cfg["ckpt"] is not None:
        raise ConfigError("ckpt and policy are both given", where="command line", do="give one of them")
    suite = build_suite(settings)
    request.states(suite)  # a task that it lacks is said before weights are read
    policy = load_policy(cfg) if cfg["policy"] is None else str(cfg["policy"])
    name, out = str(cfg["ckpt"] or policy), Path(cfg["out"]) if cfg["out"] else _default_out(cfg, suite)
    with success_bar() as progress:
        evaluated = evaluate(policy, suite, request, out, name=name, suite_settings=settings, progress=progress)
    if not isinstance(policy, str):
        record_success(evaluated, policy.card.facts, cfg["tracking_uri"], actions_per_second(policy))
    return evaluated


def text(evaluated: Evaluated) -> str:
    """One line a task and one for all: success with its interval, credit, steps, errors; then what went wrong."""
    header = ["task", "episodes", "success", "95 % interval", "credit", "steps", "errors"]
    rows = [_cells(row) for row in [*evaluated.tasks, evaluated.pooled]]
    lines = [f"{evaluated.subject} on {evaluated.suite}", *aligned(Grid("", header, rows))]
    lines += [f"failed by an error: {r.initial_state}, step {r.steps}: {r.error}" for r in evaluated.failed[:5]]
    if evaluated.verdict is not None:
        lines.append(f"against the other: {evaluated.verdict}; the rates are of these episodes alone")
    return "\n".join([*lines, f"records in {evaluated.out}"])


def _cells(row: Row) -> list[str]:
    rates = [f"{row.success:.3f}", f"[{row.low:.3f}, {row.high:.3f}]", f"{row.credit:.3f}"]
    return [row.task, f"{row.episodes}", *rates, f"{row.steps:.1f}", f"{row.errors}"]


def _default_out(cfg: Mapping[str, Any], suite: Suite) -> Path:
    """Beside the checkpoint; for a control, or a checkpoint named without a path, under the runs."""
    root = Path(cfg["root"])
    if cfg["policy"] is not None:
        return root / "controls" / suite.name / str(cfg["policy"])
    return (home_of(cfg["ckpt"]) or root / Path(cfg["ckpt"]).name) / "evaluation" / suite.name
