"""`vlakit evaluate ... planner=NAME lm=DIR`: a planner around who acts, and what came of its plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.compare.grids import Grid, aligned
from vlakit.errors import ConfigError
from vlakit.files import write_atomically

if TYPE_CHECKING:
    from vlakit.evaluation.run import Evaluated, Request
    from vlakit.evaluation.suite import Suite
    from vlakit.planning.saycan import SayCan


def planned(cfg: Mapping[str, Any], suite: Suite, request: Request, policy: Any, name: str, out: Path) -> SayCan:
    """The planner of the configuration around a policy. Raises ConfigError, UnknownName, PartMissing."""
    from vlakit.evaluation.subject import subject_of
    from vlakit.planning.settings import load_planner, planner_of

    if cfg["planner"] is None:
        where = f"lm={cfg['lm']} values={cfg['values']}"
        raise ConfigError("lm and values are of a planner", where=where, do="add planner=NAME, a file of conf/planner")
    states = request.states(suite)
    subject = subject_of(policy, name, suite, states, strict=request.strict is not False, seed=request.seed)
    slots = min(request.slots, len(states))
    values = None if cfg["values"] is None else Path(cfg["values"]).expanduser()
    return planner_of(load_planner(cfg["planner"]), suite, subject, cfg["lm"], slots=slots, out=out, values=values)


def keep_plans(evaluated: Evaluated, suite: Suite, request: Request) -> None:
    """Sum plans up by family in the evaluation's folder."""
    from vlakit.evaluation.records import read_episodes
    from vlakit.planning.results import SUMMARY, outcomes_of, read_steps, rows, summed_up
    from vlakit.planning.skills import skills_of

    found = outcomes_of(
        read_steps(evaluated.out),
        read_episodes(evaluated.out),
        request.states(suite),
        skills_of(suite),
    )
    write_atomically(evaluated.out / SUMMARY, json.dumps(summed_up(rows(found), evaluated.subject), indent=1) + "\n")


def plans_of(evaluated: Evaluated) -> dict[str, Any]:
    """The plans of an evaluation that ended, by family."""
    from vlakit.planning.results import SUMMARY

    return json.loads((evaluated.out / SUMMARY).read_text(encoding="utf-8"))


def plans_text(plans: Mapping[str, Any]) -> str:
    """A line a family: right plans, plans carried out, and who is to blame."""
    header = ["family", "episodes", "plan", "executed", "executed|plan", "choices", "infeasible", "false done", "blame"]
    lines = [_cells(row) for row in plans["families"]]
    return "\n".join([f"plans by {plans['planner']}", *aligned(Grid("", header, lines))])


def _cells(row: Mapping[str, Any]) -> list[str]:
    given = "-" if row["exec_given_plan"] is None else f"{row['exec_given_plan']:.3f}"
    rates = [f"{row['plan_success']:.3f}", f"{row['exec_success']:.3f}", given, f"{row['n_steps']:.1f}"]
    rates += [f"{row['infeasible_rate']:.3f}", f"{row['false_done_rate']:.3f}"]
    blame = ", ".join(f"{who} {count}" for who, count in row["blame"].items() if count)
    return [row["family"], str(row["n"]), *rates, blame or "-"]
