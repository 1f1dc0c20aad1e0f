"""A path is read as what it is, and whatever cannot be read says which file and why."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from tiny_folders import logits_of, random_model, released_config, released_folder, rewrite
from tiny_runs import built, saved

from vlakit.checkpoints.formats import LoadOptions, load, native_description
from vlakit.errors import CheckpointMismatch
from vlakit.models.openvla.vla import OpenVLA, build_vla
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics
from vlakit.strategies.full import Full

NATIVE = {
    "vision_backbone.featurizer.": ("vision_backbone", "dino_featurizer."),
    "vision_backbone.fused_featurizer.": ("vision_backbone", "siglip_featurizer."),
    "projector.fc1.": ("projector", "projector.0."),
    "projector.fc2.": ("projector", "projector.2."),
    "projector.fc3.": ("projector", "projector.4."),
    "language_model.": ("llm_backbone", "llm."),
}


class Payload:
    """Unpickling it leaves a marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def native_file(folder: Path, model: OpenVLA) -> Path:
    """The model as Prismatic's own training writes it."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        prefix = next(prefix for prefix in NATIVE if name.startswith(prefix))
        group, start = NATIVE[prefix]
        if len(model.vision_backbone.towers) == 1:
            start = start.replace("dino_", "")
        groups.setdefault(group, {})[start + name.removeprefix(prefix)] = tensor
    torch.save({"model": groups, "optimizer": {"state": {}}}, folder / "step-1.pt")
    return folder / "step-1.pt"


@pytest.fixture(params=[1, 2], ids=["single", "fused"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, bridge_statistics: DatasetStatistics) -> Path:
    return released_folder(tmp_path / "a", bridge_statistics, released_config(towers=request.param))


def test_a_native_file_gives_the_same_model_as_the_converted_folder(folder: Path) -> None:
    expected = logits_of(load(folder).network.eval())
    file = native_file(folder, random_model(folder))
    loaded = load(file)
    assert torch.equal(logits_of(loaded.network.eval()), expected)
    assert list(loaded.card.statistics) == ["bridge_orig"]


@pytest.mark.parametrize("fused", [True, False])
def test_a_native_file_alone_is_a_7b_model_with_llama_2s_own_numbers(fused: bool) -> None:
    found = native_description(fused)
    model = build_vla(found.model, "meta")
    config = model.language_model.config
    assert (config.rms_norm_eps, config.max_position_embeddings, config.vocab_size) == (1e-5, 4096, 32064)
    assert model.language_model.model.norm.variance_epsilon == 1e-5
    assert len(model.vision_backbone.towers) == len(found.processor.channel_statistics) == 1 + fused
    assert found.processor.resize == ("resize-naive" if fused else "letterbox")


def test_a_small_native_file_without_its_config_is_refused_by_tensor(folder: Path) -> None:
    file = native_file(folder, random_model(folder))
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointMismatch, match="the model needs") as caught:
        load(file)
    assert str(file) in caught.value.where


@pytest.mark.parametrize("name", ["step-1.pt", "last.ckpt", "adapter_model.bin"])
@pytest.mark.parametrize("bare", [True, False], ids=["pickle", "torch"])
def test_pickled_code_is_refused_and_never_run(name: str, bare: bool, tmp_path: Path) -> None:
    file, marker = tmp_path / name, tmp_path / "marker"
    content = {"model": {"llm_backbone": {"llm.a": Payload(marker)}}, "state_dict": {}}
    if bare:
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file)
    path = file
    if name == "adapter_model.bin":
        path, config = tmp_path, {"r": 2, "lora_alpha": 2, "target_modules": ["fc1"]}
        base = native_base(tmp_path)
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    with pytest.raises(CheckpointMismatch, match="cannot be read") as caught:
        load(path)
    assert str(file) in caught.value.where
    assert "refused on purpose" in caught.value.do
    assert not marker.exists()


def native_base(folder: Path) -> Path:
    """A folder that loads, for an adapter that does not."""
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(released_config()))
    from vlakit.checkpoints.weights import save_weights

    save_weights(base, random_model(base).state_dict().items(), shard_bytes=10**9)
    return base


@pytest.mark.parametrize("content", [{"model": 3}, {"model": {"llm_backbone": 3}}, {}, [1], torch.zeros(2)], ids=str)
def test_a_file_of_another_layout_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointMismatch, match="not a native Prismatic") as caught:
        load(tmp_path / "a.pt")
    assert "a.pt" in caught.value.where


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_native_file_is_refused(folder: Path, share: float) -> None:
    file = native_file(folder, random_model(folder))
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointMismatch, match="cannot be read") as caught:
        load(file)
    assert str(file) in caught.value.where


@pytest.mark.parametrize(
    "name", ["config.json", "dataset_statistics.json", "contract.json", "preprocessor_config.json"]
)
@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_garbled_neighbour_is_named(
    name: str, text: str, tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    folder = released_folder(tmp_path / "a", bridge_statistics)
    (folder / name).write_text(text)
    with pytest.raises(CheckpointMismatch) as caught:
        TrainedPolicy.from_checkpoint(folder)
    assert name in caught.value.where
    assert caught.value.do


@pytest.mark.parametrize("name", ["none", "none.pt", "none.ckpt", "empty"])
def test_a_path_that_holds_nothing_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointMismatch) as caught:
        load(tmp_path / name)
    assert name in caught.value.where


def test_a_ckpt_loads_as_its_own_format(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    module = built(Full, tiny_processor)
    file = saved(module, tmp_path / "a.ckpt")
    expected = logits_of(module.model.eval())
    assert torch.equal(logits_of(load(file).network.eval()), expected)
    assert next(load(file, LoadOptions(torch.bfloat16)).network.parameters()).dtype == torch.bfloat16


def test_an_adapter_that_names_itself_as_its_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    rewrite(tmp_path / "adapter_config.json", base_model_name_or_path=str(tmp_path))
    with pytest.raises(CheckpointMismatch, match="base model"):
        load(tmp_path)
    with pytest.raises(CheckpointMismatch, match="base model"):
        load(tmp_path, LoadOptions(base=str(tmp_path)))
