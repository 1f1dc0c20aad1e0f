"""What the card says of starts and words that the shipped model was not measured with at first; a row an episode.

python experiments/tiny_pretraining/measure.py fresh 200 > experiments/tiny_pretraining/fresh.csv
python experiments/tiny_pretraining/measure.py wording 100 > experiments/tiny_pretraining/wording.csv
fresh: starts of starts_seed=1, for each of its five robots. wording: the stored starts, said with articles and in other
words (those of the axis "semantic": two other verbs a task, with articles); the scenes are those of success.csv.
"""

import csv
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from vlakit.evaluation.records import EpisodeRecord, read_episodes
from vlakit.evaluation.run import Request, evaluate
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.axes import other_words
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.policy import TrainedPolicy

ROBOTS = ("d0", "d1", "d2", "d3", "d4")
VERBS = ("lift", "put", "push", "knock over", "move")
FRESH = ("suite", "task", "initial_state", "success", "credit", "steps")
Say = Callable[[str, int], str]


def with_articles(instruction: str, seed: int) -> str:
    """ "put red cube on white plate" to "put the red cube on the white plate"."""
    verb = next(verb for verb in VERBS if instruction.startswith(f"{verb} "))
    rest = instruction.removeprefix(f"{verb} ")
    return f"{verb} the {rest.replace(' on ', ' on the ').replace(' near ', ' near the ')}"


WORDINGS: dict[str, Say] = {"articles": with_articles, "other words": other_words}


class Reworded(TabletopSuite):
    """The same starts, said otherwise."""

    def __init__(self, robot: str, say: Say) -> None:
        super().__init__(robot)
        self.say = say

    def initial_states(self, task: str, n: int) -> list[InitialState]:
        """As the suite has them, but for the instruction."""
        return [replace(s, instruction=self.say(s.instruction, s.seed)) for s in super().initial_states(task, n)]


def episodes(policy: TrainedPolicy, suite: TabletopSuite, n: int) -> Iterator[EpisodeRecord]:
    """n episodes in all."""
    with tempfile.TemporaryDirectory() as folder:
        evaluate(policy, suite, Request(episodes=n, gate=False), Path(folder) / "out", name="tiny")
        yield from read_episodes(Path(folder) / "out")


def main(what: str, n: str) -> None:
    """Print the table as CSV."""
    policy = TrainedPolicy.from_checkpoint("tiny")
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(FRESH if what == "fresh" else ("wording", "instruction", *FRESH))
    for robot in ROBOTS:
        if what == "fresh":
            suites = {"": TabletopSuite(robot, split="fresh", starts_seed=1)}
        else:
            suites = {wording: Reworded(robot, say) for wording, say in WORDINGS.items()}
        for wording, suite in suites.items():
            for record in episodes(policy, suite, int(n)):
                values = (getattr(record, name) for name in FRESH)
                row = [int(value) if isinstance(value, bool) else value for value in values]
                out.writerow(row if what == "fresh" else [wording, record.instruction, *row])
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
