"""Sequence, loss and logits, held against the language model's own full forward."""

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import TINY
from torch import Tensor

from vlakit.errors import CheckpointMismatch, InvalidData, UnknownName
from vlakit.models.network import build_network
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.processing.processor import Processor
from vlakit.processing.settings import ProcessorSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import NO_LOSS, Batch, DatasetStatistics, TextBatch


def text_of(batch: Batch) -> TextBatch:
    assert batch.text is not None
    return batch.text


def full_logits(model: OpenVLA, batch: Batch) -> Tensor:
    """(B, N+T, V) by transformers' own forward, padding masked out."""
    patches, text = model.encode_image(model.pixels(batch)), text_of(batch)
    ones = text.mask.new_ones(patches.shape[:2])
    mask = torch.cat([text.mask[:, :1], ones, text.mask[:, 1:]], dim=1)
    sequence = model.splice(patches, text.ids)
    return model.language_model(inputs_embeds=sequence, attention_mask=mask).logits


def full_labels(model: OpenVLA, batch: Batch) -> Tensor:
    """(B, N+T): nothing is to be learnt from patches."""
    labels = text_of(batch).labels
    none = labels.new_full((len(batch), model.vision_backbone.n_patches), NO_LOSS)
    return torch.cat([labels[:, :1], none, labels[:, 1:]], dim=1)


def padded(batch: Batch, n: int) -> Batch:
    def pad(tensor: Tensor, value: int) -> Tensor:
        return F.pad(tensor, (0, n), value=value)

    text = text_of(batch)
    return replace(batch, text=TextBatch(pad(text.ids, 1472), pad(text.mask, 0), pad(text.labels, NO_LOSS)))


def row(batch: Batch, i: int) -> Batch:
    """Row i alone, without its padding."""
    text = text_of(batch)
    length = int(text.mask[i].sum())
    whole = {name: getattr(batch, name)[i : i + 1] for name in ("window_mask", "actions", "normalized", "chunk_mask")}
    whole["pixels"] = {camera: pixels[i : i + 1] for camera, pixels in batch.pixels.items()}
    cut = TextBatch(*(part[i : i + 1, :length] for part in (text.ids, text.mask, text.labels)))
    return replace(batch, keys=batch.keys[i : i + 1], datasets=batch.datasets[i : i + 1], **whole, text=cut)


def test_the_batch_mixes_lengths(tiny_batch: Batch) -> None:
    assert len(set(text_of(tiny_batch).mask.sum(dim=1).tolist())) > 1


@torch.no_grad()
def test_the_image_stands_behind_bos(tiny_vla: OpenVLA) -> None:
    patches, ids = torch.randn(1, 16, 128), torch.tensor([[1, 7, 8]])
    sequence = tiny_vla.splice(patches, ids)
    text = tiny_vla.language_model.get_input_embeddings()(ids)
    assert torch.equal(sequence, torch.cat([text[:, :1], patches, text[:, 1:]], dim=1))


@torch.no_grad()
def test_logits_are_those_of_the_full_forward_at_the_labels(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    output = tiny_vla.answers(tiny_batch)
    labels = full_labels(tiny_vla, tiny_batch)[:, 1:]
    supervised = labels != NO_LOSS
    expected = full_logits(tiny_vla, tiny_batch)[:, :-1][supervised]
    assert output.logits.shape == (3 * 8, 1536)
    torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(output.targets, labels[supervised])
    assert output.rows.tolist() == [0] * 8 + [1] * 8 + [2] * 8


@torch.no_grad()
def test_loss_is_the_shifted_cross_entropy_over_all_positions(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    logits, labels = full_logits(tiny_vla, tiny_batch), full_labels(tiny_vla, tiny_batch)
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=NO_LOSS)
    torch.testing.assert_close(tiny_vla(tiny_batch).loss, expected)


@torch.no_grad()
def test_the_log_probability_of_taught_tokens_is_minus_their_cross_entropy(
    tiny_vla: OpenVLA, tiny_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_vla, "constrain", False)
    output = tiny_vla.answers(tiny_batch)
    losses = F.cross_entropy(output.logits, output.targets, reduction="none").view(3, 8)
    scored = tiny_vla.log_prob(tiny_batch, output.targets.view(3, 8))
    torch.testing.assert_close(scored, -losses, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_on_the_right_changes_nothing(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    short, long = tiny_vla.answers(tiny_batch), tiny_vla.answers(padded(tiny_batch, 9))
    torch.testing.assert_close(long.logits, short.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(long.loss, short.loss)


@torch.no_grad()
def test_a_row_does_not_depend_on_the_other_rows(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    together = tiny_vla.answers(tiny_batch)
    for i in range(3):
        alone = tiny_vla.answers(row(tiny_batch, i))
        torch.testing.assert_close(together.logits[together.rows == i], alone.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_image_reaches_every_action(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    other = replace(tiny_batch, pixels={"primary": tiny_batch.pixels["primary"].flip(0)})
    changed = (tiny_vla.answers(tiny_batch).logits - tiny_vla.answers(other).logits).abs().amax(dim=1) > 0
    assert changed.view(3, 8)[[0, 2]].all()


@torch.no_grad()
def test_an_explicit_causal_mask_changes_nothing(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    sequence = tiny_vla.splice(tiny_vla.encode_image(tiny_vla.pixels(tiny_batch)), text_of(tiny_batch).ids)
    n = sequence.shape[1]
    mask = torch.ones(n, n, dtype=torch.bool).tril().expand(3, 1, n, n)
    torch.testing.assert_close(
        tiny_vla.hidden_states(sequence, mask), tiny_vla.hidden_states(sequence), atol=1e-5, rtol=1e-5
    )


def test_names_survive_a_checkpoint() -> None:
    names = VLASettings("tiny_siglip", "tiny_llama")
    assert VLASettings.from_dict(asdict(names)) == names


@pytest.mark.parametrize("names", [{"vision": "tiny_siglip"}, {"vision": "a", "llm": "b", "hed": "c"}, {}])
def test_names_that_do_not_fit_are_a_mismatch(names: dict[str, str]) -> None:
    with pytest.raises(CheckpointMismatch, match="model cannot be rebuilt"):
        VLASettings.from_dict(names)


def test_an_unknown_tower_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        build_vla(VLASettings("tiny_sigclip", "tiny_llama"))
    assert "tiny_siglip" in caught.value.do


@torch.no_grad()
def test_row_losses_are_those_of_each_row_alone(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    output = tiny_vla.answers(tiny_batch)
    rows = output.row_losses(len(tiny_batch))
    assert rows.shape == (len(tiny_batch),)
    torch.testing.assert_close(rows.mean(), output.loss)  # every row has as many answer ids
    first = output.rows == 0
    alone = torch.nn.functional.cross_entropy(output.logits[first], output.targets[first])
    torch.testing.assert_close(rows[0], alone)


@torch.no_grad()
def test_a_batchs_output_is_its_loss_its_actions_and_their_accuracy(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    output, answers = tiny_vla(tiny_batch), tiny_vla.answers(tiny_batch)
    assert torch.equal(output.loss, answers.loss)
    assert torch.equal(output.row_losses, answers.row_losses(3))
    assert output.predicted.shape == (3, 1, 7)
    guessed = answers.logits.argmax(dim=-1).view(3, 8)[:, :7]  # without EOS
    right = guessed == answers.targets.view(3, 8)[:, :7]
    torch.testing.assert_close(output.scores["token_accuracy"], right.double().mean(dim=1))


@torch.no_grad()
def test_teacher_forced_actions_of_a_perfect_network_are_the_recorded_ones(
    tiny_vla: OpenVLA, tiny_batch: Batch
) -> None:
    answers = tiny_vla.answers(tiny_batch)
    perfect = replace(answers, logits=F.one_hot(answers.targets, 1536).float())
    output = tiny_vla.head.output(perfect, tiny_batch)
    assert output.predicted is not None
    assert (output.predicted - tiny_batch.normalized).abs().max() <= 1 / 255 + 1e-6
    assert output.scores["token_accuracy"].tolist() == [1, 1, 1]


def test_a_batch_without_text_is_refused(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    with pytest.raises(InvalidData, match="no text") as caught:
        tiny_vla(replace(tiny_batch, text=None))
    assert "tokens" in caught.value.do


def test_pixels_of_another_size_are_refused_before_the_towers_see_them(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    one_tower = {"primary": tiny_batch.pixels["primary"][:, :, :3]}
    with pytest.raises(CheckpointMismatch, match=r"\(3, 64, 64\), the towers need \(6, 64, 64\)"):
        tiny_vla(replace(tiny_batch, pixels=one_tower))


def test_openvla_refuses_what_it_does_not_see(tiny_processor: TokenProcessor) -> None:
    processor = TokenProcessor(replace(tiny_processor.settings, window=2), tiny_processor.statistics)
    with pytest.raises(CheckpointMismatch, match="one frame of each camera") as caught:
        build_network(TINY, processor)
    assert caught.value.where == "model.processor"


def test_openvla_needs_a_processor_that_reads_text(bridge_statistics: DatasetStatistics) -> None:
    pictures = Processor(ProcessorSettings(image_size=64, channel_statistics=("half",)), {"a": bridge_statistics})
    with pytest.raises(CheckpointMismatch, match="needs text and action tokens"):
        build_network(TINY, pictures)


def test_a_network_is_built_again_from_its_description(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> None:
    again = build_network(tiny_vla.description, tiny_processor, device="meta")
    assert again.description == tiny_vla.description == TINY | {"vision_options": {}, "llm_options": {}}
    assert {name: t.shape for name, t in again.state_dict().items()} == {
        name: t.shape for name, t in tiny_vla.state_dict().items()
    }


def test_every_parameter_is_in_one_part(tiny_vla: OpenVLA) -> None:
    for name, _ in tiny_vla.named_parameters():
        parts = [one for one in tiny_vla.parts.values() if name == one or name.startswith(f"{one}.")]
        assert len(parts) == 1, name
    assert "projector" in tiny_vla.parts
