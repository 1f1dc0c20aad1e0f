"""Sequence, loss and logits, held against the language model's own full forward."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.errors import CheckpointMismatch, UnknownName
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.schema import NO_LOSS, Batch


def full_logits(model: OpenVLA, batch: Batch) -> Tensor:
    """(B, N+T, V) by transformers' own forward, padding masked out."""
    patches = model.encode_image(batch.pixel_values)
    ones = batch.attention_mask.new_ones(patches.shape[:2])
    mask = torch.cat([batch.attention_mask[:, :1], ones, batch.attention_mask[:, 1:]], dim=1)
    sequence = model.splice(patches, batch.input_ids)
    return model.language_model(inputs_embeds=sequence, attention_mask=mask).logits


def full_labels(model: OpenVLA, batch: Batch) -> Tensor:
    """(B, N+T): nothing is to be learnt from patches."""
    none = batch.labels.new_full((len(batch), model.vision_backbone.n_patches), NO_LOSS)
    return torch.cat([batch.labels[:, :1], none, batch.labels[:, 1:]], dim=1)


def padded(batch: Batch, n: int) -> Batch:
    def pad(tensor: Tensor, value: int) -> Tensor:
        return F.pad(tensor, (0, n), value=value)

    return replace(
        batch,
        input_ids=pad(batch.input_ids, 1472),
        labels=pad(batch.labels, NO_LOSS),
        attention_mask=pad(batch.attention_mask, 0),
    )


def row(batch: Batch, i: int) -> Batch:
    """Row i alone, without its padding."""
    length = int(batch.attention_mask[i].sum())
    fields = ("pixel_values", "actions", "normalized", "chunk_mask")
    whole = {name: getattr(batch, name)[i : i + 1] for name in fields}
    cut = {name: getattr(batch, name)[i : i + 1, :length] for name in ("input_ids", "labels", "attention_mask")}
    return replace(batch, keys=batch.keys[i : i + 1], datasets=batch.datasets[i : i + 1], **whole, **cut)


def test_the_batch_mixes_lengths(tiny_batch: Batch) -> None:
    assert len(set(tiny_batch.attention_mask.sum(dim=1).tolist())) > 1


@torch.no_grad()
def test_the_image_stands_behind_bos(tiny_vla: OpenVLA) -> None:
    patches, ids = torch.randn(1, 16, 128), torch.tensor([[1, 7, 8]])
    sequence = tiny_vla.splice(patches, ids)
    text = tiny_vla.language_model.get_input_embeddings()(ids)
    assert torch.equal(sequence, torch.cat([text[:, :1], patches, text[:, 1:]], dim=1))


@torch.no_grad()
def test_logits_are_those_of_the_full_forward_at_the_labels(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    output = tiny_vla(tiny_batch)
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
def test_padding_on_the_right_changes_nothing(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    short, long = tiny_vla(tiny_batch), tiny_vla(padded(tiny_batch, 9))
    torch.testing.assert_close(long.logits, short.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(long.loss, short.loss)


@torch.no_grad()
def test_a_row_does_not_depend_on_the_other_rows(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    together = tiny_vla(tiny_batch)
    for i in range(3):
        alone = tiny_vla(row(tiny_batch, i))
        torch.testing.assert_close(together.logits[together.rows == i], alone.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_image_reaches_every_action(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    other = replace(tiny_batch, pixel_values=tiny_batch.pixel_values.flip(0))
    changed = (tiny_vla(tiny_batch).logits - tiny_vla(other).logits).abs().amax(dim=1) > 0
    assert changed.view(3, 8)[[0, 2]].all()


@torch.no_grad()
def test_an_explicit_causal_mask_changes_nothing(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    sequence = tiny_vla.splice(tiny_vla.encode_image(tiny_batch.pixel_values), tiny_batch.input_ids)
    n = sequence.shape[1]
    mask = torch.ones(n, n, dtype=torch.bool).tril().expand(3, 1, n, n)
    torch.testing.assert_close(
        tiny_vla.hidden_states(sequence, mask), tiny_vla.hidden_states(sequence), atol=1e-5, rtol=1e-5
    )


def test_names_survive_a_checkpoint() -> None:
    names = VLASettings("tiny_siglip", "tiny_llama")
    assert VLASettings.from_dict(names.to_dict()) == names


@pytest.mark.parametrize("names", [{"vision": "tiny_siglip"}, {"vision": "a", "llm": "b", "head": "c"}, {}])
def test_names_that_do_not_fit_are_a_mismatch(names: dict[str, str]) -> None:
    with pytest.raises(CheckpointMismatch, match="model cannot be rebuilt"):
        VLASettings.from_dict(names)


def test_an_unknown_tower_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        build_vla(VLASettings("tiny_sigclip", "tiny_llama"))
    assert "tiny_siglip" in caught.value.do


@torch.no_grad()
def test_row_losses_are_those_of_each_row_alone(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    output = tiny_vla(tiny_batch)
    rows = output.row_losses(len(tiny_batch))
    assert rows.shape == (len(tiny_batch),)
    torch.testing.assert_close(rows.mean(), output.loss)  # every row has as many answer ids
    first = output.rows == 0
    alone = torch.nn.functional.cross_entropy(output.logits[first], output.targets[first])
    torch.testing.assert_close(rows[0], alone)
