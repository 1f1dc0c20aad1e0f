"""RT-1's laws: who sees whom, what changes nothing, exact probabilities, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from models.rt1.rt1_cases import SMALL, WINDOW, batch_of, network_of, observations, processor_of, with_actions
from torch import Tensor

from vlakit.errors import CheckpointMismatch, ConfigError, InvalidData, UnknownName, VlakitError
from vlakit.models.network import Likelihood, build_network
from vlakit.models.rt1.rt1 import RT1, grown
from vlakit.models.rt1.transformer import attention_allowed, logit_positions
from vlakit.models.rt1.vision import EncoderSizes, FilmEfficientNet, TokenLearner, efficientnet
from vlakit.processing.processor import build_processor
from vlakit.processing.rt1 import RT1Processor
from vlakit.schema import DatasetStatistics


@pytest.fixture
def processor(bridge_statistics: DatasetStatistics) -> RT1Processor:
    return processor_of(bridge_statistics)


@pytest.fixture
def network(processor: RT1Processor) -> RT1:
    return network_of(processor)


def drawn_actions(n: int = 4, size: int = 7) -> Tensor:
    return torch.rand(n, 1, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


HAND_WRITTEN = """
1...........
11..........
11..........
11..........
11..........
11..........
1111111.....
11111111....
11....11....
11....11....
11....11....
11....11....
"""


def test_image_tokens_see_all_that_was_and_slots_see_image_tokens_alone() -> None:
    table = torch.tensor([[place == "1" for place in row] for row in HAND_WRITTEN.split()])
    assert torch.equal(attention_allowed(2, 2, 4), table)
    assert logit_positions(2, 2, 4).tolist() == [1, 2, 3, 4, 7, 8, 9, 10]


def test_film_changes_nothing_at_first() -> None:
    torch.manual_seed(0)
    encoder = FilmEfficientNet(16, EncoderSizes(0.25, 0.1, channels=None)).eval()
    pixels, context = torch.randn(2, 3, 64, 64), torch.randn(2, 16)
    assert torch.equal(encoder(pixels, context), encoder(pixels, 9 * context))
    assert torch.equal(encoder(pixels, context), encoder.net.forward_features(pixels))


def test_300_pixels_become_9_x_9_places_as_in_keras_and_10_x_10_by_their_size() -> None:
    for padding, side in (("even", 9), ("same", 10)):
        net = efficientnet(EncoderSizes(0.1, 0.1, padding=padding)).eval()
        assert net.forward_features(torch.zeros(1, 3, 300, 300)).shape[2:] == (side, side)


def test_a_learned_token_is_a_mean_of_places() -> None:
    torch.manual_seed(0)
    learner, places = TokenLearner(8, 3), torch.randn(2, 5, 8)
    weights, tokens = learner.weights(places), learner(places)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3))
    assert bool((tokens <= places.amax(dim=1, keepdim=True) + 1e-6).all())
    assert bool((tokens >= places.amin(dim=1, keepdim=True) - 1e-6).all())


def test_no_action_changes_what_is_predicted(network: RT1, processor: RT1Processor) -> None:
    actions = drawn_actions()
    batch = batch_of(processor, actions)
    one, other = network(batch), network(with_actions(batch, -actions))
    assert torch.equal(one.predicted, other.predicted)
    assert torch.equal(one.predicted, network.predict(batch))
    assert not torch.equal(one.row_losses, other.row_losses)


@pytest.mark.parametrize("grow", [False, True])
def test_every_moment_of_the_window_is_learnt_but_none_before_the_episode(processor: RT1Processor, grow: bool) -> None:
    batch, network = batch_of(processor, drawn_actions()), network_of(processor)
    network.grow = grow
    mask = torch.ones_like(batch.window_mask)
    mask[0, 0] = False
    batch = replace(batch, window_mask=mask, past=torch.zeros(len(mask), WINDOW - 1, 7))
    changed = torch.zeros_like(batch.past)  # pyright: ignore[reportArgumentType]
    changed[:, 0] = 0.5
    one, other = network(batch), network(replace(batch, past=changed))
    assert torch.equal(one.predicted, other.predicted)
    assert one.row_losses[0] == other.row_losses[0]
    assert (one.row_losses[1:] != other.row_losses[1:]).all()


def test_a_slot_carries_what_it_saw_to_later_frames(network: RT1) -> None:
    """Their inputs are zeros, and yet a sequence without them is another."""
    decoder, tokens = network.transformer, torch.randn(1, WINDOW, 4, 32, generator=torch.Generator().manual_seed(0))
    before = decoder.action_logits(tokens)
    decoder.allowed = decoder.allowed & ~torch.tensor([i % 11 >= 4 for i in range(33)])
    after = decoder.action_logits(tokens)
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not torch.allclose(after[:, 2], before[:, 2], atol=1e-3)


def test_an_earlier_answer_knows_nothing_of_later_frames(network: RT1) -> None:
    tokens = torch.randn(1, WINDOW, 4, 32, generator=torch.Generator().manual_seed(0))
    changed = torch.cat([tokens[:, :2], -tokens[:, 2:]], dim=1)
    one, other = network.transformer.action_logits(tokens), network.transformer.action_logits(changed)
    assert torch.equal(one[:, :2], other[:, :2])
    assert not torch.equal(one[:, 2], other[:, 2])


def test_every_frame_and_the_order_of_words_count(network: RT1, processor: RT1Processor) -> None:
    seen = observations(1)[0]
    logits = network.logits(processor.observe([seen]))
    for frame in range(WINDOW):
        images = seen.images["primary"].copy()
        images[frame] = 255 - images[frame]
        assert not torch.allclose(
            logits, network.logits(processor.observe([replace(seen, images={"primary": images})]))
        )
    words = [replace(seen, instruction=text) for text in ("put a pot on a plate", "put a plate on a pot")]
    one, other = network.logits(processor.observe(words))
    assert not torch.allclose(one, other, atol=1e-4)


def test_a_row_does_not_depend_on_the_others(network: RT1, processor: RT1Processor) -> None:
    together = network.logits(processor.observe(observations()))
    alone = torch.cat([network.logits(processor.observe([one])) for one in observations()])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_probabilities_of_all_answers_sum_to_one_and_the_likeliest_is_predicted(
    bridge_statistics: DatasetStatistics,
) -> None:
    processor = processor_of(bridge_statistics, n_bins=4)
    network, inputs = network_of(processor), processor.observe(observations(1))
    assert isinstance(network, Likelihood)
    log_probs = network.log_probs(inputs)[0, :3]  # of three tokens, the joint over all 64 triples
    joint = {
        ids: float(sum(log_probs[i, k] for i, k in enumerate(ids))) for ids in itertools.product(range(4), repeat=3)
    }
    assert sum(np.exp(value) for value in joint.values()) == pytest.approx(1, abs=1e-5)
    best = max(joint, key=lambda ids: joint[ids])
    assert best == tuple(network.logits(inputs)[0, :3].argmax(dim=-1).tolist())
    assert torch.equal(network.sample(inputs, temperature=0).actions, network.predict(inputs))


def test_what_was_drawn_has_the_probability_on_record_and_the_loss_is_its_mean(
    network: RT1, processor: RT1Processor
) -> None:
    inputs = processor.observe(observations())
    drawn = network.sample(inputs, generator=torch.Generator().manual_seed(3))
    assert torch.equal(network.log_prob(inputs, drawn.ids), drawn.log_probs)
    again = network.sample(inputs, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again.ids, drawn.ids)
    batch = batch_of(processor, drawn.actions)
    ids = torch.as_tensor(processor.actions.encode(drawn.actions[:, 0].numpy()))
    output = network(batch)
    torch.testing.assert_close(output.row_losses, -network.log_prob(batch, ids).mean(dim=1))
    torch.testing.assert_close(output.loss, output.row_losses.mean())
    network.log_prob(inputs, drawn.ids).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_row_without_an_action_has_no_part_in_the_loss(network: RT1, processor: RT1Processor) -> None:
    batch = batch_of(processor, drawn_actions())
    acting = torch.tensor([[True], [False], [True], [False]])
    output = network(replace(batch, chunk_mask=acting))
    torch.testing.assert_close(output.loss, output.row_losses[acting[:, 0]].mean())
    assert output.scores["token_accuracy"].isnan().tolist() == [False, True, False, True]


def test_a_growing_window_forgets_what_was_not_there() -> None:
    tokens = torch.arange(1.0, 4).view(1, 3, 1, 1).repeat(3, 1, 1, 1)
    mask = torch.tensor([[False, False, True], [False, True, True], [True, True, True]])
    moved, present = grown(tokens, mask)
    assert moved[..., 0, 0].tolist() == [[3, 0, 0], [2, 3, 0], [1, 2, 3]]
    assert present.tolist() == [0, 1, 2]


def test_a_growing_policy_ignores_repeated_frames(processor: RT1Processor) -> None:
    network, seen = network_of(processor, grow=True), observations(1)[0]
    mask, images = np.array([False, True, True]), seen.images["primary"].copy()
    images[0] = 255 - images[0]
    shown = [replace(seen, window_mask=mask), replace(seen, images={"primary": images}, window_mask=mask)]
    one, other = network.logits(processor.observe(shown))
    assert torch.equal(one, other)


def test_it_learns_a_batch_by_heart(processor: RT1Processor) -> None:
    torch.manual_seed(0)
    network = build_network(SMALL, processor).train()
    batch = batch_of(processor, drawn_actions())
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        network(batch).loss.backward()
        optimizer.step()
    assert float(network(batch).scores["token_accuracy"].mean()) > 0.99


PARTS = [["world", 3, "float32", -1, 1], ["turn", 3, "float32", -1, 1], ["grip", 1, "float32", 0, 1]]
PARTS += [["base", 3, "float32", -1, 1], ["end", 3, "int32", 0, 1]]


def test_eleven_tokens_of_the_originals_kind_answer_with_their_columns(bridge_statistics: DatasetStatistics) -> None:
    processor = processor_of(bridge_statistics, parts=PARTS)
    network = network_of(processor, action_size=13)
    actions = torch.cat([drawn_actions(size=10), torch.eye(3)[[0, 1, 2, 0]][:, None]], dim=-1)
    output = network(batch_of(processor, actions))
    assert network.logits(processor.observe(observations())).shape == (4, 11, 256)
    assert output.predicted is not None
    assert output.predicted.shape == (4, 1, 13)
    assert output.predicted[..., 10:].sum(dim=-1).tolist() == [[1]] * 4
    again = build_processor(processor.description, processor.statistics)
    assert again.description == processor.description


@pytest.mark.parametrize(
    ("settings", "more", "error", "word"),
    [
        ({"cameras": ["primary", "wrist"]}, {}, ConfigError, "one camera"),
        ({"chunk": 4}, {}, ConfigError, "one action"),
        ({"proprio": 8}, {}, ConfigError, "proprio"),
        ({"parts": PARTS}, {}, ConfigError, "action_size=13"),
        ({"parts": [["end", 3, "int", 0, 1]]}, {}, ConfigError, "int32"),
        ({}, {"encoder": {"strides": [1, 2]}}, ConfigError, "7 numbers"),
        ({}, {"encoder": {"widht": 1}}, CheckpointMismatch, "width"),
        ({}, {"encoder": {"padding": "evne"}}, ConfigError, "even"),
        ({}, {"head": "diffusion"}, CheckpointMismatch, "head"),
        ({"tokenizer": "sentences"}, {}, VlakitError, "tokenizer_path"),
        ({"tokenizer": "sentencse"}, {}, UnknownName, "sentences"),
    ],
)
def test_what_it_does_not_take_is_refused_in_words(
    settings: dict[str, Any],
    more: dict[str, Any],
    error: type[Exception],
    word: str,
    bridge_statistics: DatasetStatistics,
) -> None:
    with pytest.raises(error, match=word):
        build_network({**SMALL, **more}, processor_of(bridge_statistics, **settings))


def test_another_kind_of_processor_and_other_actions_are_refused(network: RT1, processor: RT1Processor) -> None:
    images = build_processor({"kind": "images", "image_size": 64, "channel_statistics": ["imagenet"]})
    with pytest.raises(CheckpointMismatch, match="kind 'images'"):
        build_network(SMALL, images)
    with pytest.raises(InvalidData, match="action_size=6"):
        network(batch_of(processor, drawn_actions(size=6)))
