"""Folders of OpenVLA-OFT through the ordinary loader, and out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from judging import by_spread
from oft_cases import CHUNK, batch_of, network_of, options_of, processor_of, samples_of, seen
from parity.check_oft import check
from safetensors.torch import load_file, save_file
from tiny_folders import policy_of, random_model, released_config, released_folder
from tiny_runs import TINY, built, saved

from vlakit.checkpoints.adapter_files import save_adapter
from vlakit.checkpoints.card import Card
from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import Loaded, load, start_from
from vlakit.checkpoints.hf_config import read_description
from vlakit.checkpoints.oft import ADAPTER, SETTINGS
from vlakit.checkpoints.weights import released_name
from vlakit.data.shards.statistics import statistics_to_json
from vlakit.errors import CheckpointMismatch, PartMissing
from vlakit.models.adapters import LoraNumbers, inject_lora, is_added, merged_state_dict
from vlakit.models.network import build_network
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics
from vlakit.strategies.lora import Lora

FIXTURE = Path(__file__).parent.parent / "fixtures" / "oft"
RANK, ALPHA = 2, 3.0


@pytest.mark.slow
def test_every_output_of_the_original_code_is_reproduced() -> None:
    lines, passed = check(FIXTURE)
    assert passed, lines
    assert len(lines) == 48


def test_the_check_can_fail() -> None:
    ones = torch.arange(6.0).numpy()
    assert by_spread(ones, ones) == 0
    assert by_spread(ones + 0.01, ones) > 1e-3
    assert by_spread(ones[:3], ones) == float("inf")
    assert not by_spread(ones * float("nan"), ones) <= 1e-3


def released(folder: Path, statistics: DatasetStatistics, head: str, *, film: bool = False) -> Any:
    """A folder as the original's training leaves it, and the network whose weights it holds."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(released_config(towers=2)))
    table = statistics_to_json(processor_of(statistics).statistics)
    (folder / "dataset_statistics.json").write_text(json.dumps(table))
    settings = {"chunk": CHUNK, "images": 2, "normalization": "bounds_q99"}
    settings |= {"head": head} if head == "parallel" else {}
    (folder / SETTINGS).write_text(json.dumps(settings))
    model = read_description(folder).model
    torch.manual_seed(1)
    description = {**model.description, "head": head, "head_options": options_of(head), "film": film}
    network = build_network(description, processor_of(statistics, tokenizer="llama2")).eval()
    state = network.state_dict()
    parts = ("action_head", "proprio_projector", "noisy_action_projector")
    for part in parts:
        stored = {f"module.{n.removeprefix(f'{part}.')}": t for n, t in state.items() if n.startswith(f"{part}.")}
        if stored:
            torch.save(stored, folder / f"{part}--7_checkpoint.pt")
    rest = {
        n: t.clone() for n, t in state.items() if not n.startswith(parts) and ".scale." not in n and ".shift." not in n
    }
    if film:
        _tower_file(folder, network)
        rest = {n: torch.randn_like(t) if n.startswith("vision_backbone.") else t for n, t in rest.items()}
    save_file({released_name(name): tensor for name, tensor in rest.items()}, folder / "model.safetensors")
    return network


@torch.no_grad()
def _tower_file(folder: Path, network: Any) -> None:
    """vision_backbone--*: FiLM, and the towers with adapters unmerged; the network then holds their sum."""
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in network.state_dict().items():
        if not name.startswith("vision_backbone."):
            continue
        head, _, rest = name.partition(".blocks.")
        inner = rest.partition(".")[2]
        wrapped = bool(rest) and not inner.startswith(("scale.", "shift."))
        stored_name = released_name(f"{head}.blocks.{rest.partition('.')[0]}.block.{inner}" if wrapped else name)
        if name.endswith((".qkv.weight", ".fc1.weight", "patch_embed.proj.weight")):
            owner = stored_name.removesuffix(".weight")
            down = torch.randn(RANK, *tensor.shape[1:])
            up = torch.randn(tensor.shape[0], RANK, *([1] * (tensor.ndim - 2)))
            stored |= {f"{owner}.base_layer.weight": tensor.clone(), f"{owner}.lora_A.default.weight": down}
            stored[f"{owner}.lora_B.default.weight"] = up
            tensor.add_(ALPHA / RANK * torch.einsum("or,r...->o...", up.flatten(1), down))
        else:
            if inner.startswith(("scale.", "shift.")):
                tensor.normal_(std=0.1)
            stored[stored_name] = tensor.clone()
    torch.save(stored, folder / "vision_backbone--7_checkpoint.pt")
    (folder / ADAPTER).mkdir()
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["qkv", "fc1", "proj"]}
    (folder / ADAPTER / "adapter_config.json").write_text(json.dumps(config))
    wrapped = "base_model.model.vision_backbone.vision_backbone.featurizer.blocks.0.attn.qkv.lora_A.weight"
    save_file({wrapped: torch.zeros(RANK, 1)}, folder / ADAPTER / "adapter_model.safetensors")


def same(network: Any, other: Any) -> None:
    one, two = network.state_dict(), other.state_dict()
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, msg=name)


@pytest.mark.parametrize("head", ["parallel", "l1", "diffusion"])
def test_a_released_folder_is_the_head_whose_files_it_holds(
    head: str, tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    written = released(tmp_path / "oft", bridge_statistics, head)
    loaded = load(tmp_path / "oft")
    assert (type(loaded.network), loaded.network.settings["head"]) == (type(written), head)
    settings = loaded.processor.settings
    assert (settings.chunk, settings.cameras, settings.proprio) == (CHUNK, ("primary", "wrist"), 8)
    assert settings.normalization == "bounds_q99"
    same(written, loaded.network)


def test_with_film_the_tuned_towers_are_those_of_their_own_file_with_adapters_merged(
    tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    """The merged safetensors hold the towers as they were before the training."""
    written = released(tmp_path / "oft", bridge_statistics, "l1", film=True)
    untuned = load_file(tmp_path / "oft" / "model.safetensors")
    loaded = load(tmp_path / "oft").network
    assert loaded.settings["film"] is True
    same(written, loaded)
    name = "vision_backbone.featurizer.blocks.0.attn.qkv.weight"
    assert not torch.allclose(untuned[name], loaded.state_dict()[name])


def _without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            for file in list(folder.glob(name)):
                file.unlink()

    return change


def _settings(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = {**json.loads((folder / SETTINGS).read_text()), **changes}
        (folder / SETTINGS).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return change


def _twice(folder: Path) -> None:
    torch.save({}, folder / "action_head--9_checkpoint.pt")


def _other_rank(folder: Path) -> None:
    (folder / ADAPTER / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 3}))


@pytest.mark.parametrize(
    ("head", "change", "parts"),
    [
        ("l1", _without(SETTINGS), ("chunk", "normalization", "images", "LIBERO", "ALOHA")),
        ("l1", _settings(chunk=None), ("chunk", SETTINGS)),
        ("l1", _settings(chunk=2.5), ("garbled",)),
        ("l1", _settings(images=4), ("4 images",)),
        ("l1", _settings(normalization="bound"), ("'bound'", "bounds")),
        ("l1", _settings(action_dim=14), ("action_dim is 14", "7 in the files")),
        ("l1", _settings(proprio_dim=14), ("proprio_dim is 14",)),
        ("l1", _twice, ("several steps", "action_head--7", "action_head--9")),
        ("diffusion", _without("noisy_action_projector--*"), ("without noisy_action_projector--*",)),
        ("diffusion", _without("action_head--*"), ("without action_head--*",)),
        ("l1", _without("action_head--*"), ("without action_head--*", '"head": "parallel"')),
        ("l1", _settings(head="parallel"), ("head is parallel in the settings, l1 in the files",)),
        ("film", _without("*.pt", SETTINGS, f"{ADAPTER}/adapter_model.safetensors"), ("chunk", SETTINGS)),
        ("film", _without("vision_backbone--*"), ("trained with FiLM", "vision_backbone--*")),
        ("l1", _settings(film=True), ("film is True in the settings, False in the files",)),
        ("film", _without(f"{ADAPTER}/*"), ("adapter_config.json", "lora_alpha")),
        ("film", _other_rank, ("rank is 4", "[2]")),
    ],
    ids=lambda value: None if callable(value) else str(value),  # a function's address differs between workers
)
def test_a_folder_with_a_part_missing_or_another_setting_is_refused_by_name(
    head: str, change: Callable[[Path], None], parts: tuple[str, ...], tmp_path: Path,
    bridge_statistics: DatasetStatistics,
) -> None:  # fmt: skip
    released(tmp_path / "oft", bridge_statistics, "l1" if head == "film" else head, film=head == "film")
    change(tmp_path / "oft")
    with pytest.raises(CheckpointMismatch) as caught:
        load(tmp_path / "oft")
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize("part", ["action_head--7_checkpoint.pt", "lora_adapter"])
def test_a_part_alone_names_its_folder(part: str, tmp_path: Path, bridge_statistics: DatasetStatistics) -> None:
    released(tmp_path / "oft", bridge_statistics, "l1", film=True)
    with pytest.raises(CheckpointMismatch, match="a part of an OpenVLA-OFT checkpoint") as caught:
        load(tmp_path / "oft" / part)
    assert str(tmp_path / "oft") in caught.value.do


def policy(head: str, statistics: DatasetStatistics, **more: Any) -> Loaded:
    processor = processor_of(statistics)
    return policy_of(network_of(head, processor, **more), processor)


def answers(loaded: Loaded, statistics: DatasetStatistics) -> torch.Tensor:
    with torch.no_grad():
        return loaded.network.eval().predict(loaded.processor.observe([seen(one) for one in samples_of(statistics)]))


@pytest.mark.parametrize("layout", ["hf", "ckpt"])
@pytest.mark.parametrize(
    ("head", "film"), [("parallel", False), ("l1", True), ("diffusion", False), ("discrete", True)]
)
def test_what_is_exported_answers_the_same(
    layout: str, head: str, film: bool, tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    before = policy(head, bridge_statistics, film=film)
    export(before, tmp_path / "out", layout, ExportOptions())
    after = load(tmp_path / "out")
    assert after.network.description == before.network.description
    assert after.processor.description == before.processor.description
    same(before.network, after.network)
    assert torch.equal(answers(before, bridge_statistics), answers(after, bridge_statistics))


def test_an_adapters_folder_has_no_place_for_a_head(tmp_path: Path, bridge_statistics: DatasetStatistics) -> None:
    before = policy("l1", bridge_statistics)
    numbers = {"rank": 2, "alpha": 2, "dropout": 0.0, "targets": ["qkv"]}
    card = Card(before.card.network, before.card.processor, before.card.statistics, adapter=numbers)
    with pytest.raises(PartMissing, match="action_head"):
        export(Loaded(before.network, before.processor, card), tmp_path / "out", "adapter", ExportOptions())


@pytest.mark.parametrize("head", ["discrete", "parallel", "l1", "diffusion"])
def test_a_run_adds_its_head_and_senses_to_the_weights_it_starts_from(
    head: str, tmp_path: Path, bridge_statistics: DatasetStatistics, tiny_processor: TokenProcessor
) -> None:
    base = policy_of(build_network(TINY, tiny_processor), tiny_processor)
    export(base, tmp_path / "base", "ckpt", ExportOptions())
    processor = processor_of(bridge_statistics)
    description = {**TINY, "head": head, "head_options": options_of(head), "film": True}
    network = start_from(str(tmp_path / "base"), description, processor)
    state, new = base.network.state_dict(), network.state_dict()
    assert all(torch.equal(new[name], tensor) for name, tensor in state.items())
    assert (network.settings.get("head", "discrete"), network.settings["film"]) == (head, True)
    assert not any(tensor.is_meta for tensor in new.values())
    assert network.train()(batch_of(processor, samples_of(bridge_statistics))).loss.isfinite()
    for name, tensor in new.items():
        if ".scale." in name or ".shift." in name:
            assert not tensor.any(), name
    again = start_from(str(tmp_path / "base"), TINY, tiny_processor)
    assert again.description == base.network.description


def test_adapters_alone_are_stored_with_the_head_that_trained_beside_them(
    tmp_path: Path, bridge_statistics: DatasetStatistics, tiny_processor: TokenProcessor
) -> None:
    export(policy_of(build_network(TINY, tiny_processor), tiny_processor), tmp_path / "base", "ckpt", ExportOptions())
    description = {**TINY, "head": "l1", "film": True}
    processor = processor_of(bridge_statistics)
    base = str(tmp_path / "base")
    module = built(Lora, processor, network=description, weights=base, rank=2, adapter_only=True)
    added = {name for name, p in module.model.named_parameters() if p.requires_grad and ".lora_" not in name}
    assert added == {name for name, _ in module.model.named_parameters() if is_added(name, module.model)} != set()
    with torch.no_grad():
        for parameter in module.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    after = load(saved(module, tmp_path / "run.ckpt"))
    stored = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    assert {name.removeprefix("model.") for name in stored if ".lora_" not in name} == added
    same(module.model, after.network)


def test_an_adapter_that_was_never_merged_goes_on_its_base_beside_the_heads_files(
    tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    folder, base = tmp_path / "oft", tmp_path / "base"
    released(folder, bridge_statistics, "l1")
    plain = released_folder(base, bridge_statistics, released_config(towers=2))
    network = random_model(plain)
    numbers = LoraNumbers(2, 2, targets=("q_proj", "lm_head", "proj"))
    inject_lora(network, numbers)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    (folder / "model.safetensors").unlink()
    (folder / ADAPTER).mkdir()
    save_adapter(folder / ADAPTER, network, numbers, str(base))
    loaded = load(folder).network
    assert loaded.settings["head"] == "l1"
    for name, tensor in merged_state_dict(network).items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, msg=name)


def test_another_head_is_no_start_for_a_run(tmp_path: Path, bridge_statistics: DatasetStatistics) -> None:
    export(policy("l1", bridge_statistics), tmp_path / "base", "ckpt", ExportOptions())
    with pytest.raises(CheckpointMismatch, match="tensors differ"):
        start_from(str(tmp_path / "base"), {**TINY, "head": "parallel"}, processor_of(bridge_statistics))
