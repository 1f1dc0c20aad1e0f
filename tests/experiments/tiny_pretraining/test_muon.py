"""Muon for hidden matrices, AdamW for the rest: torch's own two side by side, as one optimizer."""

import copy

import pytest
import torch
from tiny_recipe.muon import MuonAdamW, is_hidden_matrix
from torch import nn

from vlakit.models.openvla.vla import OpenVLA
from vlakit.schema import Batch
from vlakit.strategies.optim import parameter_groups


def optimizer_of(model: nn.Module, **options: float) -> MuonAdamW:
    return MuonAdamW(parameter_groups(model, decay_norms_and_biases=False), 1e-3, **options)  # pyright: ignore[reportArgumentType]


def test_it_moves_every_parameter_as_torchs_two_optimizers_do(tiny_vla: OpenVLA, tiny_batch: Batch) -> None:
    del tiny_vla.language_model.model.layers[1:]  # one of each kind: Muon takes a second over all of them
    for tower in tiny_vla.vision_backbone.towers:
        del tower.blocks[:-2]  # the last one's output is not used, so no gradient reaches it
    tiny_vla(tiny_batch).loss.backward()
    twin = copy.deepcopy(tiny_vla)
    for p, q in zip(tiny_vla.parameters(), twin.parameters(), strict=True):
        q.grad = None if p.grad is None else p.grad.clone()
    both = ([p for n, p in twin.named_parameters() if is_hidden_matrix(n, p) == hidden] for hidden in (True, False))
    muon, adamw = (
        torch.optim.Muon(next(both), lr=1e-3, weight_decay=0),
        torch.optim.AdamW(next(both), lr=5e-4, betas=(0.9, 0.95), weight_decay=0),
    )
    own = optimizer_of(tiny_vla, adamw_share=0.5)
    for _ in range(2):
        for optimizer in (own, muon, adamw):
            optimizer.step()
    for (name, p), q in zip(tiny_vla.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5, msg=name)


def test_embeddings_head_convolutions_and_vectors_are_adamws(tiny_vla: OpenVLA) -> None:
    hidden = {name for name, p in tiny_vla.named_parameters() if is_hidden_matrix(name, p)}
    assert "projector.fc1.weight" in hidden
    assert "language_model.model.layers.0.mlp.up_proj.weight" in hidden
    apart = ("lm_head", "embed_tokens", "patch_embed", "pos_embed", "norm", "bias")
    assert not [name for name in hidden if any(part in name for part in apart)]


def test_a_restored_optimizer_goes_on_exactly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    twin, x = copy.deepcopy(model), torch.randn(5, 4)

    def step(net: nn.Module, optimizer: MuonAdamW) -> None:
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()

    first = optimizer_of(model)
    for _ in range(2):
        step(model, first)
    twin.load_state_dict(model.state_dict())
    second = optimizer_of(twin)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(model, first)
    step(twin, second)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_each_kind_has_its_own_rate(share: float) -> None:
    rates = {group["muon"]: group["lr"] for group in optimizer_of(nn.Linear(3, 3), adamw_share=share).param_groups}
    assert rates == {True: 1e-3, False: pytest.approx(1e-3 * share)}
