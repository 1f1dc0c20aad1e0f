"""Heads that answer in one pass: each law is a trap of OpenVLA-OFT's code, and fails without what keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from oft_cases import CHUNK, HEADS, ONE_PASS, batch_of, network_of, processor_of, samples_of, seen
from torch import Tensor

from vlakit.errors import CheckpointMismatch, InvalidData, PartMissing, UnknownName
from vlakit.models.network import Likelihood, build_network, capability
from vlakit.models.openvla.parallel import STOP, two_way, with_slots
from vlakit.models.openvla.trunk import text_of
from vlakit.models.schedules import noisy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch, DatasetStatistics, Inputs, TextBatch


@pytest.fixture
def processor(bridge_statistics: DatasetStatistics) -> TokenProcessor:
    return processor_of(bridge_statistics)


@pytest.fixture
def batch(processor: TokenProcessor) -> Batch:
    return batch_of(processor, samples_of(processor.statistics["bridge_orig"]))


@pytest.fixture
def inputs(processor: TokenProcessor) -> Inputs:
    return processor.observe([seen(one) for one in samples_of(processor.statistics["bridge_orig"])])


def changed(batch: Any, position: int, to: int, row: int = 0) -> Any:
    """The batch with another id at a position of its text."""
    text = text_of(batch)
    ids = text.ids.clone()
    ids[row, position] = to
    return replace(batch, text=replace(text, ids=ids))


def states(network: Any, batch: Batch) -> Tensor:
    return network.states(network.context(batch), text_of(batch))


@torch.no_grad()
def test_every_position_sees_every_other_but_padding(processor: TokenProcessor, batch: Batch) -> None:
    """Prompt and pictures included: what comes later changes what stands first."""
    network, text = network_of("l1", processor), text_of(batch)
    assert len(set(text.mask.sum(dim=1).tolist())) > 1
    length = int(text.mask[0].sum())
    before = states(network, batch)
    later = states(network, changed(batch, length - 1, 40))  # the stop, behind all slots
    assert (before[0, 0] - later[0, 0]).abs().max() > 1e-4
    assert torch.equal(before[1:], later[1:])
    padding = states(network, changed(batch, -1, 40, row=0))
    assert int(text.mask[0, -1]) == 0
    assert torch.equal(before[0, : length - 1], padding[0, : length - 1])
    seen_by = two_way(text.mask, 4)[:, 0]
    assert torch.equal(seen_by, seen_by[:, :1].expand_as(seen_by))
    assert seen_by[0, 0].sum() == length + 4


@torch.no_grad()
@pytest.mark.parametrize("head", ONE_PASS)
def test_a_slot_is_answered_by_the_state_one_place_left_of_it(
    head: str, processor: TokenProcessor, batch: Batch
) -> None:
    network, text = network_of(head, processor), text_of(batch)
    context, all_states = network.context(batch), states(network, batch)
    read = network.slot_states(context, text)
    for row in range(len(batch)):
        first = int(network.slots(text)[row].int().argmax())
        assert text.ids[row, first - 1] == processor.text.empty_id
        assert torch.equal(read[row], all_states[row, first - 1 : first - 1 + CHUNK * 7])


@torch.no_grad()
@pytest.mark.parametrize("head", ["parallel", "l1"])
def test_recorded_actions_do_not_leak_into_their_own_answer(head: str, processor: TokenProcessor, batch: Batch) -> None:
    network, text = network_of(head, processor), text_of(batch)
    others = replace(text, ids=text.ids.where(~network.slots(text), 1300))
    assert torch.equal(states(network, batch), states(network, replace(batch, text=others)))


@torch.no_grad()
@pytest.mark.parametrize("head", ["parallel", "l1"])
def test_a_teacher_sees_what_the_policy_sees(
    head: str, processor: TokenProcessor, batch: Batch, inputs: Inputs
) -> None:
    """The stop is kept, behind the slots, and padding changes nothing without FiLM."""
    network = network_of(head, processor)
    network.constrain = False  # training asks among all ids
    taught, answered = network(batch).predicted, network.predict(inputs)
    torch.testing.assert_close(taught.float(), answered, atol=1e-4, rtol=1e-4)
    without = text_of(batch)
    length = int(without.mask[0].sum())
    assert without.ids[0, length - 1] == STOP == processor.text.eos_id
    assert not torch.allclose(states(network, batch)[0], states(network, changed(batch, length - 1, 1))[0], atol=1e-4)


def test_slots_stand_behind_each_prompt_and_a_stop_behind_them() -> None:
    ids = torch.tensor([[1, 7, 8, 3], [1, 9, 3, 99]])
    prompts = TextBatch(ids, (ids != 99).long(), torch.full_like(ids, -100))
    text = with_slots(prompts, 2, 50, 99)
    assert text.ids.tolist() == [[1, 7, 8, 3, 1, 1, 2], [1, 9, 3, 1, 1, 2, 99]]
    assert text.mask.tolist() == [[1] * 7, [1] * 6 + [0]]
    assert (text.labels == 50).nonzero().tolist() == [[0, 4], [0, 5], [1, 3], [1, 4]]


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("film", [False, True])
def test_a_rows_answer_does_not_depend_on_its_neighbours(head: str, film: bool, processor: TokenProcessor) -> None:
    network = network_of(head, processor, film=film)
    frames = [seen(one) for one in samples_of(processor.statistics["bridge_orig"])]
    together = network.predict(processor.observe(frames))
    assert together.shape == (3, CHUNK, 7)
    assert torch.equal(together, network.predict(processor.observe(frames)))
    for row, frame in enumerate(frames):
        alone = network.predict(processor.observe([frame]))
        torch.testing.assert_close(alone[0], together[row], atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_behind_bos_stand_patches_image_by_image_then_proprio_then_the_prompt(
    head: str, processor: TokenProcessor, inputs: Inputs
) -> None:
    network = network_of(head, processor)
    context = network.context(inputs)
    pixels = network.pixels(inputs)
    for image, camera in enumerate(("primary", "wrist")):
        one = network.encode_image(inputs.pixels[camera][:, 0])
        torch.testing.assert_close(context[:, 16 * image : 16 * (image + 1)], one, atol=1e-5, rtol=1e-5)
    assert pixels.shape == (3, 2, 6, 64, 64)
    assert context.shape[1] == 2 * 16 + 1
    assert inputs.proprio is not None
    assert torch.equal(context[:, 32:], network.proprio_projector(inputs.proprio))
    embedded = network.embed(text_of(inputs).ids)
    spliced = network.splice(context, text_of(inputs).ids)
    assert torch.equal(spliced[:, 0], embedded[:, 0])
    assert torch.equal(spliced[:, 34:], embedded[:, 1:])


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_every_sense_decides(head: str, processor: TokenProcessor, inputs: Inputs) -> None:
    network = network_of(head, processor)
    assert inputs.proprio is not None
    wrist = {**inputs.pixels, "wrist": -inputs.pixels["wrist"]}
    score = network.log_prob if head in ("discrete", "parallel") else None
    ids = torch.full((3, CHUNK * 7), network.tokens.begin)

    def answer(one: Inputs) -> Tensor:
        return network.predict(one) if score is None else score(one, ids)

    for other in (replace(inputs, pixels=wrist), replace(inputs, proprio=inputs.proprio + 1)):
        assert not torch.allclose(answer(other), answer(inputs), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("head", ONE_PASS)
def test_film_hears_all_that_is_no_slot_padding_included_in_training_and_none_in_use(
    head: str, processor: TokenProcessor, batch: Batch, inputs: Inputs
) -> None:
    network, text = network_of(head, processor, film=True), text_of(batch)
    slots = network.slots(text)
    for row in range(len(batch)):
        expected = network.embed(text.ids[row][~slots[row]][None]).mean(dim=1)[0]
        torch.testing.assert_close(network.heard(text)[row], expected)
    wider = TextBatch(*(torch.nn.functional.pad(t, (0, 5), value=v) for t, v in zip(
        (text.ids, text.mask, text.labels), (processor.text.padding_id, 0, -100), strict=True)))  # fmt: skip
    assert not torch.allclose(network.heard(wider), network.heard(text), atol=1e-4)
    assert not torch.allclose(network.features(replace(batch, text=wider)), network.features(batch), atol=1e-5)
    asked, context = network.asked(inputs)
    padded = replace(inputs, text=TextBatch(*(torch.nn.functional.pad(t, (0, 5), value=v) for t, v in zip(
        (text_of(inputs).ids, text_of(inputs).mask, text_of(inputs).labels), (99, 0, -100), strict=True))))  # fmt: skip
    torch.testing.assert_close(network.asked(padded)[1], context)
    assert (asked.ids == STOP).sum() == 3


@torch.no_grad()
def test_film_scales_between_attention_and_mlp_and_begins_with_no_change(
    processor: TokenProcessor, batch: Batch
) -> None:
    network = network_of("l1", processor, film=True)
    plain = network_of("l1", processor)
    missing = plain.load_state_dict(network.state_dict(), strict=False)
    assert len(missing.unexpected_keys) == 2 * 3 * 4  # towers, blocks, scale and shift with their biases
    assert not torch.allclose(network.features(batch), plain.features(batch), atol=1e-4)
    for name, parameter in network.named_parameters():
        if ".scale." in name or ".shift." in name:
            parameter.zero_()
    torch.testing.assert_close(network.features(batch), plain.features(batch), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_tokens_in_parallel_have_the_likelihood_that_they_are_drawn_with(
    processor: TokenProcessor, inputs: Inputs
) -> None:
    network = network_of("parallel", processor)
    drawn = network.sample(inputs, generator=torch.Generator().manual_seed(3))
    again = network.log_prob(inputs, drawn.ids)
    torch.testing.assert_close(drawn.log_probs, again, atol=1e-4, rtol=1e-4)
    other = drawn.ids.clone()
    other[:, 0] = network.tokens.begin
    assert torch.equal(network.log_prob(inputs, other)[:, 1:], again[:, 1:])  # none is given another
    every = torch.arange(*network.allowed)[:, None].expand(-1, CHUNK * 7)
    total = sum(network.log_prob(inputs, row.expand(3, -1)).exp() for row in every)
    torch.testing.assert_close(total, torch.ones(3, CHUNK * 7), atol=1e-3, rtol=1e-3)
    with pytest.raises(InvalidData, match="answers"):
        network.log_prob(inputs, drawn.ids[:, 1:])


@pytest.mark.parametrize("head", ["l1", "diffusion"])
def test_numbers_have_no_likelihood(head: str, processor: TokenProcessor) -> None:
    with pytest.raises(PartMissing, match="Likelihood"):
        capability(network_of(head, processor), Likelihood, purpose="sampling")


@torch.no_grad()
def test_actions_are_not_clipped(processor: TokenProcessor, inputs: Inputs) -> None:
    network = network_of("l1", processor)
    network.action_head["model"].fc2.bias += 5
    predicted = network.predict(inputs)
    assert predicted.min() > 1.5
    statistics = processor.statistics["bridge_orig"]
    physical = processor.physical(predicted.numpy(), ["bridge_orig"] * 3)
    assert (physical[..., :6] > statistics.q99[:6]).all()


@torch.no_grad()
@pytest.mark.parametrize("head", ["l1", "diffusion"])
def test_actions_past_an_episodes_end_count_in_no_loss(head: str, processor: TokenProcessor, batch: Batch) -> None:
    network = network_of(head, processor)
    mask = batch.chunk_mask.clone()
    mask[0, 1:] = False
    cut = replace(batch, chunk_mask=mask)
    text = text_of(batch)
    later = text.ids.where(~network.slots(text), network.tokens.begin)  # what the slots' ids were, L1 does not see
    other = replace(cut, normalized=batch.normalized.where(mask[..., None], 0.9), text=replace(text, ids=later))
    if head == "l1":
        assert torch.equal(network(cut).row_losses, network(other).row_losses)
        assert network(cut).loss != network(batch).loss
    rows = network(cut).row_losses
    assert rows.isfinite().all()
    weights = mask.sum(dim=1)
    torch.testing.assert_close((rows * weights).sum() / weights.sum(), network(cut).loss.to(rows.dtype))


@torch.no_grad()
def test_diffusion_sees_noisy_actions_and_the_time_step_in_their_places(
    processor: TokenProcessor, batch: Batch
) -> None:
    network, text = network_of("diffusion", processor), text_of(batch)
    context, noisy = network.context(batch), batch.normalized
    early, late = (torch.full((3,), step) for step in (1, 9))
    one = network.noise(context, text, noisy, early)
    assert not torch.allclose(one, network.noise(context, text, noisy, late), atol=1e-5)
    assert not torch.allclose(one, network.noise(context, text, noisy + 0.5, early), atol=1e-5)
    caught: list[Tensor] = []
    network.language_model.model.register_forward_pre_hook(
        lambda _, __, kwargs: caught.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    network.noise(context, text, noisy, early)
    (sequence,) = caught
    time = 1 + context.shape[1]
    assert torch.equal(sequence[:, 1:time], context)
    assert sequence.shape[1] == text.ids.shape[1] + context.shape[1] + 1
    half = network.hidden_size // 2
    assert sequence[0, time, 0] == torch.tensor(1.0).sin()
    assert sequence[0, time, half] == torch.tensor(1.0).cos()
    first = time + int(network.slots(text)[0].int().argmax())
    expected = network.noisy_action_projector(noisy[0].flatten()[:, None])
    torch.testing.assert_close(sequence[0, first : first + CHUNK * 7], expected)
    assert torch.equal(sequence[0, first + CHUNK * 7], network.embed(torch.tensor([STOP]))[0])


def test_a_step_of_training_on_another_device_leaves_answers_on_this_one(
    processor: TokenProcessor, batch: Batch
) -> None:
    network = network_of("diffusion", processor)
    elsewhere = batch.normalized.to("meta")
    noisy(network.scheduler, elsewhere, elsewhere, torch.zeros(3, dtype=torch.long, device="meta"))
    assert network.predict(batch).isfinite().all()


def test_training_draws_noise_and_validation_repeats_it(processor: TokenProcessor, batch: Batch) -> None:
    network = network_of("diffusion", processor)
    with torch.no_grad():
        assert network(batch).loss == network(batch).loss
        assert network(batch).predicted.shape == batch.normalized.shape
        network.train()
        assert network(batch).loss != network(batch).loss


@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_every_part_that_is_run(head: str, processor: TokenProcessor, batch: Batch) -> None:
    network = network_of(head, processor, film=True).train()
    network(batch).loss.backward()
    dead = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    last = ("featurizer.norm.", "blocks.2.", "attn_pool", "fused_featurizer.norm.")
    dead = {name for name in dead if not any(part in name for part in last)}
    assert dead <= ({"language_model.lm_head.weight"} if head in ("l1", "diffusion") else set())


def test_questions_about_pictures_teach_these_heads_nothing(processor: TokenProcessor, batch: Batch) -> None:
    """Both ways of attention show an answer to itself."""
    text = text_of(batch)
    labels = text.labels.clone()
    labels[1] = labels[1].where(labels[1] < 1216, 40)
    mask = batch.chunk_mask.clone()
    mask[1] = False
    mixed = replace(batch, text=replace(text, labels=labels), chunk_mask=mask)
    for head in ("parallel", "l1"):
        network = network_of(head, processor)
        with torch.no_grad():
            before, after = network(batch).row_losses, network(mixed).row_losses
        torch.testing.assert_close(before[[0, 2]], after[[0, 2]], atol=1e-5, rtol=1e-5)


def test_heads_and_their_options_are_named(processor: TokenProcessor) -> None:
    base = {"kind": "openvla", "vision": "tiny_dinosiglip", "llm": "tiny_llama"}
    with pytest.raises(UnknownName, match="no head called 'l2'"):
        build_network({**base, "head": "l2"}, processor)
    with pytest.raises(CheckpointMismatch, match="head l1 cannot be built"):
        build_network({**base, "head": "l1", "head_options": {"steps": 3}}, processor)
    network = build_network({**base, "head": "l1", "head_options": {"action_size": 6}}, processor)
    batch = batch_of(processor, samples_of(processor.statistics["bridge_orig"]))
    with pytest.raises(CheckpointMismatch, match="answers with 6 numbers"):
        network(batch)
    assert "head" not in build_network(base, processor).description  # as cards of before say it
