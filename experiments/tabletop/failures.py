"""Where success is lost: replays the lost episodes of evaluation folders and sorts them by what the hand touched.

python experiments/tabletop/failures.py OUT.csv PICTURE.png FOLDER...
A row a suite and task: episodes, lost ones, and how many of these are of each kind (KINDS). The picture shows one lost
episode of each task and kind.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import yaml

from vlakit.evaluation.gallery import contact_sheet, films
from vlakit.evaluation.records import EpisodeRecord, read_episodes
from vlakit.evaluation.suites.tabletop.suite import TabletopEnvironment, TabletopSuite

KINDS = ("nothing touched", "only another thing", "another thing first", "only the named thing")
SUITES = Path(__file__).parents[2] / "conf" / "suite"


def kind_of(touches: Iterable[int], goal: int) -> str:
    """touches: things in the order in which the hand first touched them."""
    order = list(touches)
    if not order:
        return KINDS[0]
    if goal not in order:
        return KINDS[1]
    return KINDS[3] if order == [goal] else KINDS[2]


def touched(environment: TabletopEnvironment, record: EpisodeRecord) -> dict[int, None]:
    """Things in the order in which the hand first touched them; a receptacle that is the goal's Y does not count."""
    order: dict[int, None] = {}
    for action in record.trace:
        environment.step(action)
        order |= dict.fromkeys(environment.world.touched() - order.keys() - {environment.goal.y})
    return order


def main(table: str, picture: str, *folders: str) -> None:
    """Write both files."""
    examples: dict[tuple[str, str], tuple[TabletopSuite, EpisodeRecord]] = {}
    with Path(table).open("w", encoding="utf-8", newline="") as stream:
        out = csv.writer(stream, lineterminator="\n")
        out.writerow(("suite", "task", "episodes", "lost", *KINDS))
        for folder in folders:
            records = read_episodes(folder)
            keys = yaml.safe_load((SUITES / f"{records[0].suite}.yaml").read_text(encoding="utf-8"))
            suite = TabletopSuite(**{key: value for key, value in keys.items() if key != "_target_"})
            environment = suite.environment()
            for task in suite.tasks:
                own = [record for record in records if record.task == task]
                states = {state.name: state for state in suite.initial_states(task, len(own))}
                found: Counter[str] = Counter()
                for record in (record for record in own if not record.success):
                    environment.reset(states[record.initial_state])
                    kind = kind_of(touched(environment, record), environment.goal.x)
                    found[kind] += 1
                    examples.setdefault((task, kind), (suite, record))
                out.writerow((suite.name, task, len(own), found.total(), *(found[kind] for kind in KINDS)))
    shown = []
    for _, (suite, record) in sorted(examples.items()):
        states = {state.name: state for state in suite.initial_states(record.task, 200)}
        shown += films(suite, [record], states, 128)
    contact_sheet(shown, Path(picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
