"""`vlakit evaluate ckpt=runs/... suite=NAME`: closed loop, with records, a gate, videos and a table of success."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import parse_overrides, to_plain, verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.output import check_format, emit, request_of
from vlakit.cli.planning import keep_plans, planned, plans_of, plans_text
from vlakit.cli.policies import check_weights, home_of, load_policy
from vlakit.cli.progress import success_bar
from vlakit.cli.suites import split_words, suite_settings
from vlakit.compare.grids import Grid, aligned
from vlakit.compare.records import read_header
from vlakit.errors import ConfigError, StatisticsMissing, nearest
from vlakit.evaluation.starts import starts_of, title_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from vlakit.evaluation.records import Row
    from vlakit.evaluation.run import Evaluated, Request
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
    plans = {"plans": plans_of(evaluated)} if cfg["planner"] is not None else {}
    emit(evaluated.to_dict() | plans, "\n".join([text(evaluated), *map(plans_text, plans.values())]), cfg["format"])
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


def evaluate_trained(settings: Mapping[str, Any], ckpt: Path, tracking_uri: str | None) -> dict[str, float]:
    """Evaluate the checkpoint of a run that just ended, beside it and in its record; returns eval/success.

    settings: keys of conf/evaluate.yaml. Raises ConfigError for others, and what an evaluation refuses.
    """
    cfg = _trained(settings)
    cfg |= {"ckpt": str(ckpt), "tracking_uri": tracking_uri or cfg["tracking_uri"]}
    evaluated = evaluate_as_configured(cfg)
    log.info("%s", text(evaluated))
    return {"eval/success": evaluated.pooled.success}


def check_ahead(cfg: DictConfig) -> Suite | None:
    """The suite in which a training will end, None where it does not.

    What that evaluation would refuse in days is raised now: a GPU, a suite, a number, a package, a library that draws.
    """
    check_device({"gpu": "cuda"}.get(cfg.trainer.accelerator, "cpu"), "trainer.accelerator")
    if cfg.evaluate.suite is None:
        return None
    settings = _trained(to_plain(cfg.evaluate))
    suite, request = _asked(settings, suite_settings(settings["suite"]))
    _ = suite.versions  # its package, and a library that draws, which is tried in another process
    if request.against is not None:
        read_header(request.against)
    return suite


def check_units(suite: Suite | None, processor: Processor) -> None:
    """Raise StatisticsMissing where the data of a training has no statistics for the suite in which it ends."""
    if suite is not None:
        from vlakit.evaluation.subject import statistics_for

        try:
            statistics_for(suite, processor)
        except StatisticsMissing as error:
            do = f"train without acting in {suite.name} at the end: evaluate.suite=null"
            raise StatisticsMissing(error.what, where=error.where, do=do) from error


def _trained(settings: Mapping[str, Any]) -> dict[str, Any]:
    cfg = verb_config("evaluate", ["ckpt=null", f"suite={settings['suite']}"])
    for key in settings:
        if key not in cfg:
            raise ConfigError(f"{key!r} is no key of vlakit evaluate", where="evaluate", do=nearest(key, cfg))
    return cfg | {**settings}


def _asked(cfg: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Suite, Request]:
    """Suite and request of the keys of conf/evaluate.yaml, without reading weights. Raises ConfigError, UnknownName."""
    from vlakit.evaluation.building import build_suite
    from vlakit.evaluation.run import Request

    request = request_of(Request, cfg, "evaluate")
    check_device(cfg["device"])
    suite = build_suite(settings)
    request.states(suite)
    return suite, request


def evaluate_as_configured(cfg: Mapping[str, Any], suite_words: Sequence[str] = ()) -> Evaluated:
    """Evaluate as the keys of conf/evaluate.yaml say. Raises ConfigError, GateClosed, CheckpointMismatch."""
    from vlakit.evaluation.run import evaluate
    from vlakit.evaluation.speed import actions_per_second, latency
    from vlakit.evaluation.tracked import RUN_ID, record_success
    from vlakit.policy import TrainedPolicy

    settings = suite_settings(cfg["suite"], suite_words)
    if cfg["policy"] is not None and cfg["ckpt"] is not None:
        raise ConfigError("ckpt and policy are both given", where="command line", do="give one of them")
    check_weights(cfg)
    for key in ("url", "cameras", "token"):
        if cfg[key] is not None and cfg["policy"] != "remote":
            raise ConfigError(f"{key}= is of a server, and none is asked", where="command line", do="add policy=remote")
    suite, request = _asked(cfg, settings)
    out = check_writable(cfg["out"] or _default_out(cfg, suite))
    policy = subject_named(cfg)
    name = str(cfg["ckpt"] or getattr(policy, "name", policy))
    if any(cfg[key] is not None for key in ("planner", "lm", "values")):
        policy = planned(cfg, suite, request, policy, name, out)
        name = policy.name
    with success_bar() as progress, closing_if_open(policy):
        evaluated = evaluate(policy, suite, request, out, name=name, suite_settings=settings, progress=progress)
    if cfg["planner"] is not None:
        keep_plans(evaluated, suite, request)
    trained = policy if isinstance(policy, TrainedPolicy) else None
    if trained and trained.card.facts.get(RUN_ID):  # else nobody would read how fast it is
        record_success(evaluated, trained.card.facts, cfg["tracking_uri"], actions_per_second(trained))
    if trained and trained.quantization is not None:
        evaluated = replace(evaluated, quantization=replace(trained.quantization, latency=latency(trained)))
    return evaluated


def subject_named(cfg: Mapping[str, Any]) -> Any:
    """A checkpoint's policy, the name of a control, or a server. Raises ConfigError, RemoteFailed, PartMissing."""
    if cfg["policy"] is None:
        return load_policy(cfg)
    if cfg["policy"] != "remote":
        return str(cfg["policy"])
    if cfg["url"] is None:
        raise ConfigError("policy=remote, and no url", where="command line", do="add url=ws://HOST:PORT")
    from vlakit.serving.remote import remote_actor

    options = {key: cfg[key] for key in ("cameras", "token", "timeout_s")}
    return remote_actor(cfg["url"], cfg["dialect"], **options)


@contextmanager
def closing_if_open(policy: Any) -> Iterator[None]:
    """Hang up on a server in the end."""
    try:
        yield
    finally:
        if hasattr(policy, "close"):
            policy.close()


def text(evaluated: Evaluated) -> str:
    """One line a task and one for all: success with its interval, credit, steps, errors; then what went wrong."""
    header = ["task", "episodes", "success", "95 % interval", "credit", "steps", "errors"]
    rows = [_cells(row) for row in [*evaluated.tasks, evaluated.pooled, evaluated.pairs] if row is not None]
    lines = [f"{evaluated.subject} on {title_of(evaluated.suite, evaluated.starts)}", *aligned(Grid("", header, rows))]
    lines += [f"failed by an error: {r.initial_state}, step {r.steps}: {r.error}" for r in evaluated.failed[:5]]
    if evaluated.verdict is not None:
        lines.append(f"against the other: {evaluated.verdict}; the rates are of these episodes alone")
    if evaluated.quantization is not None:
        lines.append(str(evaluated.quantization))
    return "\n".join([*lines, f"records in {evaluated.out}"])


def _cells(row: Row) -> list[str]:
    rates = [f"{row.success:.3f}", f"[{row.low:.3f}, {row.high:.3f}]", f"{row.credit:.3f}"]
    return [row.task, f"{row.episodes}", *rates, f"{row.steps:.1f}", f"{row.errors}"]


def _default_out(cfg: Mapping[str, Any], suite: Suite) -> Path:
    """Beside the checkpoint; for a control, or a checkpoint named without a path, under the runs."""
    root, title = Path(cfg["root"]), title_of(suite.name, starts_of(suite))
    title += f"_{cfg['planner']}" if cfg["planner"] is not None else ""
    if cfg["policy"] is not None:
        server = re.sub(r"[^\w.-]+", "_", f"_{cfg['dialect']}_{cfg['url']}") if cfg["policy"] == "remote" else ""
        return root / "controls" / title / f"{cfg['policy']}{server}"
    return (home_of(cfg["ckpt"]) or root / Path(cfg["ckpt"]).name) / "evaluation" / title
