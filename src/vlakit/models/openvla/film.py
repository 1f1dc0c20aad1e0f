"""FiLM: every block of the towers is scaled and shifted by what the instruction says. Source: Kim et al. 2025, OFT+."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vlakit.models.attention import quick_attention


class Modulation(nn.Linear):
    """The mean of the text (B, D) to a number for each channel of a block (B, D_v); zero at first: nothing changes."""

    def reset_parameters(self) -> None:
        """Zeros."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


def add_film(towers: Sequence[VisionTransformer], text_width: int) -> None:
    """Give every block its `scale` and `shift`, the last one too, which is never run: released files hold them."""
    for tower in towers:
        for block in tower.blocks:
            for name in ("scale", "shift"):
                block.add_module(name, Modulation(text_width, tower.embed_dim))


def conditioned_features(tower: VisionTransformer, image: Tensor, text: Tensor) -> Tensor:
    """(B, 3, S, S) and the mean of the text (B, D) -> (B, N, D_v), as `patch_features` without a text."""
    with quick_attention():
        hidden = tower.patch_drop(tower._pos_embed(tower.patch_embed(image)))
        hidden = tower.norm_pre(hidden)
        for block in list(tower.blocks)[:-1]:
            hidden = _modulated(cast(Any, block), hidden, text)
    return hidden[:, tower.num_prefix_tokens :]


def _modulated(block: Any, hidden: Tensor, text: Tensor) -> Tensor:
    """Attention, then x (1 + scale) + shift, then the MLP."""
    hidden = hidden + block.drop_path1(block.ls1(block.attn(block.norm1(hidden))))
    hidden = hidden * (1 + block.scale(text)[:, None]) + block.shift(text)[:, None]
    return hidden + block.drop_path2(block.ls2(block.mlp(block.norm2(hidden))))
