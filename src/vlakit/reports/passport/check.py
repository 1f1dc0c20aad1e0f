"""A run made again, against its passport: the same episodes, as far as they are the same, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from vlakit.compare.episodes import Arm, Episodes, Outcome, Start, columns
from vlakit.compare.pairs import Settings
from vlakit.compare.versus import compare_arms
from vlakit.errors import InvalidData
from vlakit.reports.passport.passport import OUTCOME
from vlakit.reports.tables.runs import merged
from vlakit.stats.intervals import wilson
from vlakit.trees import changes

REPRODUCED, NOT_REPRODUCED, CANNOT_TELL = "reproduced", "not reproduced", "cannot tell"


@dataclass(frozen=True)
class Reproduction:
    """Success now and then as fractions, the recorded interval, and the paired difference, now minus then.

    identical: episodes of the same success, credit and steps; same_policy: whether every weight and setting of the
    policy is the recorded one, to the bit; more: rollouts that would settle it, None where no number would.
    """

    n: int
    identical: int
    success: float
    recorded: float
    recorded_interval: tuple[float, float]
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    same_policy: bool
    more: int | None
    verdict: str

    def __str__(self) -> str:
        low, high = (100 * limit for limit in self.recorded_interval)
        inside = "inside" if low <= 100 * self.success <= high else "outside"
        interval = "" if self.interval is None else f" [{100 * self.interval[0]:+.1f}, {100 * self.interval[1]:+.1f}]"
        more = f" ({self.more:,} more rollouts would)" if self.verdict == CANNOT_TELL and self.more else ""
        return "\n".join(
            [
                f"identical episodes  {self.identical} of {self.n}",
                f"policy              {'identical, to the bit' if self.same_policy else 'other weights'}",
                f"success             {100 * self.success:.1f} %, {inside} the recorded {100 * self.recorded:.1f} % "
                f"[{low:.1f}, {high:.1f}]",
                f"difference          {100 * self.difference:+.1f} points{interval}"
                + ("" if self.p is None else f", p = {self.p:.3g}"),
                f"verdict             {self.verdict}{more}",
            ]
        )


def compare(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], settings: Settings) -> Reproduction:
    """Compare evaluations as passports hold them, all suites pooled, on the same initial states.

    Reproduced: every episode identical, or success inside the recorded interval and shown equivalent within the margin.
    Not reproduced: the paired difference is significant. Raises InvalidData for other initial states or versions.
    """
    before, after = (merged([_episodes(e, name) for e in side]) for name, side in (("then", then), ("now", now)))
    (judged,) = compare_arms([Arm("now", [after]), Arm("then", [before])], settings, by_task=False).pairs
    outcomes = [
        [(e["suite"], *(row[key] for key in OUTCOME)) for e in side for row in e["episodes"]] for side in (then, now)
    ]
    identical = len(set(outcomes[0]) & set(outcomes[1]))
    won, n = int(before.success.sum()), len(before)
    low, high = wilson(won, n, settings.confidence)
    success = float(after.success.mean())
    if identical == n:
        verdict = REPRODUCED
    elif judged.winner is not None:
        verdict = NOT_REPRODUCED
    else:
        same = judged.verdict.startswith("equivalent") and low <= success <= high
        verdict = REPRODUCED if same else CANNOT_TELL
    return Reproduction(
        n=n,
        identical=identical,
        success=success,
        recorded=won / n,
        recorded_interval=(low, high),
        difference=judged.finding.difference,
        interval=judged.finding.interval,
        p=judged.finding.p,
        same_policy=[_policy(e) for e in then] == [_policy(e) for e in now],
        more=None if judged.more == inf else int(judged.more),
        verdict=verdict,
    )


def check_world(evaluation: Mapping[str, Any], states: str, versions: Mapping[str, str]) -> None:
    """Raise InvalidData where this machine's suite has other initial states, physics or renderer than the recorded."""
    settings = evaluation["settings"]
    then = {"initial states": settings["states"], **settings["versions"]}
    now = {"initial states": states, **versions}
    differing = [f"{key} {was}, here {here}" for key, (was, here) in changes(then, now).items() if key != "vlakit"]
    if differing:
        raise InvalidData(
            f"the episodes would not be the recorded ones: {'; '.join(differing)}",
            where=f"suite {evaluation['suite']}",
            do="install the recorded versions",
        )


def check_data(recorded: Mapping[str, str], here: Mapping[str, str], where: str) -> None:
    """Raise InvalidData that names every dataset whose shards are not those that the run was trained on."""
    differing = [f"{name} was {was[:12]}, is {now[:12]}" for name, (was, now) in changes(recorded, here).items()]
    if differing:
        raise InvalidData(
            f"other data than the run was trained on: {'; '.join(differing)}",
            where=where,
            do="data.root=DIR, the folder with the recorded shards",
        )


def _episodes(evaluation: Mapping[str, Any], name: str) -> Episodes:
    suite, settings = evaluation["suite"], evaluation["settings"]
    starts, success, credit = columns(
        Outcome(Start(suite, e["task"], f"{e['initial_state']} seed {e['seed']}"), e["success"], e["credit"])
        for e in evaluation["episodes"]
    )
    versions = {key: str(value) for key, value in settings["versions"].items()}
    return Episodes(name, Path(name), starts, success, credit, name, versions=versions, states=settings["states"])


def _policy(evaluation: Mapping[str, Any]) -> Any:
    policy = evaluation["settings"]["policy"]
    return policy.get("sha256", policy.get("control"))
