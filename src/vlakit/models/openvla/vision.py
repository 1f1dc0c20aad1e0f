"""Vision towers: features leave the block before the last, without a norm; what comes after it never learns."""

from collections.abc import Sequence

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vlakit.models.attention import quick_attention
from vlakit.models.openvla.film import conditioned_features


class VisionBackbone(nn.Module):
    """One or two timm towers over the same image, concatenated on the channels; DINOv2 comes first.

    Attribute names are those of the released checkpoints: `featurizer`, `fused_featurizer`.
    """

    def __init__(self, towers: Sequence[VisionTransformer]) -> None:
        super().__init__()
        self.featurizer = towers[0]
        self.fused_featurizer = towers[1] if len(towers) > 1 else None

    @property
    def towers(self) -> list[VisionTransformer]:
        """The towers in the order of their channels in pixel_values."""
        return [self.featurizer] if self.fused_featurizer is None else [self.featurizer, self.fused_featurizer]

    @property
    def width(self) -> int:
        """D_v, the concatenated feature width."""
        return sum(tower.embed_dim for tower in self.towers)

    @property
    def n_patches(self) -> int:
        """N, patches an image; the towers agree on it."""
        return self.featurizer.patch_embed.num_patches

    @property
    def image_size(self) -> int:
        """S, the side of the square input in pixels."""
        return self.featurizer.patch_embed.img_size[0]  # pyright: ignore[reportOptionalSubscript]  timm types it loosely

    def forward(self, pixel_values: Tensor, text: Tensor | None = None) -> Tensor:
        """(B, 3 k, S, S) -> (B, N, D_v); text (B, D): what towers with FiLM are conditioned on."""
        pairs = zip(self.towers, pixel_values.split(3, dim=1), strict=True)
        if text is None:
            return torch.cat([patch_features(tower, image) for tower, image in pairs], dim=2)
        return torch.cat([conditioned_features(tower, image, text) for tower, image in pairs], dim=2)


def patch_features(tower: VisionTransformer, image: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, N, D): output of the block before the last without prefix tokens; the rest is not run."""
    layer = len(tower.blocks) - 2
    with quick_attention():
        features: list[Tensor] = tower.forward_intermediates(  # pyright: ignore[reportAssignmentType]  typed as a union
            image, indices=[layer], norm=False, stop_early=True, output_fmt="NLC", intermediates_only=True
        )
    return features[0]  # timm >= 1.0 returns a list here (openvla issue 346)
