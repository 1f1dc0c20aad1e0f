"""The use case: a policy rolled out in a suite, recorded, summed up. Command line, training and others call `evaluate`.

The same request in the same folder goes on where it was; what it does not hold yet is rolled out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from vlakit import __version__
from vlakit.checked import Few, Flag, Fraction, Pixels, Rows, Seed, Some, Text
from vlakit.errors import ConfigError, PartMissing
from vlakit.evaluation.latency import Control
from vlakit.evaluation.records import EPISODES, HEADER, EpisodeRecord, EvaluationFolder, Row, opened, pairs_row, summary
from vlakit.evaluation.rollout import Options, rollout
from vlakit.evaluation.starts import fingerprint, shared_states, starts_of, title_of
from vlakit.evaluation.stopping import PairedStop, Verdict, outcomes_of, settings_of
from vlakit.evaluation.subject import Subject, subject_of
from vlakit.evaluation.suite import InitialState, Suite

if TYPE_CHECKING:
    from vlakit.evaluation.actors import Actor
    from vlakit.models.quantize import Quantization
    from vlakit.policy import Policy

log = logging.getLogger(__name__)
Progress: TypeAlias = Callable[[Sequence[EpisodeRecord], int], None]  # (records so far, episodes in all)


@dataclass(frozen=True)
class Request:
    """How a policy is to be evaluated in closed loop; conf/evaluate.yaml says what each key means.

    stop: "decided" ends it as soon as it is decided against the finished evaluation in `against`, at 1 - confidence,
    with `episodes` as the budget. Raises ConfigError.
    """

    tasks: tuple[Text, ...] = ()
    episodes: Some = 200
    slots: Rows = 32
    workers: Few = 0
    seed: Seed = 0
    control: Control = field(default_factory=Control)
    strict: Flag | None = None
    gate: Flag = True
    gate_episodes: Some = 8
    videos: Few = 0
    picture_size: Pixels = 160
    stop: Literal["decided"] | None = None
    against: Path | None = None
    confidence: Fraction = 0.95

    def __post_init__(self) -> None:
        Options(self.slots, self.workers, self.control)  # refuses what cannot be run before a checkpoint is loaded
        if (self.stop is None) != (self.against is None):
            raise ConfigError(
                f"stop={self.stop} against={self.against}",
                where="command line",
                do="give both or neither: stop=decided against=DIR, a finished evaluation",
            )
        if not 0 < self.confidence < 1:
            raise ConfigError(
                f"confidence={self.confidence}", where="command line", do="give a fraction between 0 and 1"
            )

    def states(self, suite: Suite) -> list[InitialState]:
        """The initial states that this asks for. Raises UnknownName, ConfigError."""
        if self.strict is not False and getattr(suite, "split", None) == "train":
            raise ConfigError(
                "these starts are those of demonstrations: no rate from them says what was learnt",
                where="suite.split=train",
                do="suite.split=test to report, select to choose by; strict=false where it is meant",
            )
        return shared_states(suite, self.episodes, self.tasks)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation that ended: all episodes pooled and a row a task, those that failed by an error, what was written.

    gate: the header's note of the replay gate. verdict: against the other evaluation, where one was named. starts: of
    which kind these were, where the suite has several. pairs: of starts, both right, where the suite has any.
    """

    subject: str
    suite: str
    out: Path
    gate: Mapping[str, Any] | None
    pooled: Row
    tasks: list[Row]
    failed: list[EpisodeRecord]
    files: list[Path]
    verdict: Verdict | None = None
    starts: str = "test"
    pairs: Row | None = None
    quantization: Quantization | None = None  # of the policy, where it is quantised

    @property
    def records(self) -> list[Path]:
        """The files that hold the evaluation itself."""
        return [self.out / HEADER, self.out / EPISODES]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "subject": self.subject,
            "suite": self.suite,
            "out": str(self.out),
            "gate": self.gate,
            **asdict(self.pooled),
            "tasks": [asdict(row) for row in self.tasks],
            "files": [str(file) for file in self.files],
            **({} if title_of(self.suite, self.starts) == self.suite else {"starts": self.starts}),
            **({} if self.pairs is None else {"pairs": asdict(self.pairs)}),
            **({} if self.quantization is None else {"quantization": self.quantization.to_dict()}),
            **({} if self.verdict is None else {"stopped": asdict(self.verdict)}),
        }


def evaluate(
    policy: Policy | Actor | str,
    suite: Suite,
    request: Request,
    out: Path,
    *,
    name: str = "",
    suite_settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Roll `policy` out in `suite` into the folder `out`, or go on with what is there, and sum up.

    policy: one made from a checkpoint, any other, or the name of a control. name: what reports call it.
    suite_settings: how the suite was built, for the header. Raises ConfigError, GateClosed, CheckpointMismatch,
    InvalidData where nothing can be decided.
    """
    states = request.states(suite)
    others = outcomes_of(request.against, suite, states) if request.against else None
    strict = request.strict is not False
    subject = subject_of(policy, name, suite, states, strict=strict, seed=request.seed)
    evaluation = _Evaluation(subject, suite, request, states, others)
    notes = {"subject": subject.name, "strict": strict}
    plain = suite_settings or {}

    def first(n: int) -> dict[str, Any]:
        return replace(evaluation, states=states[:n], request=replace(request, episodes=n)).settings(plain)

    shorter = None if others else first  # what stops early keeps the budget that its test was told
    with opened(out, evaluation.settings(plain), notes, shorter) as folder:
        evaluation.pass_gate(folder)
        verdict = evaluation.run(folder, progress or (lambda records, total: None))
        return evaluation.sum_up(folder, verdict)


@dataclass(frozen=True)
class _Evaluation:
    """One evaluation under way. others: success of the evaluation to decide against, from each of the states."""

    subject: Subject
    suite: Suite
    request: Request
    states: list[InitialState]
    others: list[bool] | None

    @property
    def options(self) -> Options:
        """How episodes are run; rows of a batch that no episode could ever fill are left out."""
        request, subject = self.request, self.subject
        slots = min(request.slots, len(self.states))
        return Options(slots, request.workers, request.control, subject.bounds, subject.hash)

    def settings(self, suite_settings: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides the episodes, as the header keeps it."""
        suite, request = self.suite, self.request
        settings: dict[str, Any] = {
            "suite": suite.name,
            "dataset": suite.dataset,
            "contract": dict(suite.surroundings),  # its name since version 0.1.0
            "control_hz": suite.control_hz,
            "tasks": list(dict.fromkeys(state.task for state in self.states)),
            "states": fingerprint(self.states),
            "episodes": request.episodes,
            "slots": self.options.slots,
            "seed": request.seed,
            "control": asdict(request.control),
            "versions": {**suite.versions, "vlakit": __version__},
            "suite_settings": dict(suite_settings),
            "policy": dict(self.subject.facts),
        }
        if title_of(suite.name, starts_of(suite)) != suite.name:
            settings["starts"] = starts_of(suite)
        if request.against is not None:
            settings["stop"] = settings_of(request.against, len(self.states), request.confidence)
        return settings

    def pass_gate(self, folder: EvaluationFolder) -> None:
        """Replay the expert's actions through a checkpoint's tokens, once a folder. Raises GateClosed."""
        trained, request = self.subject.trained, self.request
        if trained is None or (folder.header.get("gate") or {}).get("passed"):
            return
        if not request.gate:
            folder.note(gate={"skipped": "gate=false"})
            return
        from vlakit.evaluation.gate import check_gate, short_gate, training_path

        suite, plain = self.suite, replace(self.options, control=Control())
        codec = training_path(trained.processor, suite.dataset)
        try:
            result = short_gate(
                suite, lambda n: shared_states(suite, n, request.tasks), codec, request.gate_episodes, plain
            )
        except PartMissing as error:
            log.warning("no replay gate: %s", error.what)
            folder.note(gate={"skipped": error.what})
            return
        folder.note(gate=result.to_dict())
        check_gate(result)
        log.info("%s", result)

    def run(self, folder: EvaluationFolder, progress: Progress) -> Verdict | None:
        """Roll out what the folder does not hold yet, to the end or until it is decided."""
        total = len(self.states)
        stop = None if self.others is None else PairedStop(self.others, self.request.confidence)
        over = [stop.add(record) for record in folder.done] if stop else []
        done = {record.initial_state for record in folder.done}
        if done:
            log.info("%d of %d episodes are recorded already", len(done), total)
        progress(folder.done, total)
        if not any(over):
            with closing(rollout(self.suite, self.subject.policy, self.states, self.options, skip=done)) as episodes:
                for record in episodes:
                    folder.append(record)
                    progress(folder.done, total)
                    if stop and stop.add(record):
                        break
        if stop is None:
            return None
        folder.keep_first(stop.verdict.pairs)
        return stop.verdict

    def sum_up(self, folder: EvaluationFolder, verdict: Verdict | None) -> Evaluated:
        """Film what was asked for, note the rates in the header."""
        records = sorted(folder.done, key=lambda record: record.number)
        files = self._films(records, folder.path)
        pooled, tasks = summary(records)
        counts = asdict(pooled)
        folder.note(summary={key: counts[key] for key in ("episodes", "successes", "success", "low", "high", "errors")})
        if verdict is not None:
            folder.note(stopped={**asdict(verdict), "against": str(self.request.against)})
        failed = [record for record in records if record.error is not None]
        if failed:
            place = folder.path / EPISODES
            log.error("%d of %d episodes failed by an error, see %s", len(failed), len(records), place)
        gate = folder.header.get("gate")
        return Evaluated(
            self.subject.name,
            self.suite.name,
            folder.path,
            gate,
            pooled,
            tasks,
            failed,
            files,
            verdict,
            starts_of(self.suite),
            self._pairs(records),
        )

    def _pairs(self, records: Sequence[EpisodeRecord]) -> Row | None:
        scored = getattr(self.suite, "pairs", None)
        both = scored({(record.task, record.seed): record.success for record in records}) if scored else []
        return None if not both else pairs_row(both, records)

    def _films(self, records: Sequence[EpisodeRecord], out: Path) -> list[Path]:
        if self.request.videos < 1:
            return []
        from vlakit.evaluation.gallery import chosen, films, gallery, headline

        states = {state.name: state for state in self.states}
        shown = films(self.suite, chosen(records, self.request.videos), states, self.request.picture_size)
        return gallery(shown, out / "videos", self.suite.control_hz, headline(records))
