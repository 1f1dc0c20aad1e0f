"""Buffers that are computed, not stored, keep their precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class ExactConstants(nn.Module):
    """An nn.Module of which what is computed and not stored stays in float32 when weights become bfloat16.

    Of the whole and of what owns it, such as a LightningModule: a part that is converted by itself is not seen. Rounded
    frequencies would turn far positions by half a radian, and a checkpoint's reader has them unrounded.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = [
            (module, name, buffer)
            for module in self.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if name in module._non_persistent_buffers_set and buffer.dtype == torch.float32
        ]
        super()._apply(fn, recurse)
        for module, name, buffer in exact:
            moved = getattr(module, name)
            if moved.dtype != buffer.dtype:
                setattr(module, name, buffer.to(moved.device))
        return self
