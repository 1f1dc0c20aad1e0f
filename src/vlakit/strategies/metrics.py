"""Action metrics from logits: token accuracy and L1 in normalised and in physical units, over all and per dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from vlakit.models.openvla.vla import VLAOutput
from vlakit.processing.processor import VLAProcessor
from vlakit.schema import Batch

# The seven dimensions of an end-effector action, in the units of the glossary.
PHYSICAL_PARTS = {"l1_position_m": slice(0, 3), "l1_rotation_rad": slice(3, 6), "l1_gripper": slice(6, 7)}


class ActionMetrics(nn.Module):
    """Accumulates over batches: `token_accuracy`, `l1`, `l1_position_m` ... and each again with `/<dataset>` behind it.

    L1 is between bin centres and the recorded action, teacher-forced, over actions that exist (no padding).
    """

    centers: Tensor  # (bins,)
    means: nn.ModuleDict

    def __init__(self, processor: VLAProcessor) -> None:
        super().__init__()
        self.datasets = sorted(processor.statistics)
        self.tokens = processor.actions
        self.means = nn.ModuleDict()
        stats = [processor.statistics[name] for name in self.datasets]
        for field in ("q01", "q99", "mask"):
            values = torch.stack([torch.as_tensor(getattr(s, field)) for s in stats]) if stats else torch.zeros(0)
            self.register_buffer(field, values, persistent=False)  # (datasets, A)
        self.register_buffer("centers", torch.as_tensor(self.tokens.centers), persistent=False)

    def batch_values(self, output: VLAOutput, batch: Batch) -> dict[str, Tensor]:
        """Per row of the batch, (B,): the metrics of its actions that are not padding."""
        is_action = (output.targets >= self.tokens.begin) & (output.targets < self.tokens.padding_id)
        predicted_ids = output.logits.argmax(dim=-1)[is_action].view(batch.actions.shape)  # (B, H, A)
        targets = output.targets[is_action].view(batch.actions.shape)
        weight = batch.chunk_mask.to(torch.float64)  # (B, H)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
        bins = (self.tokens.padding_id - predicted_ids - 1).clamp(0, len(self.centers) - 1)
        predicted = self.centers[bins]

        def mean(values: Tensor) -> Tensor:
            return (values.double().mean(dim=-1) * weight).sum(dim=1)  # (B, H, A) -> (B,)

        values = {
            "token_accuracy": mean((predicted_ids == targets).double()),
            "l1": mean((predicted - batch.normalized).abs()),
        }
        distance = (self._physical(predicted, batch.datasets) - batch.actions).abs()
        parts: Mapping[str, slice] = PHYSICAL_PARTS if distance.shape[-1] == 7 else {"l1_physical": slice(None)}
        return values | {name: mean(distance[..., part]) for name, part in parts.items()}

    def update(self, values: Mapping[str, Tensor], datasets: list[str]) -> None:
        """Add per-row values (B,) to the running means."""
        for name, rows in values.items():
            self._mean(name).update(rows)
            for dataset in set(datasets):
                self._mean(f"{name}/{dataset}").update(rows[[d == dataset for d in datasets]])

    def compute(self) -> dict[str, Tensor]:
        """All means since the last reset."""
        return {name.replace("|", "."): cast(MeanMetric, mean).compute() for name, mean in self.means.items()}

    def reset(self) -> None:
        """Forget everything seen."""
        self.means = nn.ModuleDict()

    def _mean(self, name: str) -> MeanMetric:
        key = name.replace(".", "|")  # a ModuleDict allows no dot
        if key not in self.means:
            self.means[key] = MeanMetric().to(self.centers.device)
        return cast(MeanMetric, self.means[key])

    def _physical(self, normalized: Tensor, datasets: list[str]) -> Tensor:
        rows = torch.tensor([self.datasets.index(name) for name in datasets], device=normalized.device)
        q01, q99, mask = (getattr(self, field)[rows][:, None] for field in ("q01", "q99", "mask"))  # (B, 1, A)
        return torch.where(mask, 0.5 * (normalized + 1) * (q99 - q01) + q01, normalized)
