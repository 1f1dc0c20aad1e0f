"""Projector shapes of the released models."""

import pytest
import torch

from vlakit.models.openvla.projector import Projector


@pytest.mark.parametrize(("width", "fused", "millions"), [(2176, True, 71.386), (1152, False, 21.504)])
def test_sizes_are_those_of_the_released_models(width: int, fused: bool, millions: float) -> None:
    with torch.device("meta"):
        projector = Projector(width, 4096, fused=fused)
    assert sum(p.numel() for p in projector.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)
    assert projector(torch.empty(2, 256, width, device="meta")).shape == (2, 256, 4096)


def test_names_are_those_of_the_released_checkpoints() -> None:
    names = {name for name, _ in Projector(4, 4, fused=True).named_parameters()}
    assert names == {f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}
    assert not any(name.startswith("fc3") for name, _ in Projector(4, 4, fused=False).named_parameters())


@torch.no_grad()
def test_gelu_stands_between_the_layers_and_not_behind_the_last() -> None:
    projector = Projector(6, 5, fused=True)
    x, gelu = torch.randn(1, 3, 6), torch.nn.functional.gelu
    assert projector.fc3 is not None
    torch.testing.assert_close(projector(x), projector.fc3(gelu(projector.fc2(gelu(projector.fc1(x))))))
