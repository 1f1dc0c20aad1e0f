"""A policy's network sharded as FSDP shards it: the same loss and the same step as one process makes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.full import Full
from vlakit.strategies.optim import constant

TINY = {"kind": "openvla", "vision": "tiny_dinosiglip", "llm": "tiny_llama"}


def policy() -> Full:
    torch.manual_seed(0)
    settings = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words")
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    module = Full(network=TINY, processor=TokenProcessor(settings), optimizer=optimizer, scheduler=constant)
    module.configure_model()
    return module


def noise(module: Full) -> Batch:
    batch = module.processor.blank(2)
    batch.pixels["primary"] = torch.randn(batch.pixels["primary"].shape, generator=torch.Generator().manual_seed(1))
    return batch


def step(module: Full, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """Loss of one batch, and all parameters, whole, after one step of the strategy's optimizer."""
    optimizer = module.build_optimizer(module.trained())
    loss = module.model(batch).loss
    loss.backward()
    optimizer.step()
    named = module.model.named_parameters()
    return loss.item(), {n: (p.full_tensor() if isinstance(p, DTensor) else p).detach().clone() for n, p in named}


def shard(network: nn.Module, n_ranks: int) -> None:
    """Each layer of a tower or of the language model is a unit, what is left the root."""
    mesh = init_device_mesh("cpu", (n_ranks,))
    for module in network.modules():
        for unit in module if isinstance(module, nn.ModuleList) else ():
            fully_shard(unit, mesh=mesh)
    fully_shard(network, mesh=mesh)


def on_rank(rank: int, n_ranks: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=n_ranks)
    try:
        module = policy()
        shard(module.model, n_ranks)
        loss, parameters = step(module, noise(module))
        if rank == 0:
            torch.save({"loss": loss, "parameters": parameters}, out)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def compare(out: Path) -> None:
    sharded = torch.load(out, weights_only=True)
    module = policy()
    loss, parameters = step(module, noise(module))
    assert sharded["loss"] == pytest.approx(loss, rel=1e-6)
    for name, tensor in parameters.items():
        # AdamW's first step is the gradient's sign: where that is zero but for rounding, the step is up to 2 lr.
        torch.testing.assert_close(sharded["parameters"][name], tensor, atol=2.1e-3, rtol=0)
        moved = (sharded["parameters"][name] - tensor).abs() > 1e-6
        assert moved.float().mean() < 0.02, name


def test_a_sharded_network_makes_the_step_of_a_whole_one(tmp_path: Path) -> None:
    on_rank(0, 1, str(tmp_path / "meet"), str(tmp_path / "out.pt"))
    compare(tmp_path / "out.pt")


@pytest.mark.slow
def test_two_processes_share_the_network_and_make_the_step_of_one(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    arguments = (2, str(tmp_path / "meet"), str(tmp_path / "out.pt"))
    torch.multiprocessing.spawn(on_rank, args=arguments, nprocs=2)
    compare(tmp_path / "out.pt")
