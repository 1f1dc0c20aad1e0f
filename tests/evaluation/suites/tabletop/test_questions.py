"""What is asked about a tabletop: what is true, in words that the shipped model has, and the same each time."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from suites import LineSuite

from vlakit.data.questions import QuestionFolder
from vlakit.errors import ConfigError, PartMissing
from vlakit.evaluation.question_writer import RECORD, QuestionPlan, write_questions
from vlakit.evaluation.suites.tabletop.axes import UNSEEN_COLOURS
from vlakit.evaluation.suites.tabletop.embodiment import COLOURS
from vlakit.evaluation.suites.tabletop.questions import KINDS, RELATIONS, Pair, Seen, View2D, questions
from vlakit.evaluation.suites.tabletop.scene import SHAPES
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.processing.text import words

RED, BLUE, PLATE = (
    Seen("red", "cube", (0.2, 0.3), 0.3),
    Seen("blue", "ball", (0.7, 0.35), 0.1),
    Seen("white", "plate", (0.99, 0.8), 0.25),
)
VIEW = View2D([RED, BLUE, PLATE], gripper_open=False)
TRUE = {  # kind -> all that can be asked about VIEW, but for things that are not there
    "place": {
        ("where is the red cube?", "x04 y07"),
        ("where is the blue ball?", "x16 y08"),
        ("where is the white plate?", "x23 y19"),
    },
    "colour": {(f"what color is the {one.shape}?", one.colour) for one in VIEW.things},
    "shape": {(f"what is the {one.colour} thing?", one.shape) for one in VIEW.things},
    "count": {
        *((f"how many {shape}s are there?", "one") for shape in ("cube", "ball", "plate")),
        *((f"how many {shape}s are there?", "zero") for shape in ("cylinder", "bottle", "bowl")),
    },
    "nearest": {("what is nearest to the gripper?", "blue ball")},
    "gripper": {("is the gripper open?", "no")},
}


def pairs(kind: str, view: View2D = VIEW, n: int = 300) -> set[Pair]:
    rng = np.random.default_rng(0)
    return {pair for _ in range(n) if (pair := KINDS[kind](view, rng))}


@pytest.mark.parametrize("kind", TRUE)
def test_exactly_what_is_true_is_answered(kind: str) -> None:
    assert pairs(kind) == TRUE[kind]


def test_relations_are_those_of_the_picture_and_close_calls_are_not_asked() -> None:
    asked = dict(pairs("relation"))
    assert asked["is the red cube left of the blue ball?"] == "yes"
    assert asked["is the red cube right of the blue ball?"] == "no"
    assert asked["is the red cube behind the white plate?"] == "yes"  # farther from the camera is higher in the picture
    assert asked["is the white plate in front of the blue ball?"] == "yes"
    assert "is the red cube behind the blue ball?" not in asked
    assert {answer for words in RELATIONS for question, answer in asked.items() if words in question} == {"yes", "no"}


def test_what_is_asked_for_is_there_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    asked = [pair for _ in range(400) if (pair := KINDS["there"](VIEW, rng))]
    names = {one.name for one in VIEW.things}
    assert all(
        (question.removeprefix("is there a ").removesuffix("?") in names) == (a == "yes") for question, a in asked
    )
    assert abs(sum(answer == "yes" for _, answer in asked) - 200) < 3 * 10


def test_an_empty_table_is_asked_about_without_naming_a_thing() -> None:
    assert set(questions(View2D([], True), np.random.default_rng(0), 9)) == {"count", "gripper"}


def test_all_that_can_be_said_is_one_word_of_the_shipped_model_each() -> None:
    text, rng = words(), np.random.default_rng(0)
    for colour in COLOURS:
        for shape in SHAPES:
            view = View2D([Seen(colour, shape, (0.1, 0.1), 0.1), Seen("red", "cube", (0.9, 0.9), 0.3)], True)
            for ask in KINDS.values():
                for said in ask(view, rng) or ():
                    assert len(text.encode(said)) == len(said.replace("?", " ?").split()), said


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions") / "semantic"
    build = partial(TabletopSuite, "target", ["semantic"])
    write_questions(build, QuestionPlan(90, seed=3), folder)
    write_questions(build, QuestionPlan(90, seed=3), folder.with_name("again"))
    return folder


@pytest.mark.sim
def test_rendered_questions_are_read_as_any_other_and_are_the_same_again(written: Path) -> None:
    folder, again = (QuestionFolder.open(place, "q") for place in (written, written.with_name("again")))
    assert folder.content_hash == again.content_hash
    asked = list(folder.texts())
    assert len(asked) == 90
    assert {one.kind for one in asked} == set(KINDS)
    assert {"teal", "maroon", "magenta"} & {word for one in asked for word in one.question.split()}
    record = json.loads((written / RECORD).read_text())
    assert sum(record["kinds"].values()) == 90
    assert record["pictures"] == len({one.image for one in asked})


@pytest.mark.sim
@pytest.mark.parametrize(("axis", "named"), [("none", False), ("semantic", True)])
def test_colours_of_the_semantic_axis_are_named_by_its_own_questions_alone(axis: str, named: bool) -> None:
    """Even as what is not there: the axis judges policies that have never met these words."""
    suite = TabletopSuite("target", [axis])
    task = suite.tasks[0]
    environment, rng = suite.environment(), np.random.default_rng(0)
    environment.reset(suite.training_states(task, 2)[1])  # of the semantic axis: other words, usual colours
    asked = {pair[0] for _ in range(300) if (pair := environment.questions(rng, 9).get("there"))}
    assert any(colour in question for question in asked for colour in UNSEEN_COLOURS) is named


@pytest.mark.sim
def test_a_thing_is_where_the_answer_says() -> None:
    """The picture changes there, and not elsewhere, when the thing is taken away."""
    from dataclasses import replace

    from vlakit.evaluation.suites.tabletop.painter import painter
    from vlakit.evaluation.suites.tabletop.questions import seen
    from vlakit.evaluation.suites.tabletop.scene import World
    from vlakit.evaluation.suites.tabletop.states import Start

    suite = TabletopSuite("target")
    start = Start.from_dict(suite.training_states("move_near", 1)[0].content)
    paint, whole = painter(64), World(suite.embodiment, start.layout)
    for one in seen(whole, paint).things:
        rest = tuple(thing for thing in start.layout.things if thing.name != one.name)
        less = World(suite.embodiment, replace(start.layout, things=rest))
        changed = np.argwhere((paint.paint(whole) != paint.paint(less)).any(axis=-1))  # rows of (v, u)
        assert np.abs(changed.mean(axis=0) / 64 - one.at[::-1]).max() < 2 / 64


@pytest.mark.sim
def test_a_folder_with_questions_is_not_written_over(written: Path) -> None:
    with pytest.raises(ConfigError, match="already"):
        write_questions(partial(TabletopSuite, "target"), QuestionPlan(5), written)


def test_a_suite_that_cannot_be_asked_about_says_what_can(tmp_path: Path) -> None:
    with pytest.raises(PartMissing) as caught:
        write_questions(LineSuite, QuestionPlan(5), tmp_path / "out")
    assert "data.questions" in caught.value.do
