"""`vlakit evaluate suite=NAME`: closed loop, with records, a gate, videos and a table of success."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vlakit.cli.output import emit
from vlakit.cli.suites import build_suite, suite_settings
from vlakit.errors import ConfigError, PartMissing

if TYPE_CHECKING:
    from vlakit.evaluation.actors import Actor
    from vlakit.evaluation.records import EpisodeRecord, EvaluationFolder, Row
    from vlakit.evaluation.rollout import Options
    from vlakit.evaluation.suite import InitialState, Suite
    from vlakit.policy import Policy, VLAPolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """Who is evaluated. facts: what decides its answers; `vla` is None for a control."""

    name: str
    policy: Policy | Actor
    facts: dict[str, Any]
    vla: VLAPolicy | None = None
    card: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def hash(self) -> str:
        """What records call it."""
        return str(self.facts.get("sha256", self.name))


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found, as numbers and as a table; how many episodes failed by an error."""

    report: dict[str, Any]
    text: str
    errors: int


def closed_loop(cfg: dict[str, Any], words: Sequence[str]) -> None:
    """Evaluate a checkpoint or a control on a suite; exits with 1 when an episode failed by an error."""
    found = evaluate_in_suite(cfg, words)
    emit(found.report, found.text, cfg["format"])
    if found.errors:
        sys.exit(1)


def evaluate_in_suite(cfg: dict[str, Any], words: Sequence[str]) -> Evaluated:
    """Roll out what is not on disk yet, record and sum up. Raises ConfigError, GateClosed, CheckpointMismatch."""
    from vlakit.evaluation.records import opened
    from vlakit.evaluation.rollout import Options
    from vlakit.evaluation.starts import shared_states

    described = suite_settings(cfg["suite"], words)
    control = _control(cfg)
    suite = build_suite(described)
    states = shared_states(suite, cfg["episodes"], cfg["tasks"])
    cfg["slots"] = min(cfg["slots"], len(states))  # rows that no episode could ever fill
    subject = _subject(cfg, suite, states)
    options = Options(cfg["slots"], cfg["workers"], control, _bounds(subject, suite, states), subject.hash)
    out = Path(cfg["out"]) if cfg["out"] else _default_out(cfg, subject, suite)
    settings = {**_settings(cfg, suite, states), "suite_settings": described, "policy": subject.facts}
    with opened(out, settings, {"subject": subject.name, "strict": cfg["strict"]}) as folder:
        _pass_gate(cfg, suite, subject, folder, options)
        run(suite, subject.policy, states, options, folder)
        records = sorted(folder.done, key=lambda record: record.number)
        files = _gallery(suite, records, states, cfg, out)
        return _finish(cfg, suite, subject, records, folder, files)


def run(
    suite: Suite, policy: Policy | Actor, states: Sequence[InitialState], options: Options, folder: EvaluationFolder
) -> None:
    """Roll out what the folder does not hold yet, with a bar that shows the success so far."""
    from vlakit.evaluation.rollout import rollout

    done = {record.initial_state for record in folder.done}
    if done:
        log.info("%d of %d episodes are recorded already", len(done), len(states))
    with success_bar(len(states)) as show:
        show(folder.done)
        for record in rollout(suite, policy, states, options, skip=done):
            folder.append(record)
            show(folder.done)


@contextmanager
def success_bar(total: int) -> Iterator[Callable[[Sequence[EpisodeRecord]], None]]:
    """A bar on standard error with the running success and its 95 % interval."""
    from vlakit.stats.intervals import wilson

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[said]}"))
    with Progress(TextColumn("episodes"), *columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("episodes", total=total, said="")

        def show(records: Sequence[EpisodeRecord]) -> None:
            if not records:
                return
            won = sum(record.success for record in records)
            low, high = wilson(won, len(records))
            said = f"success {won / len(records):.3f} [{low:.3f}, {high:.3f}]".replace("[", r"\[")
            progress.update(task, completed=len(records), said=said)

        yield show


def success_table(pooled: Row, rows: Sequence[Row]) -> str:
    """One line a task and one for all: success with its interval, credit, steps, errors."""
    width = max(len("task"), *(len(row.task) for row in rows)) + 2
    lines = [
        f"{'task':<{width}}{'episodes':>9}{'success':>9}  {'95 % interval':<16}{'credit':>7}{'steps':>7}{'errors':>8}"
    ]
    for row in [*rows, pooled]:
        interval = f"[{row.low:.3f}, {row.high:.3f}]"
        lines.append(
            f"{row.task:<{width}}{row.episodes:>9}{row.success:>9.3f}  {interval:<16}"
            f"{row.credit:>7.3f}{row.steps:>7.1f}{row.errors:>8}"
        )
    return "\n".join(lines)


def _control(cfg: dict[str, Any]) -> Any:
    from vlakit.evaluation.latency import Control

    control = Control(**cfg["control"])
    control.check_slots(cfg["slots"])  # before a checkpoint is loaded
    return control


def _subject(cfg: dict[str, Any], suite: Suite, states: Sequence[InitialState]) -> Subject:
    if cfg["policy"] is None:
        return _checkpoint(cfg, suite, states)
    if cfg["ckpt"] is not None:
        raise ConfigError("ckpt and policy are both given", where="command line", do="give one of them")
    from vlakit.evaluation.actors import CONTROLS, action_bounds

    name = str(cfg["policy"])
    actor = CONTROLS.build(name, bounds=lambda: action_bounds(suite, None, states), seed=cfg["seed"])
    return Subject(name, actor, {"control": name})


def _checkpoint(cfg: dict[str, Any], suite: Suite, states: Sequence[InitialState]) -> Subject:
    from vlakit.cli.evaluate import load_policy
    from vlakit.evaluation.actors import identity, longest_prompt
    from vlakit.evaluation.surroundings import check_suite_contract, contract_differences

    vla = load_policy(cfg)
    vla.processor.statistics_of(suite.dataset)  # fails before the first episode
    if cfg["strict"]:
        check_suite_contract(vla.card, suite, where=str(cfg["ckpt"]))
    overridden = sorted(contract_differences(vla.card, suite))
    if overridden:
        log.warning("the checkpoint's contract differs from the suite's in %s", ", ".join(overridden))
    vla.pad_to = longest_prompt(vla, states)
    facts = {
        "sha256": identity(vla),
        "constrain": vla.constrain,
        "pad_to": vla.pad_to,
        "device": cfg["device"],
        "overridden": overridden,
    }
    return Subject(str(cfg["ckpt"]), vla, facts, vla, vla.card)


def _bounds(subject: Subject, suite: Suite, states: Sequence[InitialState]) -> Any:
    from vlakit.evaluation.actors import action_bounds

    if subject.vla is None:
        return None
    return action_bounds(suite, subject.vla.processor.statistics_of(suite.dataset), states)


def _settings(cfg: dict[str, Any], suite: Suite, states: Sequence[InitialState]) -> dict[str, Any]:
    from vlakit import __version__
    from vlakit.evaluation.starts import digest

    return {
        "suite": suite.name,
        "dataset": suite.dataset,
        "contract": dict(suite.contract),
        "control_hz": suite.control_hz,
        "tasks": list(dict.fromkeys(state.task for state in states)),
        "states": digest(states),
        **{key: cfg[key] for key in ("episodes", "slots", "seed", "control")},
        "versions": {**suite.versions, "vlakit": __version__},
    }


def _default_out(cfg: dict[str, Any], subject: Subject, suite: Suite) -> Path:
    """Beside the checkpoint; for a control, or a checkpoint named without a path, under the runs."""
    if subject.vla is None:
        return Path(cfg["root"]) / "controls" / suite.name / subject.name
    ckpt = Path(cfg["ckpt"]).expanduser()
    beside = ckpt if ckpt.is_dir() else ckpt.parent if ckpt.is_file() else Path(cfg["root"]) / ckpt.name
    return beside / "evaluation" / suite.name


def _pass_gate(cfg: dict[str, Any], suite: Suite, subject: Subject, folder: EvaluationFolder, options: Options) -> None:
    """Replay the expert's actions through the policy's tokens, once a folder. Raises GateClosed."""
    if subject.vla is None or (folder.header.get("gate") or {}).get("passed"):
        return
    if not cfg["gate"]:
        folder.note(gate={"skipped": "gate=false"})
        return
    from dataclasses import replace

    from vlakit.evaluation.gate import check_gate, short_gate, training_path
    from vlakit.evaluation.latency import Control
    from vlakit.evaluation.starts import shared_states

    codec = training_path(subject.vla.processor, suite.dataset)
    try:
        plain = replace(options, control=Control())
        result = short_gate(suite, lambda n: shared_states(suite, n, cfg["tasks"]), codec, cfg["gate_episodes"], plain)
    except PartMissing as error:
        log.warning("no replay gate: %s", error.what)
        folder.note(gate={"skipped": error.what})
        return
    folder.note(gate=result.to_dict())
    check_gate(result)
    log.info("%s", result)


def _gallery(
    suite: Suite, records: Sequence[EpisodeRecord], states: Sequence[InitialState], cfg: dict[str, Any], out: Path
) -> list[Path]:
    if cfg["videos"] < 1:
        return []
    from vlakit.evaluation.gallery import chosen, films, gallery

    shown = films(suite, chosen(records, cfg["videos"]), {state.name: state for state in states}, cfg["picture_size"])
    return gallery(shown, out / "videos", suite.control_hz)


def _finish(
    cfg: dict[str, Any],
    suite: Suite,
    subject: Subject,
    records: Sequence[EpisodeRecord],
    folder: EvaluationFolder,
    files: list[Path],
) -> Evaluated:
    from vlakit.evaluation.records import EPISODES, HEADER, summary

    pooled, rows = summary(records)
    errors = [record for record in records if record.error is not None]
    report = {
        "subject": subject.name,
        "suite": suite.name,
        "out": str(folder.path),
        "gate": folder.header.get("gate"),
        **pooled.to_dict(),
        "tasks": [row.to_dict() for row in rows],
        "files": [str(file) for file in files],
    }
    folder.note(summary={key: report[key] for key in ("episodes", "successes", "success", "low", "high", "errors")})
    _record(cfg, subject, suite, [pooled, *rows], [folder.path / HEADER, folder.path / EPISODES, *files])
    lines = [f"{subject.name} on {suite.name}", success_table(pooled, rows)]
    lines += [f"failed by an error: {r.initial_state}, step {r.steps}: {r.error}" for r in errors[:5]]
    if errors:
        log.error("%d of %d episodes failed by an error, see %s", len(errors), len(records), folder.path / EPISODES)
    return Evaluated(report, "\n".join([*lines, f"records in {folder.path}"]), len(errors))


def _record(cfg: dict[str, Any], subject: Subject, suite: Suite, rows: Sequence[Row], files: list[Path]) -> None:
    """eval/success, eval/success/<task> and eval/success/<suite> in the checkpoint's own MLflow run, if asked for."""
    run_id = subject.card.get("mlflow_run_id")
    if run_id is None or cfg["tracking_uri"] is None:
        return
    from vlakit.tracking.mlflow import record_evaluation

    metrics = {"eval/success": rows[0].success, f"eval/success/{suite.name}": rows[0].success}
    metrics |= {f"eval/success/{row.task}": row.success for row in rows[1:]}
    if not record_evaluation(cfg["tracking_uri"], run_id, metrics, files, f"evaluation/{suite.name}"):
        log.warning("run %s is not in %s: the numbers are in the files only", run_id, cfg["tracking_uri"])
