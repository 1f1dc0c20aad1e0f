"""Action metrics of any network: L1, normalised and in physical units, and its own marks; over all and per dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from vlakit.models.network import Output, row_means
from vlakit.processing.normalizer import bounds_of, mask_of
from vlakit.processing.processor import Processor
from vlakit.schema import Batch
from vlakit.strategies.ranks import of_all_ranks

# The seven dimensions of an end-effector action, in the units of the glossary.
PHYSICAL_PARTS = {"l1_position_m": slice(0, 3), "l1_rotation_rad": slice(3, 6), "l1_gripper": slice(6, 7)}


class ActionMetrics(nn.Module):
    """Accumulates over batches: `l1`, `l1_position_m`, the network's scores, and each again with `/<dataset>`.

    L1 is between predicted and recorded action, teacher-forced, over actions that exist: no padding, no rows without.
    """

    means: nn.ModuleDict

    def __init__(self, processor: Processor) -> None:
        super().__init__()
        self.datasets = sorted(processor.statistics)
        self.means = nn.ModuleDict()
        stats = [processor.statistics[name] for name in self.datasets]
        bounds = [bounds_of(one, processor.settings.normalization) for one in stats]
        columns = {
            "low": [low for low, _ in bounds],
            "high": [high for _, high in bounds],
            "mask": [mask_of(one, processor.settings.normalization) for one in stats],
        }
        for field, values in columns.items():
            stacked = torch.stack([torch.as_tensor(one) for one in values]) if stats else torch.zeros(0)
            self.register_buffer(field, stacked, persistent=False)  # (datasets, A)

    @torch.no_grad()
    def batch_values(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Per row of the batch, (B,): the metrics of its actions that are not padding; NaN in rows without one.

        Empty where no row has an action.
        """
        if not batch.chunk_mask.any():
            return {}
        if output.predicted is None:
            return dict(output.scores)
        predicted, mask = output.predicted, batch.chunk_mask
        values = {**output.scores, "l1": row_means((predicted - batch.normalized).abs(), mask)}
        distance = (self._physical(predicted, batch.datasets) - batch.actions).abs()
        parts: Mapping[str, slice] = PHYSICAL_PARTS if distance.shape[-1] == 7 else {"l1_physical": slice(None)}
        return values | {name: row_means(distance[..., part], mask) for name, part in parts.items()}

    def row_values(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The same with `loss` of every row, and `answer_accuracy` of those that are answered in words."""
        words = {} if output.answered is None else {"answer_accuracy": output.answered}
        return {"loss": output.row_losses, **self.batch_values(output, batch), **words}

    def update(self, values: Mapping[str, Tensor], datasets: list[str]) -> None:
        """Add per-row values (B,) to the running means; NaN says that a row has none.

        The means over all are those of the datasets that have actions: questions count for their own source alone.
        """
        own = {"", *(self.datasets or datasets)}
        for name, rows in values.items():
            for dataset in ("", *sorted(set(datasets))):
                counted = own if dataset == "" else {dataset}
                kept = [bool(row == row) and d in counted for row, d in zip(rows.tolist(), datasets, strict=True)]
                if any(kept):
                    self._mean(f"{name}/{dataset}" if dataset else name).update(rows[kept])

    @staticmethod
    def by_source(values: Mapping[str, Tensor], datasets: list[str]) -> dict[str, Tensor]:
        """`<name>/<dataset>`: the mean of per-row values (B,) over the rows of each that have one."""
        means: dict[str, Tensor] = {}
        for name, rows in values.items():
            for dataset in sorted(set(datasets)):
                mine = rows[[number for number, one in enumerate(datasets) if one == dataset]]
                if not mine.isnan().all():
                    means[f"{name}/{dataset}"] = mine.nanmean()
        return means

    def compute(self) -> dict[str, Tensor]:
        """All means since the last reset, over all processes.

        Each mean is gathered by itself, so all must ask for the same ones in one order, whatever rows they have seen.
        """
        names = sorted({name.replace("|", ".") for seen in of_all_ranks(list(self.means)) for name in seen})
        return {name: self._mean(name).compute() for name in names}

    def reset(self) -> None:
        """Forget everything seen."""
        self.means = nn.ModuleDict()

    def _mean(self, name: str) -> MeanMetric:
        key = name.replace(".", "|")  # a ModuleDict allows no dot
        if key not in self.means:
            self.means[key] = mean = MeanMetric().to(cast(Tensor, self.mask).device)
            mean.update(0.0, weight=0.0)  # one that another process alone has rows for is gathered without a warning
        return cast(MeanMetric, self.means[key])

    def _physical(self, normalized: Tensor, datasets: list[str]) -> Tensor:
        # A row without an action may be of no known dataset; whatever it is given here, it counts nowhere.
        known = {name: row for row, name in enumerate(self.datasets)}
        rows = torch.tensor([known.get(name, 0) for name in datasets], device=normalized.device)
        low, high, mask = (getattr(self, field)[rows][:, None] for field in ("low", "high", "mask"))  # (B, 1, A)
        return torch.where(mask, 0.5 * (normalized + 1) * (high - low) + low, normalized)
