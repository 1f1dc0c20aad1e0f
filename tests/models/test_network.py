"""Any network can be a policy's: built by name, asked for what it can do, and never chosen by a file unasked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import TINY, built, saved
from toy_network import ToyNetwork

from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.errors import CheckpointMismatch, PartMissing, UnknownName
from vlakit.models.network import (
    HasFeatures,
    Likelihood,
    build_empty,
    build_network,
    capability,
    is_trusted,
    refuse_code,
    row_means,
)
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import TrainedPolicy
from vlakit.processing.processor import Processor
from vlakit.processing.settings import ProcessorSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Observation
from vlakit.strategies.full import Full

TOY = {"kind": "toy_network:ToyNetwork", "n_actions": 7}


@pytest.fixture
def pictures(bridge_statistics: DatasetStatistics) -> Processor:
    settings = ProcessorSettings(image_size=16, channel_statistics=("half",), chunk=2)
    return Processor(settings, {"bridge_orig": bridge_statistics})


@pytest.fixture
def toy(pictures: Processor) -> TrainedPolicy:
    return TrainedPolicy(build_network(TOY, pictures), pictures)


@pytest.fixture
def observations() -> list[Observation]:
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    return [Observation.of(image, "lift the pot") for image in images]


def test_a_network_knows_from_what_it_was_built(pictures: Processor) -> None:
    network = build_network(TOY, pictures)
    assert isinstance(network, ToyNetwork)
    assert network.description == TOY
    assert build_empty(network.description, pictures).regressor.weight.shape == network.regressor.weight.shape


def test_settings_that_were_left_out_stay_left_out(pictures: Processor) -> None:
    assert build_network({"kind": TOY["kind"]}, pictures).description == {"kind": TOY["kind"]}


def test_two_networks_do_not_share_their_settings(pictures: Processor) -> None:
    wide, narrow = (build_network(TOY | {"n_actions": n}, pictures) for n in (9, 7))
    assert (wide.settings, narrow.settings) == ({"n_actions": 9}, {"n_actions": 7})


def test_a_description_without_a_kind_names_the_kinds(pictures: Processor) -> None:
    with pytest.raises(CheckpointMismatch, match="kind is not given") as caught:
        build_network({"vision": "tiny_siglip"}, pictures)
    assert "openvla" in caught.value.do


@pytest.mark.parametrize("kind", ["opnvla", "toy_network:ToyNetwrk", "no_such_module:Net"])
def test_an_unknown_kind_is_named(kind: str, pictures: Processor) -> None:
    with pytest.raises(UnknownName, match=kind) as caught:
        build_network({"kind": kind}, pictures)
    assert caught.value.do


@pytest.mark.parametrize("settings", [{"widht": 3}, {"processor": 1}], ids=["unknown", "given already"])
def test_a_setting_that_the_constructor_does_not_take_is_named(settings: dict[str, int], pictures: Processor) -> None:
    with pytest.raises(CheckpointMismatch, match="cannot be built") as caught:
        build_network(TOY | settings, pictures)
    (name,) = settings
    assert name in caught.value.what
    assert name in caught.value.where


def test_a_setting_that_is_lacking_is_named(tiny_processor: TokenProcessor) -> None:
    with pytest.raises(CheckpointMismatch, match="'llm'"):
        build_network({"kind": "openvla", "vision": "tiny_siglip"}, tiny_processor)


@pytest.mark.parametrize("kind", ["toy_network:no_network", "math:pi", "builtins:dict"])
def test_what_is_no_network_is_refused(kind: str, pictures: Processor) -> None:
    with pytest.raises(CheckpointMismatch) as caught:
        build_network({"kind": kind}, pictures)
    assert kind in caught.value.what
    assert caught.value.do


@pytest.mark.parametrize("trusted", ["a", "a.b", "a.b.c", "a.b.c:Net"])
def test_a_package_a_module_or_the_full_name_is_trusted(trusted: str) -> None:
    assert is_trusted("a.b.c:Net", [trusted])
    refuse_code({"kind": "a.b.c:Net"}, where="a.ckpt", trusted=[trusted])


@pytest.mark.parametrize("trusted", ["", "b", "a.", "a.b.c:Other", "a.b.cd", "a.b.c.d", "aa", "*"])
def test_nothing_else_is(trusted: str) -> None:
    assert not is_trusted("a.b.c:Net", [trusted])
    with pytest.raises(CheckpointMismatch, match=r"code outside vlakit: a\.b\.c:Net") as caught:
        refuse_code({"kind": "a.b.c:Net", "width": 3}, where="a.ckpt", trusted=[trusted])
    assert caught.value.where == "a.ckpt"
    assert "trusted=[a]" in caught.value.do


def test_names_of_vlakits_own_are_no_code() -> None:
    refuse_code({"kind": "openvla", "vision": "tiny_siglip", "vision_options": {}, "rank": 2}, where="a.ckpt")


def test_all_foreign_names_are_said_and_their_packages(pictures: Processor) -> None:
    with pytest.raises(CheckpointMismatch, match=r"one:f, two\.m:g") as caught:
        refuse_code({"vision": "two.m:g", "kind": "one:f", "llm": "three:h"}, where="", trusted=["three"])
    assert "trusted=[one,two]" in caught.value.do


def test_a_capability_that_a_network_has_is_itself(tiny_vla: OpenVLA) -> None:
    assert capability(tiny_vla, Likelihood, purpose="sampling") is tiny_vla
    assert capability(tiny_vla, HasFeatures, purpose="features") is tiny_vla


def test_a_policy_without_a_capability_refuses_in_words(toy: TrainedPolicy, observations: list[Observation]) -> None:
    requests: dict[str, Any] = {
        "sampling needs Likelihood": lambda: toy.sample(observations),
        "log_prob needs Likelihood": lambda: toy.log_prob(observations, np.zeros((2, 7), int)),
        "features needs HasFeatures": lambda: toy.features(observations),
    }
    for words, request in requests.items():
        with pytest.raises(PartMissing, match=words) as caught:
            request()
        assert "toy_network:ToyNetwork" in caught.value.what
        assert "models.network." in caught.value.do


def test_an_open_vocabulary_needs_a_vocabulary(toy: TrainedPolicy, pictures: Processor) -> None:
    with pytest.raises(PartMissing, match="constrain=false") as caught:
        TrainedPolicy(toy.network, pictures, constrain=False)
    assert "toy_network:ToyNetwork" in caught.value.what


def test_any_network_acts_in_physical_units(
    toy: TrainedPolicy, observations: list[Observation], bridge_statistics: DatasetStatistics
) -> None:
    with torch.no_grad():
        toy.network.get_parameter("regressor.weight").zero_()
        toy.network.get_parameter("regressor.bias").zero_()
    actions = toy.act(observations)
    assert actions.shape == (2, 2, 7)
    middle = (bridge_statistics.q01 + bridge_statistics.q99) / 2
    np.testing.assert_allclose(actions[..., :6], np.broadcast_to(middle[:6], (2, 2, 6)), rtol=1e-6)
    assert (actions[..., 6] == 0).all()


def test_a_checkpoint_of_outside_code_loads_only_when_trusted_and_acts_the_same(
    pictures: Processor, observations: list[Observation], tmp_path: Path
) -> None:
    module = built(Full, pictures, network=TOY)  # pyright: ignore[reportArgumentType]
    expected = TrainedPolicy(module.model, pictures).act(observations)
    file = saved(module, tmp_path / "toy.ckpt")
    with pytest.raises(CheckpointMismatch, match="toy_network:ToyNetwork") as caught:
        TrainedPolicy.from_checkpoint(file)
    assert caught.value.where == str(file)
    assert "trusted=[toy_network]" in caught.value.do
    policy = TrainedPolicy.from_checkpoint(file, options=LoadOptions(trusted=("toy_network",)))
    assert policy.card.network == TOY
    assert policy.card.processor == pictures.description
    assert np.array_equal(policy.act(observations), expected)


def test_the_layout_of_another_family_is_refused_and_a_ckpt_is_written(
    pictures: Processor, observations: list[Observation], tmp_path: Path
) -> None:
    trusted = LoadOptions(trusted=("toy_network",))
    loaded = load(saved(built(Full, pictures, network=TOY), tmp_path / "a.ckpt"), trusted)  # pyright: ignore
    with pytest.raises(PartMissing, match="Hugging Face OpenVLA layout has no place") as caught:
        export(loaded, tmp_path / "hf", "hf", ExportOptions())
    assert "layout=ckpt" in caught.value.do
    assert not (tmp_path / "hf").exists()
    export(replace(loaded), tmp_path / "out", "ckpt", ExportOptions())
    again = TrainedPolicy.from_checkpoint(tmp_path / "out", options=trusted)
    expected = TrainedPolicy(loaded.network, loaded.processor).act(observations)
    assert np.array_equal(again.act(observations), expected)


def test_row_means_are_over_what_exists() -> None:
    values = torch.tensor([[[1.0, 3.0], [100.0, 100.0]], [[1.0, 1.0], [3.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]]])
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    means = row_means(values, mask)
    assert means[:2].tolist() == [2.0, 2.0]
    assert means[2].isnan()


def test_the_shipped_kind_is_openvla(tiny_processor: TokenProcessor) -> None:
    assert isinstance(build_network(TINY, tiny_processor, device="meta"), OpenVLA)
