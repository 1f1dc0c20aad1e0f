"""The convolutional stem stands where timm's patch embedding would."""

import torch

from vlakit.models.openvla.backbones import VISION
from vlakit.models.openvla.stem import ConvStem
from vlakit.models.openvla.vla import OpenVLA


@torch.no_grad()
def test_patches_are_in_reading_order() -> None:
    torch.manual_seed(0)
    stem, image = ConvStem().eval(), torch.zeros(1, 3, 64, 64)
    plain = stem(image)
    image[:, :, 40:44, 20:24] = 3  # patch row 2, column 1
    changed = (stem(image) - plain).norm(dim=-1)[0]
    assert changed.argmax() == 2 * 4 + 1


@torch.no_grad()
def test_the_order_of_bytes_in_memory_changes_nothing() -> None:
    stem, image = ConvStem().eval(), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(stem(image.contiguous(memory_format=torch.channels_last)), stem(image))


def test_it_makes_as_many_patches_as_it_says() -> None:
    stem = ConvStem()
    assert stem(torch.zeros(1, 3, 64, 64)).shape == (1, stem.num_patches, 96)


def test_small_towers_begin_with_it() -> None:
    assert all(isinstance(tower.patch_embed, ConvStem) for tower in VISION.build("tiny_dinosiglip").towers)


def test_the_tiny_model_stays_below_its_size(tiny_vla: OpenVLA) -> None:
    assert sum(p.numel() for p in tiny_vla.parameters()) <= 2_400_000
