"""What holds for the layers of every family: adapters merge, what is quantised is multiplied, constants stay exact."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import octo_cases
import pytest
import torch
from families import FAMILIES
from models.rt1 import rt1_cases
from torch import nn

from vlakit.errors import ConfigError, PatternUnmatched, VlakitError
from vlakit.models.adapters import LoraNumbers, every_layer, inject_lora, merge_in_place
from vlakit.models.network import Network
from vlakit.models.quantize import quantizable
from vlakit.schema import Batch, DatasetStatistics, Sample

WHOLE = [name for name in FAMILIES if name != "lora"]


@pytest.fixture(params=WHOLE)
def case(
    request: pytest.FixtureRequest, bridge_statistics: DatasetStatistics, samples: list[Sample]
) -> tuple[Network, Batch]:
    network, batch = FAMILIES[request.param](bridge_statistics, samples)
    return network.eval(), batch


@torch.no_grad()
def told(network: Network, batch: Batch) -> tuple[float, torch.Tensor]:
    """Loss of a batch, and the answer to it."""
    torch.manual_seed(3)
    return float(network(batch).loss), network.predict(batch)


def test_merged_adapters_answer_as_they_did_beside_their_layers(case: tuple[Network, Batch]) -> None:
    network, batch = case
    before, _ = told(network, batch)
    inject_lora(network, LoraNumbers(2, 2, targets=every_layer(network)))
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.3)
    beside, answer = told(network, batch)
    merge_in_place(network)
    merged, again = told(network, batch)
    assert abs(beside - before) > 1e-3
    assert merged == pytest.approx(beside, rel=2e-3)
    torch.testing.assert_close(again, answer, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("family", "target"), [("rt1", "position_emb"), ("octo", "convolutions.0"), ("transformer", "out_proj")]
)
def test_a_layer_that_can_have_no_adapter_says_so(
    family: str, target: str, bridge_statistics: DatasetStatistics, samples: list[Sample]
) -> None:
    network, _ = FAMILIES[family](bridge_statistics, samples)
    with pytest.raises(PatternUnmatched, match=f"'{target}' can have no adapter"):
        inject_lora(network, LoraNumbers(2, 2, targets=(target,)))


def test_what_is_quantised_is_multiplied_and_read_by_nothing_else(case: tuple[Network, Batch]) -> None:
    network, batch = case
    called: set[str] = set()
    for path in (paths := quantizable(network)):
        network.get_submodule(path).register_forward_hook(lambda *_, path=path: called.add(path))
    with torch.inference_mode():
        network.predict(batch)
    assert set(paths) - called == set()


def test_what_is_computed_stays_exact_in_bfloat16(case: tuple[Network, Batch]) -> None:
    network, batch = case
    stored = network.state_dict().keys()
    constants = {name: copy.deepcopy(buffer) for name, buffer in network.named_buffers() if name not in stored}
    network.to(torch.bfloat16)
    assert next(network.parameters()).dtype == torch.bfloat16
    now = dict(network.named_buffers())
    assert all(torch.equal(now[name], buffer) for name, buffer in constants.items())
    assert all(now[name].dtype == buffer.dtype for name, buffer in constants.items())
    with torch.inference_mode():
        assert network.predict(batch.like(next(network.parameters()))).isfinite().all()


@pytest.mark.parametrize("width", [1, 9])
@pytest.mark.parametrize("family", ["l1", "diffusion", "octo", "rt1", "unet", "transformer"])
def test_actions_of_another_width_than_the_network_makes_are_refused_in_words(
    family: str, width: int, bridge_statistics: DatasetStatistics, samples: list[Sample]
) -> None:
    """Not broadcast, nor left to a product of matrices."""
    network, batch = FAMILIES[family](bridge_statistics, samples)
    of_width = {
        name: torch.zeros(*value.shape[:-1], width)
        for name, value in (("actions", batch.actions), ("normalized", batch.normalized), ("past", batch.past))
        if value is not None
    }
    with pytest.raises(VlakitError, match="numbers") as caught:
        network.train()(replace(batch, **of_width, action_shape=(batch.action_shape[0], width)))
    assert str(width) in caught.value.what
    assert "action_size" in f"{caught.value.where} {caught.value.do}"


@pytest.mark.parametrize(
    ("family", "names", "key"),
    [
        ("rt1", {"image_tokens": 0}, "model.network.image_tokens"),
        ("rt1", {"transformer": {"heads": 0}}, "model.network.transformer.heads"),
        ("rt1", {"transformer": {"head_width": 0}}, "model.network.transformer.head_width"),
        ("octo", {"readout_tokens": 0}, "model.network.readout_tokens"),
        ("octo", {"readout_tokens": -1}, "model.network.readout_tokens"),
        ("octo", {"layers": 0}, "model.network.layers"),
    ],
)
def test_a_size_of_nothing_is_refused_by_its_key(
    family: str, names: dict[str, Any], key: str, bridge_statistics: DatasetStatistics
) -> None:
    """Not a policy that cannot see, nor a product of empty matrices."""
    cases = {
        "rt1": (rt1_cases.processor_of, rt1_cases.network_of),
        "octo": (octo_cases.processor_of, octo_cases.octo_of),
    }
    processor_of, network_of = cases[family]
    with pytest.raises(ConfigError) as caught:
        network_of(processor_of(bridge_statistics), **names)
    assert caught.value.where == key
