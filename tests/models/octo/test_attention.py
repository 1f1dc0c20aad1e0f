"""Who sees whom, against tables written by hand, and in what comes out of the transformer."""

from dataclasses import replace

import pytest
import torch
from octo_cases import seen_of, trunk_of

from vlakit.errors import InvalidData
from vlakit.models.octo.attention import Layout, attention_table
from vlakit.models.octo.transformer import Learned

# task task | obs obs readout | obs obs readout
CORRECT = """
11000000
11000000
11110000
11110000
11111000
11110110
11110110
11111111
"""
RELEASED = """
11000000
11000000
11111000
11111000
11111000
11111111
11111111
11111111
"""


def rows(table: str) -> list[list[bool]]:
    return [[letter == "1" for letter in line] for line in table.split()]


@pytest.mark.parametrize(("off_by_one", "table"), [(False, CORRECT), (True, RELEASED)])
def test_the_table_is_the_one_written_by_hand(off_by_one: bool, table: str) -> None:
    layout = Layout(2, {"primary": 2}, {"action": 1}, 2)
    assert attention_table(layout, off_by_one=off_by_one).tolist() == rows(table)


def test_readouts_do_not_see_each_other_and_the_first_token_alone_is_off_by_one() -> None:
    layout = Layout(0, {"a": 1}, {"x": 2, "y": 1}, 1)
    assert attention_table(layout).tolist() == rows("1000 1110 1110 1001")
    assert attention_table(layout, off_by_one=True).tolist() == rows("1100 1100 1111 1111")
    assert layout.tokens == 4


def test_within_the_task_and_within_a_timestep_all_see_each_other() -> None:
    table = attention_table(Layout(3, {"a": 2, "b": 2}, {"action": 1}, 3))
    assert table[:3, :3].all()
    assert table[3:7, 3:7].all()
    assert not table[:3, 3:].any()


@pytest.mark.parametrize("repeat_task", [True, False])
def test_another_readout_changes_no_other_output_by_a_bit(repeat_task: bool) -> None:
    trunk, seen = trunk_of(repeat_task=repeat_task), seen_of()
    before = trunk(seen)
    readout = trunk.readouts["action"]
    assert isinstance(readout, Learned)
    with torch.no_grad():
        readout.bias += 1
    after = trunk(seen)
    assert torch.equal(before.task, after.task)
    assert torch.equal(before.observations, after.observations)
    assert torch.equal(before.readouts["value"], after.readouts["value"])
    assert not torch.equal(before.readouts["action"], after.readouts["action"])


def test_the_released_rule_lets_observations_see_a_readout() -> None:
    trunk, seen = trunk_of(off_by_one=True, readouts={"action": 1}), seen_of()
    before = trunk(seen)
    with torch.no_grad():
        trunk.readouts["action"].bias += 1  # pyright: ignore[reportOperatorIssue]
    assert not torch.equal(before.observations, trunk(seen).observations)


def test_what_comes_later_changes_nothing_before_it() -> None:
    trunk, seen = trunk_of(), seen_of()
    before = trunk(seen)
    for picture in seen.images.values():
        picture[:, 1] = 0
    after = trunk(seen)
    assert torch.equal(before.observations[:, 0], after.observations[:, 0])
    assert torch.equal(before.readouts["action"][:, 0], after.readouts["action"][:, 0])
    assert not torch.equal(before.readouts["action"][:, 1], after.readouts["action"][:, 1])


def test_a_frame_that_is_padding_a_camera_that_is_not_there_and_words_not_said_change_nothing() -> None:
    trunk, seen = trunk_of(), seen_of()
    seen.frames[:, 0] = False
    seen.present["wrist"] = torch.zeros(2, 2, dtype=torch.bool)
    seen.told = torch.tensor([[True, True, False]] * 2)
    before = trunk(seen).readouts["action"][:, 1]
    assert seen.language is not None
    assert seen.proprio is not None
    seen.images["primary"][:, 0], seen.proprio[:, 0] = 0.5, 0.5
    seen.images["wrist"][:] = 0.5
    seen.language[:, 2] = 9
    assert torch.equal(before, trunk(seen).readouts["action"][:, 1])


def test_a_goal_that_is_missing_is_black_and_one_that_is_there_counts() -> None:
    trunk, seen = trunk_of(goals=True), seen_of()
    without = trunk(seen).readouts["action"]
    black = {camera: torch.full_like(pictures[:, 0], -1.0) for camera, pictures in seen.images.items()}
    assert torch.equal(without, trunk(replace(seen, goals=black)).readouts["action"])
    grey = {camera: picture + 1 for camera, picture in black.items()}
    assert not torch.equal(without, trunk(replace(seen, goals=grey)).readouts["action"])


def test_a_window_without_places_and_pictures_of_nobody_are_refused() -> None:
    trunk = trunk_of()
    with pytest.raises(InvalidData, match="window of 5 frames") as caught:
        trunk(seen_of(window=5))
    assert "positions" in caught.value.do
    with pytest.raises(InvalidData, match="no camera"):
        trunk(replace(seen_of(), images={}, proprio=None))
