"""Every family's network can be spread over devices: block by block it trains and answers as it did whole."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from families import FAMILIES
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from vlakit.errors import ConfigError
from vlakit.models.network import Network
from vlakit.schema import Batch, DatasetStatistics, Sample
from vlakit.strategies.optim import parameter_groups
from vlakit.strategies.sharding import FullySharded, check_shardable, shard


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    """Of this process alone: the same gathering and sharing out as among many."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


def results(network: Network, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of a step of training, and an answer behind it."""
    torch.manual_seed(3)
    loss = network(batch).loss
    loss.backward()
    grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    grads = {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in grads.items()}
    torch.manual_seed(4)
    return loss.detach(), network.predict(batch), grads


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_in_blocks_is_the_whole_one(
    family: str, mesh: DeviceMesh, bridge_statistics: DatasetStatistics, samples: list[Sample]
) -> None:
    network, batch = FAMILIES[family](bridge_statistics, samples)
    whole = deepcopy(network)
    n_blocks = len(network.blocks)
    shard(network, mesh)
    assert all(isinstance(p, DTensor) for p in network.parameters())
    assert len(network.blocks) == n_blocks
    assert n_blocks or family in ("unet", "toy")
    (loss, answers, grads), (loss_there, answers_there, grads_there) = (results(n, batch) for n in (whole, network))
    torch.testing.assert_close(loss_there, loss)
    torch.testing.assert_close(answers_there, answers)
    assert grads.keys() == grads_there.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grads_there[name], grad, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize(
    ("attribute", "value", "word"),
    [("feature_cache", "somewhere", "feature_cache"), ("ema", object(), "average"), ("adapter_only", True, "base")],
)
def test_what_needs_whole_weights_is_refused_in_words(attribute: str, value: Any, word: str) -> None:
    policy: Any = SimpleNamespace(**{attribute: value})
    with pytest.raises(ConfigError, match=word):
        check_shardable(policy)
    check_shardable(SimpleNamespace(**{attribute: None}))  # pyright: ignore[reportArgumentType]


def stepped(network: Network, batch: Batch) -> torch.optim.Optimizer:
    """AdamW's state behind a step, in groups with and without decay and with a frozen part before them."""
    next(network.parameters()).requires_grad_(False)
    optimizer = torch.optim.AdamW(parameter_groups(network, decay_norms_and_biases=False))  # pyright: ignore[reportArgumentType]
    network(batch).loss.backward()
    optimizer.step()
    return optimizer


def test_moments_are_numbered_in_a_file_as_those_of_one_process(
    mesh: DeviceMesh, bridge_statistics: DatasetStatistics, samples: list[Sample]
) -> None:
    network, batch = FAMILIES["octo"](bridge_statistics, samples)
    there = deepcopy(network)
    shard(there, mesh)
    plain, spread, strategy = stepped(network, batch), stepped(there, batch), FullySharded()
    assert len(plain.param_groups) == 2
    written = strategy.optimizer_state(spread)
    torch.testing.assert_close(written["state"], plain.state_dict()["state"])
    assert [group["params"] for group in written["param_groups"]] == [
        g["params"] for g in plain.state_dict()["param_groups"]
    ]
    anew = torch.optim.AdamW(parameter_groups(there, decay_norms_and_biases=False))  # pyright: ignore[reportArgumentType]
    strategy.optimizers = [anew]
    strategy.load_optimizer_state_dict({"optimizer_states": [plain.state_dict()]})
    assert all(isinstance(one["exp_avg"], DTensor) for one in anew.state.values())
    torch.testing.assert_close(strategy.optimizer_state(anew)["state"], plain.state_dict()["state"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_and_answers_in_bfloat16(
    family: str, bridge_statistics: DatasetStatistics, samples: list[Sample]
) -> None:
    network, batch = FAMILIES[family](bridge_statistics, samples)
    network.to(torch.bfloat16)
    batch = batch.like(next(network.parameters()))
    loss = network(batch).loss
    loss.backward()
    assert loss.isfinite()
    assert network.eval().predict(batch).isfinite().all()
