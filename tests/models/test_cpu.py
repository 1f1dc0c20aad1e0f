"""A linear layer on oneDNN is nn.Linear to rounding, in its outputs and in every gradient, and only where it helps."""

import copy
import pickle

import pytest
import torch
from tiny_runs import built
from torch import Tensor, nn

from vlakit.models.cpu import LEAST_PRODUCTS, Linear, runs_on_onednn, use_onednn
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.last_layer import LastLayer

SIZES = 256, 192  # with 2 x 96 rows just above the least work


def pair(*, bias: bool) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(*SIZES, bias=bias)
    other = nn.Sequential(copy.deepcopy(plain))
    use_onednn(other)
    changed = other[0]
    assert isinstance(changed, Linear)
    return plain, changed


def gradients(layer: nn.Linear, rows: Tensor) -> list[Tensor]:
    rows = rows.clone().requires_grad_()
    output = layer(rows)
    wanted = [rows, *layer.parameters()]
    return [output.detach(), *torch.autograd.grad(output.square().sum(), wanted)]


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_nn_linear(bias: bool) -> None:
    plain, changed = pair(bias=bias)
    rows = torch.randn(2, 96, SIZES[0])
    assert rows.shape[0] * rows.shape[1] * SIZES[0] * SIZES[1] >= LEAST_PRODUCTS
    for found, expected in zip(gradients(changed, rows), gradients(plain, rows), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_bfloat16_is_widened_where_the_processor_has_no_product_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    plain, changed = pair(bias=True)
    rows = torch.randn(2, 96, SIZES[0]).bfloat16()
    assert runs_on_onednn(rows, changed.bfloat16().weight)
    exact = gradients(plain.bfloat16().float(), rows.float())  # the same numbers, in float32
    for found, expected in zip(gradients(changed, rows), exact, strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected, atol=0.02 * float(expected.abs().max()), rtol=0)
    with torch.no_grad():  # rounded once, at its end: no further from float32 than bfloat16 itself is
        torch.testing.assert_close(changed(rows), plain(rows.float()).bfloat16(), atol=0, rtol=2**-7)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not runs_on_onednn(rows, changed.weight)


def test_frozen_weights_get_no_gradient_and_pass_one_on() -> None:
    _, changed = pair(bias=True)
    changed.requires_grad_(False)
    rows = torch.randn(2, 96, SIZES[0], requires_grad=True)
    changed(rows).sum().backward()
    assert changed.weight.grad is None
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad[0, 0], changed.weight.sum(dim=0))


def test_one_row_other_kinds_and_a_switched_off_backend_go_torchs_way() -> None:
    weight = torch.randn(4096, 4096)
    rows = torch.randn(64, 4096)
    assert not runs_on_onednn(rows[:1], weight)
    assert not runs_on_onednn(rows.half(), weight.half())
    assert not runs_on_onednn(rows.bfloat16()[:32], weight.bfloat16())  # to widen the weight would take longer
    assert not runs_on_onednn(rows.bfloat16(), weight)
    assert not runs_on_onednn(rows.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not runs_on_onednn(rows, weight)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not runs_on_onednn(rows, weight)


def test_a_model_keeps_its_names_and_survives_pickle(tiny_vla: OpenVLA) -> None:
    names = tiny_vla.state_dict().keys()
    use_onednn(tiny_vla)
    assert tiny_vla.state_dict().keys() == names
    assert not [name for name, module in tiny_vla.named_modules() if type(module) is nn.Linear]
    again = pickle.loads(pickle.dumps(tiny_vla.projector))
    assert again.state_dict().keys() == tiny_vla.projector.state_dict().keys()
    assert type(again.fc1) is Linear


def test_what_trains_and_what_acts_runs_on_it(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> None:
    assert type(tiny_vla.projector.fc1) is nn.Linear
    assert type(TrainedPolicy(tiny_vla, tiny_processor).network.get_submodule("projector.fc1")) is Linear
    assert type(built(LastLayer, tiny_processor).model.get_submodule("projector.fc1")) is Linear
