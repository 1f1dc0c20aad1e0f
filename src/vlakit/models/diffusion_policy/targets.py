"""End-effector poses in place of steps between them: what a policy of absolute actions learns.

Inside the network alone: batches and answers are relative actions, as the data has them and the loop carries them out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError, StatisticsMissing, nearest
from vlakit.processing.linear import Linear
from vlakit.processing.normalizer import LIMITS, bounds_of
from vlakit.processing.processor import Processor
from vlakit.schema import DatasetStatistics, Inputs

POSE = 6  # x, y, z [m], roll, pitch, yaw [rad]: first columns of actions, and of proprioception
TARGETS = ("relative", "absolute")


def build_targets(name: str, processor: Processor) -> Absolute | None:
    """None: relative actions. Raises ConfigError where poses cannot be told."""
    if name not in TARGETS:
        raise ConfigError(f"targets is {name!r}", where="model.network.targets", do=nearest(name, TARGETS))
    settings = processor.settings
    if name == "relative":
        return None
    if settings.proprio < POSE or settings.normalization != LIMITS:
        raise ConfigError(
            f"absolute targets with proprio {settings.proprio} and normalization {settings.normalization}",
            where="model.network.targets",
            do=f"poses take {POSE} numbers of proprio or more, under normalization={LIMITS}; else targets=relative",
        )
    return Absolute(processor)


class Absolute(nn.Module):
    """Normalised relative actions (B, T, A) to normalised poses, by the present one, and back; grippers stay."""

    tables: Tensor

    def __init__(self, processor: Processor) -> None:
        super().__init__()
        self.past = processor.settings.window - 1  # actions before the present one
        self.rows = {name: row for row, name in enumerate(sorted(processor.statistics))}
        known = [_table(processor.statistics[name], name) for name in self.rows]
        nothing = torch.tensor([1.0, 0.0]).repeat(2)[:, None].expand(4, POSE)  # before the data is known: to be counted
        self.register_buffer("tables", torch.stack(known or [nothing]), persistent=False)  # (datasets, 4, 6)

    def there(self, normalized: Tensor, inputs: Inputs) -> Tensor:
        """(B, T, A); T begins `past` steps before the present."""
        scale, offset, pose_scale, pose_offset = self._numbers(inputs)
        travelled = ((normalized[..., :POSE] - offset) / scale).cumsum(dim=1)
        if self.past:
            travelled = travelled - travelled[:, self.past - 1 : self.past]
        poses = (self._present(inputs) + travelled) * pose_scale + pose_offset
        return torch.cat([poses, normalized[..., POSE:]], dim=-1)

    def back(self, told: Tensor, inputs: Inputs) -> Tensor:
        """(B, T, A); the first of past actions, whose start is unknown, comes back as no step."""
        scale, offset, pose_scale, pose_offset = self._numbers(inputs)
        poses, present = (told[..., :POSE] - pose_offset) / pose_scale, self._present(inputs)
        before, after = poses[:, : self.past], poses[:, self.past :]
        steps = torch.diff(after, dim=1, prepend=present)
        if self.past:
            steps = torch.cat([torch.diff(before, dim=1, prepend=before[:, :1]), steps], dim=1)
        return torch.cat([steps * scale + offset, told[..., POSE:]], dim=-1)

    def _present(self, inputs: Inputs) -> Tensor:
        """(B, 1, 6)."""
        _, _, scale, offset = self._numbers(inputs)
        if inputs.proprio is None:
            raise ConfigError("absolute targets need proprio", where="inputs", do="observe it, or targets=relative")
        return (inputs.proprio[:, -1:, :POSE] - offset) / scale

    def _numbers(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Scale and offset of actions, then of poses, each (B, 1, 6)."""
        rows = torch.tensor([self.rows.get(name, 0) for name in inputs.datasets], device=self.tables.device)
        return tuple(self.tables[rows].unsqueeze(1).unbind(dim=2))


def _table(statistics: DatasetStatistics, name: str) -> Tensor:
    """(4, 6) float32."""
    if statistics.proprio is None:
        raise StatisticsMissing("no statistics of proprio", where=name, do="convert the dataset again, or proprio=0")
    ends = (
        Linear.of_range(*bounds_of(statistics, LIMITS)),
        Linear.of_range(*(statistics.proprio[k] for k in ("min", "max"))),
    )
    rows = [torch.as_tensor(values[:POSE]) for one in ends for values in (one.scale, one.offset)]
    return torch.stack(rows).float()
