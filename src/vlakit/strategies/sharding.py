"""A network spread over devices: FSDP2 by Lightning's model-parallel strategy, block by block of what the network says.

Weights, gradients and the optimizer's moments are shared out; a block is whole only while it is at work. Checkpoints
are gathered in the first process into the ordinary file, which any number of processes goes on from. It cannot be
left in parts, one a process: torch reads those back with pickle, which may hold code.
"""

from __future__ import annotations

from typing import Any

from lightning import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from vlakit.errors import ConfigError
from vlakit.models.network import Network

WHOLE = {  # attribute of a policy -> what reads or writes whole tensors behind the strategy's back
    "feature_cache": "strategy.feature_cache hashes the encoder",
    "ema": "an average (strategy.ema) changes places with the weights",
    "adapter_only": "strategy.adapter_only=true completes a checkpoint with its base",
}
CALLED = ("predict", "sample", "log_prob", "answer", "distribution", "representations", "features")  # besides forward


class FullySharded(ModelParallelStrategy):
    """Every process holds its share of each block. backend: of torch.distributed; None: nccl on GPUs, gloo on CPUs."""

    def __init__(self, backend: str | None = None) -> None:
        super().__init__(process_group_backend=backend, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """All processes share one network; none is split within a layer. Raises ConfigError."""
        check_shardable(self.lightning_module)
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()


def check_shardable(policy: LightningModule | None) -> None:
    """Raise ConfigError for a policy that needs whole weights in every process."""
    for attribute, why in WHOLE.items():
        if getattr(policy, attribute, None):
            do = "trainer=ddp where the network fits on one device, or without it"
            raise ConfigError(f"not with a network spread over devices: {why}", where="trainer=fsdp", do=do)


def shard(network: Network, mesh: DeviceMesh) -> None:
    """Spread a network, the same in every process, over a mesh of one dimension; its blocks first, then the rest."""
    options: dict[str, Any] = {"mesh": mesh}
    for block in network.blocks:
        fully_shard(block, **options)
    fully_shard(network, **options)
    for name in CALLED:
        if hasattr(network, name):
            register_fsdp_forward_method(network, name)
