"""Trajectories that begin in the past, plain instructions, and bounds that nothing is clipped to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models.diffusion_policy.cases import processor, statistics

from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.shards.statistics import load_statistics
from vlakit.errors import ConfigError, InvalidData, PartMissing
from vlakit.processing.diffusion import DiffusionProcessor, DiffusionSettings
from vlakit.processing.linear import Linear
from vlakit.processing.normalizer import normalize, normalize_proprio, unnormalize
from vlakit.schema import Observation

COMMON = {"image_size": 32, "channel_statistics": ["imagenet_twice"], "normalization": "limits"}


def test_a_trajectory_begins_with_the_actions_of_the_windows_earlier_frames(bridge_shards: Path) -> None:
    folder = ShardFolder.open(bridge_shards)
    of = DiffusionProcessor(DiffusionSettings.from_dict({**COMMON, "window": 3, "horizon": 6, "chunk": 4}), {
        folder.dataset: folder.statistics
    })  # fmt: skip
    row = folder.episodes("train")[0]
    recorded = [
        folder.read_sample(SampleRef(folder.dataset, row.shard, row.first_frame + frame)).actions[0]
        for frame in range(8)
    ]
    for frame, steps, real in ((4, range(2, 8), [True] * 6), (1, [0, 0, 1, 2, 3, 4], [False] + [True] * 5)):
        ref = SampleRef(folder.dataset, row.shard, row.first_frame + frame)
        sample = folder.read_sample(ref, window=3, chunk=of.settings.ahead)
        example = of.encode(sample)
        np.testing.assert_array_equal(example.actions, [recorded[step] for step in steps])
        assert example.chunk_mask.tolist() == real
        assert example.pixels["primary"].shape[0] == 3


def test_a_window_longer_than_an_episode_repeats_its_first_frame(bridge_shards: Path) -> None:
    folder = ShardFolder.open(bridge_shards)
    of = DiffusionProcessor(DiffusionSettings.from_dict({**COMMON, "window": 500, "horizon": 504}), {
        folder.dataset: folder.statistics
    })  # fmt: skip
    row = folder.episodes("train")[0]
    ref = SampleRef(folder.dataset, row.shard, row.first_frame + row.n_frames - 1)
    sample = folder.read_sample(ref, window=500, chunk=of.settings.ahead, cameras=())
    assert sample.past is not None
    assert sample.window_mask.sum() == row.n_frames
    assert (sample.past[: 500 - row.n_frames] == sample.past[0]).all()


def test_a_chunk_is_at_most_what_the_horizon_leaves() -> None:
    assert processor(window=2, horizon=16, chunk=8).settings.chunk == 8
    assert processor(window=1, horizon=1, chunk=8).settings.chunk == 1
    with pytest.raises(ConfigError, match="horizon"):
        processor(window=4, horizon=3)


def test_settings_survive_their_plain_form() -> None:
    settings = processor(language=None).settings
    assert DiffusionSettings.from_dict(settings.to_dict()) == settings


def test_extremes_become_one_narrow_columns_are_shifted_and_nothing_is_clipped() -> None:
    one = statistics()
    low = normalize(one.min.astype(np.float32), one, "limits")
    high = normalize(one.max.astype(np.float32), one, "limits")
    constant = np.arange(7) == 2
    np.testing.assert_allclose(low, np.where(constant, 0, -1), atol=1e-6)
    np.testing.assert_allclose(high, np.where(constant, 0, 1), atol=1e-6)  # the gripper, too
    beyond = one.max + 1
    np.testing.assert_allclose(
        unnormalize(normalize(beyond, one, "limits"), one, "limits")[~constant], beyond[~constant], rtol=1e-5
    )
    assert unnormalize(np.full(7, 0.4), one, "limits")[2] == pytest.approx(0.3)
    narrow = replace(one, min=one.min * 0, max=one.max * 0 + 5e-5)
    np.testing.assert_allclose(normalize(np.full(7, 3e-5), narrow, "limits"), 3e-5, rtol=1e-4)
    assert normalize_proprio(np.full(7, 2.0), one, "limits").tolist() == [2.0] * 7


def test_the_other_ways_to_fit() -> None:
    half = Linear.of_range([0.0], [4.0], onto=(0, 1))
    assert (half.there([4.0]).item(), half.back([0.5]).item()) == (1, 2)
    assert Linear.of_moments([1.0], [2.0]).there([5.0]).item() == 2
    assert Linear.of_size([4.0]).there([-2.0]).item() == -0.5
    assert np.concatenate(Linear.of_range([1.0], [3.0]).bounds).tolist() == [1, 3]


def test_instructions_that_become_the_same_ids_are_refused() -> None:
    with pytest.raises(InvalidData, match="same ids"):
        processor().check_instructions(["lift the \u4e00", "lift the \u4e01"])
    processor(language=None).check_instructions(["lift the \u4e00", "lift the \u4e01"])


def test_words_that_it_does_not_know_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    of = processor(cameras=[], proprio=7)
    for _ in range(2):
        of.observe([Observation({}, "拿起 the cube", proprio=np.zeros((2, 7), np.float32))])
    assert [record.message for record in caplog.records] == ["words that the language table does not know: 拿起"]


def test_what_is_no_instruction_and_a_text_encoder_that_is_not_here_are_refused(tmp_path: Path) -> None:
    of = processor(cameras=[], proprio=7)
    seen = np.zeros((2, 7), np.float32)
    assert of.observe([Observation({}, "lift", proprio=seen)]).text is not None
    with pytest.raises(InvalidData, match="instruction"):
        of.observe([Observation({}, 3, proprio=seen)])  # pyright: ignore[reportArgumentType]
    with pytest.raises(PartMissing) as caught:
        processor(language=str(tmp_path)).check_files()
    assert "language=table" in caught.value.do


def test_the_fixture_of_statistics_is_read_as_any_other(bridge_shards: Path) -> None:
    (one,) = load_statistics(bridge_shards / "statistics.json").values()
    assert np.abs(normalize(one.max, one, "limits")).max() == pytest.approx(1, abs=1e-5)
