"""A network spread over devices: FSDP2 by Lightning's model-parallel strategy, block by block of what the network says.

Weights, gradients and the optimizer's moments are shared out; a block is whole only while it is at work. Checkpoints
are gathered in the first process into the ordinary file, which any number of processes goes on from. It cannot be
left in parts, one a process: torch reads those back with pickle, which may hold code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightning import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from vlakit.checkpoints.file import read_checkpoint
from vlakit.errors import ConfigError
from vlakit.models.network import Network

WHOLE = {  # attribute of a policy -> what reads or writes whole tensors behind the strategy's back
    "feature_cache": "strategy.feature_cache hashes the encoder",
    "ema": "an average (strategy.ema) changes places with the weights",
    "adapter_only": "strategy.adapter_only=true completes a checkpoint with its base",
}
CALLED = ("predict", "sample", "log_prob", "answer", "distribution", "representations", "features")  # besides forward


class FullySharded(ModelParallelStrategy):
    """Every process holds its share of each block. backend: of torch.distributed; None: nccl on GPUs, gloo on CPUs.

    The optimizer's state is numbered by its own groups in a file, as of one process; Lightning numbers it by the
    network's parameters, which is another order as soon as some of them do not train or do not decay.
    """

    def __init__(self, backend: str | None = None) -> None:
        super().__init__(process_group_backend=backend, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Through `load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        """All processes share one network; none is split within a layer. Raises ConfigError."""
        check_shardable(self.lightning_module)
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole in the first process; the others help to gather it."""

        def gathered(value: Any) -> Any:
            if not isinstance(value, DTensor):
                return value
            whole = value.full_tensor()
            return whole.cpu() if self.is_global_zero else None

        return tree_map(gathered, optimizer.state_dict())

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Mapped: each process reads what it keeps. Raises CheckpointMismatch."""
        return read_checkpoint(self.broadcast(checkpoint_path), mmap=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Each tensor's share."""
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(cast("LightningModule", self.model), checkpoint["state_dict"], options=options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Each moment's share."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
            shares = {
                number: {key: _share(value, parameters[number]) for key, value in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})


def _share(value: Any, parameter: Tensor) -> Any:
    """Of a moment as its parameter is shared out; counts of steps, which every process has, as they are."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


def check_shardable(policy: LightningModule | None) -> None:
    """Raise ConfigError for a policy that needs whole weights in every process."""
    for attribute, why in WHOLE.items():
        if getattr(policy, attribute, None):
            do = "trainer=ddp where the network fits on one device, or without it"
            raise ConfigError(f"not with a network spread over devices: {why}", where="trainer=fsdp", do=do)


def shard(network: Network, mesh: DeviceMesh) -> None:
    """Spread a network, the same in every process, over a mesh of one dimension; its blocks first, then the rest.

    It is trained before it answers in inference mode: nothing can be learnt through tensors that were made in that.
    """
    options: dict[str, Any] = {"mesh": mesh}
    for block in network.blocks:
        fully_shard(block, **options)
    fully_shard(network, **options)
    for name in CALLED:
        if hasattr(network, name):
            register_fsdp_forward_method(network, name)
