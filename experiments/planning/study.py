"""With values or without, closed loop or open: the shipped language model plans, in the simulator, on the same starts.

python experiments/planning/study.py run DIR [--arms "policy*"] [--values FILE] [--lm DIR] [--episodes 240]
python experiments/planning/study.py report DIR                     (outcomes.csv, results.csv, verdicts.csv, steps.svg)

A run goes on where it was; arms that DIR does not hold whole are reported as outcomes.csv has them. --values: of
`vlakit affordances ckpt=tiny out=FILE`; --lm: another language model's folder, asked as `saycan_hf`. The scripted
expert carries skills out in one half of the arms, the shipped policy in the other.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from vlakit.evaluation.records import read_episodes
from vlakit.evaluation.run import Request, evaluate
from vlakit.evaluation.subject import subject_of
from vlakit.planning.choosing import Chooser, presence
from vlakit.planning.language_models import CausalScorer
from vlakit.planning.prompts import written
from vlakit.planning.results import Outcome, outcomes_of, read_steps, rows
from vlakit.planning.settings import load_planner, planner_of
from vlakit.planning.skills import skills_of
from vlakit.planning.suite import TabletopPlansSuite, things_of
from vlakit.policy import TrainedPolicy
from vlakit.stats.multiple import holm
from vlakit.stats.paired import PairCounts, count_pairs, mcnemar, newcombe_paired

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Arm:
    """planner: a file of conf/planner, with changes; none: the policy is told the whole instruction."""

    actor: str
    planner: str | None = None
    changes: Mapping[str, Any] | None = None

    @property
    def learnt(self) -> bool:
        """Does it need a file of values?"""
        return self.planner == "saycan_learned"


ORACLE = {"affordances": "oracle", "done": "learned"}
ARMS: dict[str, Arm] = {
    "expert: detected values": Arm("expert", "saycan_tiny"),
    "expert: no values": Arm("expert", "saycan_no_vf"),
    "expert: values alone": Arm("expert", "saycan_v_only"),
    "expert: open loop": Arm("expert", "saycan_open_loop"),
    "expert: oracle values": Arm("expert", "saycan_tiny", ORACLE),
    "expert: oracle values, constant done": Arm("expert", "saycan_tiny", {"affordances": "oracle"}),
    "expert: oracle values, open loop": Arm("expert", "saycan_open_loop", {"affordances": "oracle"}),
    "policy: detected values": Arm("tiny", "saycan_tiny"),
    "policy: no values": Arm("tiny", "saycan_no_vf"),
    "policy: open loop": Arm("tiny", "saycan_open_loop"),
    "policy: learnt values": Arm("tiny", "saycan_learned"),
    "policy: learnt values and done": Arm("tiny", "saycan_learned", {"done": "learned"}),
    "policy: oracle values": Arm("tiny", "saycan_tiny", ORACLE),
    "policy: oracle values, constant done": Arm("tiny", "saycan_tiny", {"affordances": "oracle"}),
    "policy: oracle values, open loop": Arm("tiny", "saycan_open_loop", {"affordances": "oracle"}),
    "policy: told everything": Arm("tiny"),
    "expert: another language model": Arm("expert", "saycan_hf"),
    "expert: another language model, no values": Arm("expert", "saycan_no_vf"),
}
CLAIMS = (  # (what is measured, better, worse): said before the study was run, but for the last four
    ("plan", "expert: detected values", "expert: no values"),
    ("plan", "expert: detected values", "expert: values alone"),
    ("exec", "expert: detected values", "expert: open loop"),
    ("plan", "expert: oracle values", "expert: detected values"),
    ("plan", "policy: detected values", "policy: no values"),
    ("exec", "policy: detected values", "policy: open loop"),
    ("exec", "policy: learnt values", "policy: no values"),
    ("exec", "policy: learnt values", "policy: detected values"),
    ("exec", "policy: learnt values and done", "policy: learnt values"),
    ("exec", "policy: oracle values", "policy: learnt values"),
    ("exec", "policy: detected values", "policy: told everything"),
    ("plan", "expert: another language model", "expert: another language model, no values"),
    ("exec", "expert: oracle values", "expert: oracle values, open loop"),
    ("exec", "policy: oracle values", "policy: oracle values, open loop"),
    ("exec", "expert: oracle values, constant done", "expert: oracle values, open loop"),
    ("exec", "policy: oracle values, constant done", "policy: oracle values, open loop"),
)
OUTCOME = ("arm", "state", "family", "plan_success", "exec_success", "infeasible", "false_done", "blame", "plan")
RESULT = ("arm", "family", "n", "plan", "exec", "exec_given_plan", "choices", "infeasible", "false_done", "blame")
VERDICT = ("measure", "a", "b", "n", "a_rate", "b_rate", "difference", "low", "high", "p", "p_holm", "says")
SAME = 0.05  # an interval inside of it shows equality
SECOND = {name for name in ARMS if "another language model" in name}


def run(root: Path, given: argparse.Namespace) -> None:
    """Every arm, those on file first; what lacks its file of values or its language model is left out."""
    policy = TrainedPolicy.from_checkpoint("tiny")
    suite = TabletopPlansSuite("d0")
    for name, arm in ARMS.items():
        if not fnmatchcase(name, given.arms):
            continue
        if (arm.learnt and given.values is None) or (name in SECOND and given.lm is None):
            print(f"{name}: left out")
            continue
        out, request = folder_of(root, name), Request(episodes=episodes_of(name, given.episodes), videos=1)
        actor: Any = policy if arm.actor == "tiny" else arm.actor
        if arm.planner is not None:
            changes = {"gguf": next((file.name for file in given.lm.glob("*.gguf")), None)} if name in SECOND else {}
            settings = replace(load_planner(arm.planner), **changes, **(arm.changes or {}))
            subject = subject_of(actor, arm.actor, suite, request.states(suite), strict=True, seed=0)
            folder = given.lm if name in SECOND else "tiny"
            folder = None if settings.lm == "uniform" else folder
            values = given.values if arm.learnt else None
            actor = planner_of(settings, suite, subject, folder, slots=request.slots, out=out, values=values)
        done = evaluate(actor, suite, request, out, name=name)
        print(f"{name}: {done.pooled.success:.3f} of {done.pooled.episodes}", flush=True)


def folder_of(root: Path, name: str) -> Path:
    """Where an arm is kept."""
    return root / re.sub(r"\W+", "_", name)


def episodes_of(name: str, episodes: int) -> int:
    """A larger language model takes seconds a choice: a quarter of the starts."""
    return episodes // 4 if name in SECOND else episodes


def outcomes(root: Path, episodes: int) -> dict[str, list[Outcome]]:
    """Of each arm that has all of its episodes, in the order of the starts."""
    suite = TabletopPlansSuite("d0")
    found: dict[str, list[Outcome]] = {}
    for name, arm in ARMS.items():
        folder, states = folder_of(root, name), Request(episodes=episodes_of(name, episodes)).states(suite)
        if not folder.is_dir():
            continue
        records = {one.initial_state: one for one in read_episodes(folder)}
        ordered = [records[state.name] for state in states if state.name in records]
        if len(ordered) < len(states):
            continue
        if arm.planner is None:
            blank, by = Outcome("", "", ("",), False, False, 0, False, ""), zip(states, ordered, strict=True)
            found[name] = [replace(blank, state=s.name, family=s.task, exec_success=one.success) for s, one in by]
        else:
            found[name] = outcomes_of(read_steps(folder), ordered, states, skills_of(suite))
    return found


def recorded(file: Path) -> dict[str, list[Outcome]]:
    """The outcomes of each arm that `report` wrote before."""
    found: dict[str, list[Outcome]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            plan, ends = tuple(row["plan"].split("; ")), (row["plan_success"] == "1", row["exec_success"] == "1")
            last = int(row["infeasible"]), row["false_done"] == "1", row["blame"]
            found.setdefault(row["arm"], []).append(Outcome(row["state"], row["family"], plan, *ends, *last))
    return found


def report(root: Path, given: argparse.Namespace) -> None:
    """The records, a line an arm and family, the verdicts, and the bars of one plan."""
    known = recorded(HERE / "outcomes.csv") | outcomes(root, given.episodes)
    found = {name: known[name] for name in ARMS if name in known}
    write(HERE / "outcomes.csv", OUTCOME, (cells(name, one) for name, several in found.items() for one in several))
    write(HERE / "results.csv", RESULT, (line(name, row) for name, several in found.items() for row in rows(several)))
    write(HERE / "verdicts.csv", VERDICT, verdicts(found))
    draw(next(one for one in found["expert: detected values"] if len(one.plan) > 2), HERE / "steps.svg")


def cells(name: str, one: Outcome) -> tuple[Any, ...]:
    """A record."""
    plan = "; ".join(one.plan)
    ends = int(one.plan_success), int(one.exec_success), one.infeasible, int(one.false_done)
    return name, one.state, one.family, *ends, one.blame, plan


def line(name: str, row: Any) -> tuple[Any, ...]:
    """A family of an arm."""
    given = "" if row.exec_given_plan is None else f"{row.exec_given_plan:.3f}"
    rates = f"{row.plan_success:.3f}", f"{row.exec_success:.3f}", given, f"{row.n_steps:.2f}"
    blame = " ".join(f"{who} {count}" for who, count in row.blame.items())
    return name, row.family, row.n, *rates, f"{row.infeasible_rate:.3f}", f"{row.false_done_rate:.3f}", blame


def verdicts(found: Mapping[str, Sequence[Outcome]]) -> Iterator[tuple[Any, ...]]:
    """Paired start by start; p by McNemar's mid-p, Holm over all claims; the interval is Newcombe's."""
    asked = [claim for claim in CLAIMS if claim[1] in found and claim[2] in found]
    counts = list[PairCounts]()
    for what, *names in asked:
        own, other = (np.array([getattr(one, f"{what}_success") for one in found[name]]) for name in names)
        counts.append(count_pairs(own, other))
    plain = [mcnemar(one.only_a, one.only_b) for one in counts]
    for (what, a, b), one, p, adjusted in zip(asked, counts, plain, holm(plain), strict=True):
        low, high = newcombe_paired(one)
        rates = ((one.both + one.only_a) / one.n, (one.both + one.only_b) / one.n)
        unshown = "the same within 5 points" if max(-low, high) <= SAME else "cannot be told"
        says = unshown if adjusted >= 0.05 else "better" if one.difference > 0 else "worse"
        numbers = [f"{value:.4f}" for value in (*rates, one.difference, low, high)]
        yield what, a, b, one.n, *numbers, f"{p:.3g}", f"{adjusted:.3g}", says


def draw(one: Outcome, file: Path) -> None:
    """Bars of each choice of a plan with detected values: language model, value, product."""
    suite = TabletopPlansSuite("d0", tasks=[one.family])
    state = next(start for start in suite.initial_states(one.family, 1000) if start.name == one.state)
    options = suite.skills.options
    chooser = Chooser(CausalScorer.from_folder("tiny"), options, len(suite.skills), written)
    values = presence([*(skill.needs for skill in suite.skills), []], things_of(state))
    figure, axes = plt.subplots(1, len(one.plan), figsize=(4.6 * len(one.plan), 2.8), layout="constrained")
    for step, axis in enumerate(axes):
        choice = chooser.choose(state.instruction, one.plan[:step], values)
        likely = np.argsort(np.exp(choice.log_p) + choice.joined)[-7:]
        bars = {
            "p of the language model": np.exp(choice.log_p),
            "V": choice.values,
            "product, the best 1": choice.joined,
        }
        for i, (label, heights) in enumerate(bars.items()):
            axis.barh(np.arange(len(likely)) + 0.27 * (1 - i), heights[likely], height=0.25, label=label)
        axis.set_yticks(range(len(likely)), [options[i] for i in likely], fontsize=7)
        axis.set_title(f"{step + 1}. {options[choice.option]}", fontsize=8)
    axes[0].legend(fontsize=6, frameon=False)
    figure.suptitle(state.instruction, fontsize=9)
    with plt.rc_context({"svg.hashsalt": file.name}):  # the same picture, the same bytes
        figure.savefig(file, metadata={"Date": None})


def write(file: Path, header: Sequence[str], lines: Iterator[tuple[Any, ...]]) -> None:
    """A table."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def main() -> None:
    """One of the two."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=("run", "report"))
    asked.add_argument("folder", type=Path)
    asked.add_argument("--arms", default="*")
    asked.add_argument("--values", type=Path)
    asked.add_argument("--lm", type=Path)
    asked.add_argument("--episodes", type=int, default=240)
    given = asked.parse_args()
    {"run": run, "report": report}[given.what](given.folder, given)


if __name__ == "__main__":
    main()
