"""`vlakit bench`: frames a second of the loader, samples a second of a training step, for the run you would start."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig

from vlakit.cli.configuration import compose_config, to_plain
from vlakit.cli.here import check_device
from vlakit.cli.output import check_format, emit
from vlakit.cli.policies import policy_of

if TYPE_CHECKING:
    from vlakit.data.stream.datamodule import VLADataModule
    from vlakit.schema import Batch


def main(overrides: Sequence[str]) -> None:
    """Measure the loader alone and the step alone; their ratio says whether the loader will keep up."""
    cfg = compose_config("bench", overrides)
    check_format(cfg.format)
    check_device(cfg.device)
    import torch

    from vlakit.accounting.throughput import frames_per_second
    from vlakit.processing.processor import build_processor

    processor = build_processor(to_plain(cfg.model.processor), seed=cfg.seed)
    data: VLADataModule = instantiate(cfg.data, processor=processor, _convert_="all")
    loader = data.train_dataloader()
    loading = frames_per_second(loader, cfg.batches)
    stepping = step_rate(cfg, data, next(iter(loader)))
    device = (
        torch.cuda.get_device_name() if cfg.device.startswith("cuda") else platform.processor() or platform.machine()
    )
    report = {
        "loader_frames_per_s": loading,
        "step_samples_per_s": stepping,
        "device": device,
        "torch_threads": torch.get_num_threads(),
        "batch_size": cfg.batch_size,
        "num_workers": cfg.num_workers,
    }
    text = (
        f"loader   {loading:10,.0f} frames/s   ({cfg.num_workers} workers, batch {cfg.batch_size})\n"
        f"step     {stepping:10,.1f} samples/s  (forward, backward, optimizer on {device})\n"
        f"the loader is {loading / stepping:.1f} times as fast as the step"
    )
    emit(report, text, cfg.format)


def step_rate(cfg: DictConfig, data: VLADataModule, batch: Batch) -> float:
    """Samples a second of the strategy's whole training step on one batch, again and again."""
    import torch

    from vlakit.accounting.throughput import batches_per_second
    from vlakit.strategies.optim import parameter_groups

    policy = policy_of(cfg, data.processor)
    policy.configure_model()
    model = policy.model.to(cfg.device)
    optimizer = policy.build_optimizer(parameter_groups(model, decay_norms_and_biases=True))
    batch = batch.to(cfg.device)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        model(batch).loss.backward()
        optimizer.step()
        if cfg.device.startswith("cuda"):
            torch.cuda.synchronize()

    return batches_per_second(repeat(batch), cfg.batches, warm_up=3, use=step) * len(batch)
