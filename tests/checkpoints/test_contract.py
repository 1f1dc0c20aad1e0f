"""A policy that no longer answers as it did is refused, and the field that differs is named."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_folders import NAMES, policy_of, rewrite
from tiny_runs import built, saved

from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.contract import ContractBroken, check_contract, make_contract
from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.checkpoints.hf_config import OWN_KEY
from vlakit.errors import CheckpointMismatch
from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.openvla.vla import OpenVLA, build_vla
from vlakit.policy import TrainedPolicy
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Sample
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora


def attentive(model: OpenVLA) -> OpenVLA:
    """At random weights the last id alone decides the answer; with larger values, image and words do too."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"(v_proj|o_proj|q_proj|k_proj|projector\.fc.)(\.base_layer)?\.weight$", name):
                parameter.mul_(10)
    return model


@pytest.fixture
def model(tiny_vla: OpenVLA) -> OpenVLA:
    return attentive(tiny_vla)


@pytest.fixture
def contract(model: OpenVLA, tiny_processor: TokenProcessor, samples: list[Sample]) -> dict[str, Any]:
    return json.loads(json.dumps(make_contract(model, tiny_processor, samples)))


def changed(processor: TokenProcessor, **names: Any) -> TokenProcessor:
    return TokenProcessor(replace(processor.settings, **names), processor.statistics)


def move(contract: dict[str, Any], frame: int, dimension: int, bins: int, processor: TokenProcessor) -> None:
    """Another recorded answer, so many bins away."""
    actions, statistics = contract["frames"][frame]["actions"], processor.statistics_of("bridge_orig")
    half_span = (statistics.q99 - statistics.q01)[dimension] / 2 if statistics.mask[dimension] else 1.0
    actions[0][dimension] += bins * 2 / 255 * half_span


def test_a_contract_says_all_that_decides_what_a_policy_sees(contract: dict[str, Any]) -> None:
    fields = {"image_size", "resize", "center_crop", "jpeg", "cameras", "rotation_degrees", "prompt", "datasets"}
    fields |= {"action_convention", "control_hz", "chunk", "versions", "frames", "channel_statistics", "n_bins"}
    assert fields <= set(contract)
    assert contract["cameras"] == ["primary"]
    assert {"torch", "timm", "transformers", "vlakit"} <= set(contract["versions"])
    assert [len(frame["ids"]) for frame in contract["frames"]] == [7, 7, 7]


def test_the_same_policy_keeps_its_contract(
    contract: dict[str, Any], model: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    check_contract(contract, model, tiny_processor, where="here")


def test_replaying_leaves_the_models_mode(
    contract: dict[str, Any], model: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    check_contract(contract, model.train(), tiny_processor, where="here")
    assert model.training


CHANGES: dict[str, dict[str, Any]] = {
    "resize": {"resize": "letterbox"},
    "prompt": {"prompt": "openvla_v01"},
    "channel_statistics": {"channel_statistics": ("half", "imagenet")},
    "image_size": {"image_size": 96},
    "center_crop": {"center_crop": 0.3},
    "chunk": {"chunk": 2},
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_that_differs_breaks_it_and_is_named(
    field: str, model: OpenVLA, tiny_processor: TokenProcessor, samples: list[Sample]
) -> None:
    import numpy as np
    import simplejpeg

    noise = np.random.default_rng(1).integers(0, 256, (60, 100, 3), dtype=np.uint8)  # not square, for the letterbox
    wide = [replace(sample, images={"primary": [simplejpeg.encode_jpeg(noise)]}) for sample in samples]
    contract = make_contract(model, tiny_processor, wide)
    with pytest.raises(ContractBroken) as caught:
        check_contract(contract, model, changed(tiny_processor, **CHANGES[field]), where="a.ckpt")
    assert caught.value.where.startswith("a.ckpt; ")
    assert f"{field} was " in caught.value.where
    assert caught.value.where.count(" was ") == 1
    assert caught.value.do


def test_other_weights_break_it_though_no_field_differs(
    contract: dict[str, Any], tiny_processor: TokenProcessor
) -> None:
    torch.manual_seed(5)
    with pytest.raises(ContractBroken, match="golden frames otherwise") as caught:
        check_contract(contract, attentive(build_vla(NAMES)), tiny_processor, where="here")
    assert "weights" in caught.value.where


def test_a_dataset_that_is_gone_breaks_it(
    contract: dict[str, Any], model: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    other = TokenProcessor(tiny_processor.settings, {"kuka": tiny_processor.statistics["bridge_orig"]})
    with pytest.raises(ContractBroken, match="bridge_orig") as caught:
        check_contract(contract, model, other, where="here")
    assert "datasets was ['bridge_orig'], is ['kuka']" in caught.value.where


def test_a_version_that_differs_is_named_when_the_answers_differ(
    contract: dict[str, Any], model: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    contract["versions"]["timm"] = "0.9.10"
    check_contract(contract, model, tiny_processor, where="here")
    move(contract, 0, 3, 9, tiny_processor)
    with pytest.raises(ContractBroken) as caught:
        check_contract(contract, model, tiny_processor, where="here")
    assert "version of timm was 0.9.10" in caught.value.where


@pytest.mark.parametrize("dimension", [5, 6], ids=["rotation", "gripper"])
@pytest.mark.parametrize(("off", "broken"), [(1, False), (-1, False), (2, True), (-2, True)])
def test_one_bin_is_forgiven_and_two_are_not(
    off: int, broken: bool, dimension: int, contract: dict[str, Any], model: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    move(contract, 1, dimension, off, tiny_processor)
    if not broken:
        check_contract(contract, model, tiny_processor, where="here")
        return
    with pytest.raises(ContractBroken, match="1 of 3 golden frames otherwise, by up to 2 bins"):
        check_contract(contract, model, tiny_processor, where="here")


@pytest.mark.parametrize("field", ["prompt", "image_size"])
def test_not_strict_warns_and_goes_on(
    field: str,
    contract: dict[str, Any],
    model: OpenVLA,
    tiny_processor: TokenProcessor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_contract(contract, model, changed(tiny_processor, **CHANGES[field]), where="here", strict=False)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{field} was " in record.message


def test_without_frames_there_is_nothing_to_break(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> None:
    contract = make_contract(tiny_vla, tiny_processor, [])
    assert contract["frames"] == []
    check_contract(contract, tiny_vla, changed(tiny_processor, image_size=96), where="here")


GARBLED: dict[str, Callable[[dict[str, Any]], object]] = {
    "no frames key": lambda c: c.pop("frames"),
    "a frame without an answer": lambda c: [c["frames"][0].pop(key) for key in ("ids", "actions")],
    "an image that is no base64": lambda c: c["frames"][0].update(images={"primary": ["%"]}),
    "an image that is no JPEG": lambda c: c["frames"][0].update(images={"primary": ["AAAA"]}),
    "actions in words": lambda c: c["frames"][0].update(actions=[["a"] * 7]),
    "ids in words, without actions": lambda c: [c["frames"][0].pop("actions"), c["frames"][0].update(ids=["a"] * 7)],
    "images of no camera": lambda c: c["frames"][0].update(images={}),
    "frames a number": lambda c: c.update(frames=3),
}


@pytest.mark.parametrize("kind", GARBLED)
def test_a_garbled_contract_is_refused_by_name(
    kind: str, contract: dict[str, Any], model: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    GARBLED[kind](contract)
    with pytest.raises(CheckpointMismatch, match="contract") as caught:
        check_contract(contract, model, tiny_processor, where="a/contract.json")
    assert "a/contract.json" in caught.value.where
    assert caught.value.do


@pytest.mark.parametrize("kind", [Full, Lora], ids=["full", "lora"])
def test_every_ckpt_carries_it_and_a_change_of_the_file_is_noticed(
    kind: type[Full] | type[Lora], tiny_processor: TokenProcessor, samples: list[Sample], tmp_path: Path
) -> None:
    module = built(kind, tiny_processor, **({"rank": 2} if kind is Lora else {}))
    attentive(module.model)
    module.answer_golden(samples)
    file = saved(module, tmp_path / "a.ckpt")
    assert len(frames_of(TrainedPolicy.from_checkpoint(file))) == 3
    content = torch.load(file, weights_only=True)
    content[CARD]["processor"]["prompt"] = "openvla_v01"
    torch.save(content, file)
    with pytest.raises(ContractBroken) as caught:
        TrainedPolicy.from_checkpoint(file)
    assert "prompt was openvla, is openvla_v01" in caught.value.where
    assert str(file) in caught.value.where
    TrainedPolicy.from_checkpoint(file, strict=False)


def frames_of(policy: TrainedPolicy) -> list[Any]:
    assert policy.card.contract is not None
    return policy.card.contract["frames"]


@pytest.fixture
def exported(
    model: OpenVLA, tiny_processor: TokenProcessor, contract: dict[str, Any], tmp_path: Path
) -> Callable[..., Path]:
    def make(**options: Any) -> Path:
        export(policy_of(model, tiny_processor, contract), tmp_path / "hf", "hf", ExportOptions(**options))
        return tmp_path / "hf"

    return make


def test_an_exported_folder_carries_it_and_a_change_of_its_config_is_noticed(
    exported: Callable[..., Path], contract: dict[str, Any]
) -> None:
    folder = exported()
    assert json.loads((folder / "contract.json").read_text()) == contract
    TrainedPolicy.from_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    own = config[OWN_KEY]
    own["processor"]["channel_statistics"] = ["half", "imagenet"]
    rewrite(folder / "config.json", **{OWN_KEY: own})
    with pytest.raises(ContractBroken) as caught:
        TrainedPolicy.from_checkpoint(folder)
    assert "channel_statistics was ['imagenet', 'half']" in caught.value.where


def test_a_folder_in_another_precision_keeps_a_contract_of_its_own(exported: Callable[..., Path]) -> None:
    folder = exported(dtype=torch.bfloat16)
    policy = TrainedPolicy.from_checkpoint(folder)
    assert next(policy.network.parameters()).dtype == torch.bfloat16
    assert len(frames_of(policy)) == 3


def test_an_adapter_on_another_base_is_noticed(
    tiny_processor: TokenProcessor, bridge_statistics: DatasetStatistics, samples: list[Sample], tmp_path: Path
) -> None:
    """The tensors of the adapter fit, the answers do not."""
    numbers = {"rank": 2, "alpha": 2, "dropout": 0.0, "targets": ["fc1", "q_proj"]}
    for seed, name in enumerate(("base", "other")):
        torch.manual_seed(seed)
        export(policy_of(attentive(build_vla(NAMES)), tiny_processor), tmp_path / name, "hf", ExportOptions())
    base = load(tmp_path / "base")
    inject_lora(base.network, LoraNumbers.from_dict(numbers))
    contract = make_contract(base.network, base.processor, samples)
    adapted = replace(base, card=replace(base.card, adapter=numbers, contract=contract))
    export(adapted, tmp_path / "adapter", "adapter", ExportOptions(base=str(tmp_path / "base")))
    TrainedPolicy.from_checkpoint(tmp_path / "adapter")
    with pytest.raises(ContractBroken):
        TrainedPolicy.from_checkpoint(tmp_path / "adapter", options=LoadOptions(base=str(tmp_path / "other")))


def test_names_of_a_processor_survive_the_fields(contract: dict[str, Any], tiny_processor: TokenProcessor) -> None:
    names = {"camera": contract["cameras"][0]} | contract
    known = tiny_processor.settings.to_dict().keys()
    assert TokenSettings.from_dict({k: v for k, v in names.items() if k in known}) == tiny_processor.settings


def test_other_statistics_break_it_though_the_tokens_are_the_same(
    model: OpenVLA, tiny_processor: TokenProcessor, contract: dict[str, Any]
) -> None:
    one = tiny_processor.statistics["bridge_orig"]
    wider = TokenProcessor(tiny_processor.settings, {"bridge_orig": replace(one, q99=one.q99 * 1.5)})
    with pytest.raises(ContractBroken, match="3 of 3 golden frames otherwise") as caught:
        check_contract(contract, model, wider, where="here")
    assert "statistics was" in caught.value.where
