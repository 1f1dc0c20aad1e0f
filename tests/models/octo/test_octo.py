"""Octo on the seam: its targets, its likelihood, its sizes, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from octo_cases import HEADS, SMALL, batch_of, octo_of, processor_of
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import T5Config, T5EncoderModel

from vlakit.cli.configuration import compose_config, to_plain
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.errors import CheckpointMismatch, ConfigError, InvalidData, PartMissing, UnknownName
from vlakit.models.network import Likelihood, build_network, capability
from vlakit.models.octo.octo import targets
from vlakit.policy import TrainedPolicy
from vlakit.processing.normalizer import normalize, unnormalize
from vlakit.processing.processor import build_processor
from vlakit.schema import Batch, DatasetStatistics, Observation, Sample
from vlakit.strategies.trainable import train_only

ROOT = Path(__file__).parents[3]


@pytest.fixture
def windows(bridge_shards: Path) -> list[Sample]:
    """The first, the third and the last frame of an episode, with the frame before each and three actions."""
    folder = ShardFolder.open(bridge_shards)
    row = folder.episodes("train")[0]
    frames = (row.first_frame, row.first_frame + 2, row.first_frame + row.n_frames - 1)
    return [folder.read_sample(SampleRef("bridge_orig", row.shard, frame), window=2, chunk=3) for frame in frames]


def observation(seed: int, text: str = "lift the pot") -> Observation:
    pictures = np.random.default_rng(seed).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    return Observation({"primary": pictures}, text)


def test_every_timestep_answers_with_the_chunk_that_began_there() -> None:
    steps = torch.arange(6.0).view(1, 6, 1)
    batch = Batch(
        pixels={},
        window_mask=torch.tensor([[False, True, True]]),
        datasets=[""],
        action_shape=(4, 1),
        actions=steps[:, 2:],
        normalized=steps[:, 2:],
        chunk_mask=torch.tensor([[True, True, False, False]]),
        past=steps[:, :2],
        keys=[""],
    )
    actions, mask = targets(batch)
    assert actions[0, :, :, 0].tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]
    assert mask[0].tolist() == [[False] * 4, [True, True, True, False], [True, True, False, False]]
    actions, mask = targets(replace(batch, past=None))
    assert actions[0, :, :, 0].tolist() == [[2, 3, 4, 5]]
    assert mask[0].tolist() == [[True, True, False, False]]
    assert not targets(replace(batch, chunk_mask=batch.chunk_mask & False))[1].any()


def test_shards_give_the_past_of_a_window(windows: list[Sample]) -> None:
    first, third, _ = windows
    assert third.past is not None
    assert third.previous_action is not None
    assert third.past.tolist() == [third.previous_action.tolist()]
    assert first.window_mask.tolist() == [False, True]


@pytest.mark.parametrize("head", HEADS)
def test_what_does_not_exist_takes_no_loss(
    head: str, windows: list[Sample], bridge_statistics: DatasetStatistics
) -> None:
    processor = processor_of(bridge_statistics)
    network, batch = octo_of(processor, head), batch_of(processor, windows)
    before = network(batch)
    assert batch.past is not None
    assert torch.isfinite(before.row_losses).all()
    weight = targets(batch)[1].double().flatten(1).sum(dim=1)
    assert float(before.loss.detach()) == pytest.approx(
        float((before.row_losses * weight).sum() / weight.sum()), rel=1e-5
    )
    batch.past[0] = 3.0  # before the episode's begin
    if head != "diffusion":  # for which a chunk is one vector
        batch.normalized[2, 1:] = 3.0  # behind its end
    assert torch.equal(network(batch).loss, before.loss)
    assert before.predicted.shape == (3, 3, 7)
    assert ("token_accuracy" in before.scores) == (head == "discrete")


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_is_answered_as_its_rows_are_each_alone(head: str, bridge_statistics: DatasetStatistics) -> None:
    processor = processor_of(bridge_statistics)
    policy = TrainedPolicy(octo_of(processor, head), processor)
    asked = [observation(0), observation(1, "put the carrot on the plate"), observation(2)]
    together = policy.act(asked)
    assert together.shape == (3, 3, 7)
    for i, one in enumerate(asked):
        np.testing.assert_allclose(policy.act([one])[0], together[i], rtol=1e-3, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0 or head == "discrete"  # whose bins are wide


def test_bins_have_a_likelihood_and_numbers_have_none(bridge_statistics: DatasetStatistics) -> None:
    processor = processor_of(bridge_statistics)
    policy = TrainedPolicy(octo_of(processor, "discrete"), processor)
    asked = [observation(i) for i in range(3)]
    drawn = policy.sample(asked, generator=torch.Generator().manual_seed(0))
    assert drawn.ids.shape == (3, 21)
    again = policy.log_prob(asked, drawn.ids)
    torch.testing.assert_close(again.detach(), torch.from_numpy(drawn.log_probs), rtol=1e-4, atol=1e-5)
    every = [policy.log_prob(asked[:1], np.full((1, 21), bin_)).exp() for bin_ in range(8)]
    torch.testing.assert_close(sum(every), torch.ones(1, 21))
    for ids in (np.full((3, 21), 8), np.zeros((3, 20), np.int64)):
        with pytest.raises(InvalidData, match="ids"):
            policy.log_prob(asked, ids)
    for head in ("diffusion", "mse", "l1"):
        with pytest.raises(PartMissing, match="Likelihood"):
            capability(octo_of(processor, head), Likelihood, purpose="log_prob")


def test_when_the_head_alone_trains_the_trunk_stays_bit_for_bit(
    windows: list[Sample], bridge_statistics: DatasetStatistics
) -> None:
    processor = processor_of(bridge_statistics)
    network = octo_of(processor).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    cfg = compose_config("train", ["experiment=octo_ft_head"])
    train_only(network, to_plain(cfg.strategy)["trainable"])
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    network(batch_of(processor, windows)).loss.backward()
    optimizer.step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert {name for name in changed if not name.startswith("head.")} == set()


@pytest.mark.parametrize(("size", "millions"), [("small", 27), ("base", 93)])
def test_the_sizes_are_those_of_the_paper_without_t5(size: str, millions: int) -> None:
    cfg = compose_config("train", [f"experiment=octo_{size}"])
    processor = build_processor(to_plain(cfg.model.processor))
    network = build_network(to_plain(cfg.model.network), processor, device="meta")
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(millions * 1e6, rel=0.03)
    batch = processor.blank(2, device="meta")
    assert batch.pixels["wrist"].shape == (2, 2, 3, 128, 128)


def test_mean_and_deviation_become_0_and_1_and_nothing_is_clipped(bridge_statistics: DatasetStatistics) -> None:
    mean, std = bridge_statistics.mean, bridge_statistics.std
    actions = np.stack([mean, mean + std, mean - 7 * std])
    normal = normalize(actions, bridge_statistics, "normal")
    np.testing.assert_allclose(normal[:, :6], np.array([[0.0], [1.0], [-7.0]]).repeat(6, axis=1), atol=1e-4)
    np.testing.assert_allclose(normal[:, 6], actions[:, 6], rtol=1e-6)  # the gripper stays as it is
    np.testing.assert_allclose(unnormalize(normal, bridge_statistics, "normal"), actions, atol=1e-6)


def test_every_camera_is_seen_at_its_own_size(samples: list[Sample], bridge_statistics: DatasetStatistics) -> None:
    cameras = {"cameras": ("primary", "wrist"), "camera_sizes": {"wrist": 32}, "window": 1, "chunk": 1}
    processor = processor_of(bridge_statistics, **cameras)
    two = [replace(one, images={**one.images, "wrist": one.images["primary"]}) for one in samples]
    batch = batch_of(processor, two)
    assert {camera: tuple(x.shape[2:]) for camera, x in batch.pixels.items()} == {
        "primary": (3, 64, 64),
        "wrist": (3, 32, 32),
    }
    assert octo_of(processor, stem=[32, 32]).predict(batch).shape == (3, 1, 7)
    with pytest.raises(InvalidData, match="no camera 'wrist'"):
        processor.encode(samples[0])
    with pytest.raises(InvalidData, match="no camera 'wrist'"):
        processor.observe([Observation.of(np.zeros((64, 64, 3), np.uint8), "lift the pot")])
    with pytest.raises(ConfigError, match="camera_sizes"):
        processor_of(bridge_statistics, camera_sizes={"wrist": 32})


def test_a_constant_column_is_learnt_as_0_and_comes_back(bridge_statistics: DatasetStatistics) -> None:
    low, high = bridge_statistics.min.copy(), bridge_statistics.max.copy()
    low[1] = high[1] = 0.25
    processor = processor_of(replace(bridge_statistics, min=low, max=high))
    assert processor.normalized_actions(np.full((2, 7), 0.25, np.float32), None)[:, 1].tolist() == [0, 0]
    acted = TrainedPolicy(octo_of(processor), processor).act([observation(0)])
    assert acted[0, :, 1].tolist() == [0.25] * 3


def test_a_window_longer_than_the_episode_repeats_its_first_frame(
    bridge_shards: Path, bridge_statistics: DatasetStatistics
) -> None:
    folder = ShardFolder.open(bridge_shards)
    row = folder.episodes("train")[0]
    sample = folder.read_sample(SampleRef("bridge_orig", row.shard, row.first_frame + 1), window=60, chunk=3)
    processor = processor_of(bridge_statistics, window=60)
    output = octo_of(processor, positions=60)(batch_of(processor, [sample]))
    assert sample.window_mask.sum() == 2
    assert torch.isfinite(output.loss)
    with pytest.raises(ConfigError, match="window 60"):
        octo_of(processor)


def test_instructions_that_end_alike_behind_the_last_token_are_refused(bridge_statistics: DatasetStatistics) -> None:
    processor = processor_of(bridge_statistics, text_tokens=4)
    assert len(processor.prompt_ids("put the carrot on the plate")) == 4
    processor.check_instructions(["lift the pot", "close the drawer"])
    with pytest.raises(InvalidData, match="cannot tell them apart"):
        processor.check_instructions(["put the carrot on the plate", "put the carrot in the bowl"])
    with pytest.raises(InvalidData, match="instruction"):
        processor.observe([observation(0, " ")])


def t5_folder(folder: Path, width: int = 12) -> Path:
    """A T5 of a few words, with random weights, as Hugging Face lays one out."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "lift": 3, "the": 4, "pot": 5}
    torch.manual_seed(0)
    sizes = {"d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
    T5EncoderModel(T5Config(d_model=width, **sizes)).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_local_t5_is_read_and_is_no_part_of_the_network(tmp_path: Path, bridge_statistics: DatasetStatistics) -> None:
    folder = str(t5_folder(tmp_path))
    processor = processor_of(bridge_statistics, tokenizer="t5", tokenizer_path=folder)
    assert processor.prompt_ids("lift the pot") == [3, 4, 5, 1]
    network = octo_of(processor, text="t5")
    assert {name.split(".")[0] for name in network.state_dict()} == {"trunk", "head"}
    inputs = processor.observe([observation(0), observation(0, "the pot")])
    language, told = network.t5(inputs.text, torch.device("cpu"))
    with torch.no_grad():
        states = T5EncoderModel.from_pretrained(folder)(inputs.text.ids, inputs.text.mask).last_hidden_state
    torch.testing.assert_close(language, states)
    assert told.all()
    assert not np.array_equal(*network.predict(inputs).detach().numpy())
    with pytest.raises(ConfigError, match="12 wide"):
        octo_of(processor, text="t5", text_width=16).predict(inputs)


def test_without_t5s_files_the_way_out_is_named(bridge_statistics: DatasetStatistics) -> None:
    processor = processor_of(bridge_statistics, tokenizer="t5")
    with pytest.raises(PartMissing, match="T5's tokenizer") as caught:
        processor.check_files()
    assert "tokenizer_path" in f"{caught.value.where} {caught.value.do}"
    network = octo_of(processor, text="t5")
    with pytest.raises(PartMissing, match="T5's files") as caught:
        network.t5(processor.blank(1).text, torch.device("cpu"))
    assert "text=words" in caught.value.do


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"head": "flow"}, UnknownName, "flow"),
        ({"text": "t5"}, ConfigError, "tokenizer"),
        ({"heads": 3}, ConfigError, "heads"),
        ({"stem": []}, ConfigError, "stem"),
        ({"depth": 3}, CheckpointMismatch, "depth"),
    ],
)
def test_settings_that_no_octo_has_are_refused(
    changes: dict[str, Any], error: type[Exception], said: str, bridge_statistics: DatasetStatistics
) -> None:
    with pytest.raises(error, match=said):
        build_network({**SMALL, **changes}, processor_of(bridge_statistics))


def test_pictures_without_an_instruction_are_refused(bridge_statistics: DatasetStatistics) -> None:
    images = build_processor({"kind": "images", "image_size": 64, "channel_statistics": ["half"]})
    with pytest.raises(CheckpointMismatch, match="instructions"):
        build_network(SMALL, images)


def test_the_released_config_is_what_the_yaml_of_small_says() -> None:
    small = yaml.safe_load((ROOT / "conf" / "model" / "octo_small.yaml").read_text())
    keys = json.loads((ROOT / "tests" / "fixtures" / "octo" / "keys.json").read_text())["stem16"]
    assert small["network"]["stem"] == [keys[f"StdConv_{i}/kernel"][3] for i in range(4)]
    assert small["network"]["stem_width"] == keys["embedding/bias"][0]
