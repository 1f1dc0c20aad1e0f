"""Small training runs on a CPU, and the 7B models on the meta device, for the tests of several packages."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import Callback, LightningModule, Trainer

from vlakit.data.stream.datamodule import VLADataModule
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.base import PolicyModule
from vlakit.strategies.optim import constant

TINY = {"kind": "openvla", "vision": "tiny_dinosiglip", "llm": "tiny_llama"}
MODULE = TypeVar("MODULE", bound=PolicyModule)


def module_of(kind: type[MODULE], processor: TokenProcessor, **options: Any) -> MODULE:
    """A strategy over the tiny model, its network not yet built."""
    options = {"network": TINY, "optimizer": partial(torch.optim.AdamW, lr=1e-3), "scheduler": constant} | options
    return kind(processor=processor, **options)


def built(kind: type[MODULE], processor: TokenProcessor, *, seed: int = 0, **options: Any) -> MODULE:
    """The same with its network, seeded."""
    torch.manual_seed(seed)
    module = module_of(kind, processor, **options)
    module.configure_model()
    return module


def saved(module: PolicyModule, file: Path) -> Path:
    """A checkpoint as Lightning writes it, without a trainer's state."""
    content: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    torch.save(content, file)
    return file


@lru_cache
def meta_vla(vision: str) -> OpenVLA:
    """The 7B model with these towers; shared, so set what trains before each use."""
    return build_vla(VLASettings(vision, "llama2_7b"), device="meta")


@lru_cache
def meta_lora(vision: str, rank: int) -> OpenVLA:
    """A 7B model with adapters; shared."""
    model = build_vla(VLASettings(vision, "llama2_7b"), device="meta")
    inject_lora(model, LoraNumbers(rank, min(rank, 16)))
    return model


class Trace(Callback):
    """The loss and the samples of every batch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.keys: list[list[str]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        self.keys.append(batch.keys)


def trainer_of(n_steps: int, *callbacks: Callback, **options: Any) -> Trainer:
    """A quiet trainer on one CPU that runs so many optimizer steps and validates never, unless told to."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = {"accelerator": "cpu", "enable_model_summary": False, "limit_val_batches": 0} | quiet | options
    return Trainer(max_steps=n_steps, callbacks=list(callbacks), **options)


def data_of(shards: Path, processor: TokenProcessor, **options: Any) -> VLADataModule:
    """The shipped sample in batches of four."""
    options = {"batch_size": 4, "seed": 5} | options
    return VLADataModule(processor, {"bridge_orig": 1.0}, str(shards.parent), **options)
