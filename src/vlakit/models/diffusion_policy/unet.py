"""The conditional 1-D U-Net over time. Names of its tensors are those of Diffusion Policy's ConditionalUnet1D."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.models.openvla.layers import time_embedding

FINAL_GROUPS = 8  # of the last block, whatever `groups` says: the original leaves it at its default


def conv_block(before: int, after: int, kernel: int, groups: int) -> nn.Sequential:
    """Convolution, group norm, Mish."""
    layers = nn.Conv1d(before, after, kernel, padding=kernel // 2), nn.GroupNorm(groups, after), nn.Mish()
    return nn.Sequential(OrderedDict(block=nn.Sequential(*layers)))


class ConditionalBlock(nn.Module):
    """Two convolutions about what a condition (B, G) adds to each channel; `scale`: it multiplies as well.

    The factor is `scale` itself, not 1 + scale.
    """

    def __init__(self, before: int, after: int, condition: int, kernel: int, groups: int, scale: bool) -> None:
        super().__init__()
        self.scale = scale
        self.blocks = nn.ModuleList(
            [conv_block(before, after, kernel, groups), conv_block(after, after, kernel, groups)]
        )
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, after * (2 if scale else 1)))
        self.residual_conv = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', T)."""
        change = self.cond_encoder(condition)[..., None]  # (B, C' or 2 C', 1)
        changed = self.blocks[0](x)
        if self.scale:
            factor, shift = change.chunk(2, dim=1)
            changed = factor * changed + shift
        else:
            changed = changed + change
        return self.blocks[1](changed) + self.residual_conv(x)


class Unet(nn.Module):
    """Denoises (B, T, D); T is a multiple of `step`. seen: a condition (B, G) of all steps; local: (B, T, L).

    The original has a second encoder of local conditions, whose output it never uses: here it is left out.
    """

    def __init__(
        self,
        size: int,
        *,
        seen: int = 0,
        local: int = 0,
        widths: Sequence[int] = (256, 512, 1024),
        time_width: int = 256,
        kernel: int = 5,
        groups: int = 8,
        scale: bool = True,
    ) -> None:
        super().__init__()
        _check(widths, groups, kernel, time_width)
        self.step = 2 ** (len(widths) - 1)
        condition = time_width + seen

        def block(before: int, after: int) -> ConditionalBlock:
            return ConditionalBlock(before, after, condition, kernel, groups, scale)

        self.time_width = time_width
        layers = nn.Linear(time_width, 4 * time_width), nn.Mish(), nn.Linear(4 * time_width, time_width)
        self.diffusion_step_encoder = nn.Sequential(nn.Identity(), *layers)  # the original's first is the embedding
        self.local_cond_encoder = nn.ModuleList([block(local, widths[0])] if local else [])
        self.down_modules = nn.ModuleList()
        for level, (before, after) in enumerate(pairwise([size, *widths])):
            shrink = [_sized(nn.Conv1d(after, after, 3, 2, 1))] if level < len(widths) - 1 else []
            self.down_modules.append(nn.ModuleList([block(before, after), block(after, after), *shrink]))
        self.mid_modules = nn.ModuleList([block(widths[-1], widths[-1]) for _ in range(2)])
        self.up_modules = nn.ModuleList()
        for after, before in reversed(list(pairwise(widths))):
            grow = _sized(nn.ConvTranspose1d(after, after, 4, 2, 1))
            self.up_modules.append(nn.ModuleList([block(2 * before, after), block(after, after), grow]))
        first = conv_block(widths[0], widths[0], kernel, FINAL_GROUPS)
        self.final_conv = nn.Sequential(first, nn.Conv1d(widths[0], size, 1))

    def forward(
        self, noisy: Tensor, timesteps: Tensor, seen: Tensor | None = None, local: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) at time steps (B,)."""
        condition = self.diffusion_step_encoder(time_embedding(timesteps, self.time_width).to(noisy.dtype))
        if seen is not None:
            condition = torch.cat([condition, seen], dim=1)
        added = self.local_cond_encoder[0](local.mT, condition) if local is not None else 0
        x, kept = noisy.mT, list[Tensor]()  # (B, D, T)
        down: Any = self.down_modules  # lists of modules, which torch's types do not know
        up: Any = self.up_modules
        for first, second, *shrink in down:
            x = second(first(x, condition) + added, condition)
            added = 0
            kept.append(x)
            x = shrink[0](x) if shrink else x
        for block in self.mid_modules:
            x = block(x, condition)
        for first, second, grow in up:
            x = grow(second(first(torch.cat([x, kept.pop()], dim=1), condition), condition))
        return self.final_conv(x).mT


def _sized(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=layer))


def _check(widths: Sequence[int], groups: int, kernel: int, time_width: int) -> None:
    uneven = [width for width in widths if width % groups]
    if not widths or uneven or widths[0] % FINAL_GROUPS or not kernel % 2 or time_width % 2 or time_width < 4:
        raise ConfigError(
            f"a U-Net of widths {list(widths)}, {groups} groups, kernel {kernel}, time_width {time_width}",
            where="model.network.options",
            do=f"widths are multiples of groups, the first of {FINAL_GROUPS}; kernel is odd, time_width even",
        )
