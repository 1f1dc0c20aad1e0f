"""Every tensor of a file is used, renamed or named; a model is filled tensor by tensor."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_folders import NAMES, random_model, released_config, released_folder
from torch import Tensor

from vlakit.checkpoints.weights import INDEX, SINGLE, hf_name, load_weights, released_name, safetensors_of, save_weights
from vlakit.errors import CheckpointMismatch
from vlakit.models.network import Network, build_empty
from vlakit.models.openvla.vla import OpenVLA, build_vla
from vlakit.policy import TrainedPolicy
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics

NORM = "language_model.model.norm.weight"


@pytest.fixture
def folder(tiny_vla: OpenVLA, tmp_path: Path) -> Path:
    """Weights in several shards."""
    save_weights(tmp_path, tiny_vla.state_dict().items(), shard_bytes=1_000_000)
    return tmp_path


def filled(folder: Path, **options: Any) -> tuple[Network, Any]:
    settings = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words")
    model = build_empty(NAMES.description, TokenProcessor(settings))
    return model, load_weights(model, safetensors_of(folder), where=str(folder), **options)


def refused(folder: Path, match: str) -> CheckpointMismatch:
    with pytest.raises(CheckpointMismatch, match=match) as caught:
        filled(folder)
    assert str(folder) in caught.value.where
    assert caught.value.do
    return caught.value


def shard_with(folder: Path, tensor: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][tensor]


def change(folder: Path, name: str, tensor: Tensor | None) -> None:
    """Another tensor of this name in its shard, or none."""
    file = shard_with(folder, name)
    content = load_file(file)
    content.pop(name)
    save_file(content | ({} if tensor is None else {name: tensor}), file)


def test_shards_reload_bit_for_bit_and_every_tensor_is_accounted_for(folder: Path, tiny_vla: OpenVLA) -> None:
    model, report = filled(folder)
    own = tiny_vla.state_dict()
    assert {name: tensor.tolist() for name, tensor in model.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in own.items()
    }
    assert (report.used, report.unexpected) == (len(own), [])
    layer_scales = {name for name in own if name.endswith(".gamma")}
    assert len(layer_scales) == 6
    assert report.renamed == {name.replace("gamma", "scale_factor"): name for name in layer_scales}


def test_no_shard_is_larger_than_asked_and_the_index_names_every_tensor(folder: Path, tiny_vla: OpenVLA) -> None:
    index = json.loads((folder / INDEX).read_text())
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    assert [file.name for file in shards] == [
        f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))
    ]
    own = tiny_vla.state_dict()
    assert set(index["weight_map"]) == {released_name(name) for name in own}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in own.values())
    for file in shards:
        content = load_file(file)
        assert {name for name, at in index["weight_map"].items() if at == file.name} == set(content)
        assert sum(tensor.nbytes for tensor in content.values()) <= 1_000_000 or len(content) == 1


def test_a_small_model_is_one_file_without_an_index(tiny_vla: OpenVLA, tmp_path: Path) -> None:
    assert save_weights(tmp_path, tiny_vla.state_dict().items(), shard_bytes=10**9) == [tmp_path / SINGLE]
    assert [file.name for file in tmp_path.iterdir()] == [SINGLE]


def test_only_layer_scale_is_renamed() -> None:
    assert released_name("vision_backbone.featurizer.blocks.0.ls1.gamma").endswith("ls1.scale_factor")
    assert released_name("language_model.gamma") == "language_model.gamma"
    names = build_vla(NAMES, "meta").state_dict()
    assert len({released_name(name) for name in names}) == len(names)


def test_a_tensor_that_the_model_lacks_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    extra = {f"language_model.extra.{i}": torch.zeros(1) for i in range(8)}
    file = shard_with(folder, NORM)
    save_file(load_file(file) | extra, file)
    _, report = filled(folder)
    assert sorted(report.unexpected) == sorted(extra)
    assert all(name in str(report) for name in extra)


def test_a_user_hears_of_tensors_left_out(
    tmp_path: Path, bridge_statistics: DatasetStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    folder = released_folder(tmp_path / "a", bridge_statistics)
    save_file(load_file(folder / SINGLE) | {"proprio.fc1.bias": torch.zeros(1)}, folder / SINGLE)
    TrainedPolicy.from_checkpoint(folder)
    (record,) = [record for record in caplog.records if "proprio.fc1.bias" in record.message]
    assert record.levelname == "WARNING"
    assert str(folder) in record.message


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change(folder, NORM, None)
    assert NORM in refused(folder, "1 tensors are missing").what


def test_a_tensor_of_another_shape_is_named_with_both(folder: Path) -> None:
    change(folder, NORM, torch.ones(3))
    said = refused(folder, NORM).what
    assert "(3,)" in said
    assert "(128,)" in said


def test_quantised_weights_are_refused(folder: Path) -> None:
    change(folder, NORM, torch.ones(128, dtype=torch.int8))
    assert "int8" in refused(folder, NORM).what


@pytest.mark.parametrize("again", ["scale_factor", "gamma"])
def test_a_tensor_stored_twice_is_refused(folder: Path, again: str) -> None:
    name = f"vision_backbone.featurizer.blocks.0.ls1.{again}"
    index = json.loads((folder / INDEX).read_text())
    save_file({name: torch.ones(96)}, folder / "zzz.safetensors")
    index["weight_map"]["other"] = "zzz.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, "ls1.*stored twice")


def test_a_missing_shard_is_named(folder: Path) -> None:
    file = shard_with(folder, NORM)
    file.unlink()
    assert file.name in refused(folder, "shards are missing").what


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.3, 0.999])
def test_a_truncated_shard_is_named(folder: Path, share: float) -> None:
    file = shard_with(folder, NORM)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert str(file) in refused(folder, "cannot be read").where


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "sub/x.safetensors", "..", "", 3, None])
def test_an_index_names_only_files_of_its_folder(folder: Path, tmp_path: Path, name: object) -> None:
    inner = folder / "inner"
    (inner / "sub").mkdir(parents=True)
    for place in (folder / "outside.safetensors", inner / "sub" / "x.safetensors"):
        save_file({NORM: torch.ones(128)}, place)
    (inner / INDEX).write_text(json.dumps({"weight_map": {NORM: name}}))
    refused(inner, "shards are missing")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": ["b"]}}', "\x00"])
def test_a_garbled_index_is_named(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text)
    refused(folder, "index|missing")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    refused(tmp_path, SINGLE)


def test_a_dtype_converts_and_none_keeps(folder: Path) -> None:
    half, _ = filled(folder, dtype=torch.bfloat16)
    kept, _ = filled(folder)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in kept.parameters()} == {torch.float32}


def test_what_was_frozen_stays_frozen(folder: Path) -> None:
    model = build_vla(NAMES)
    model.projector.requires_grad_(False)
    load_weights(model, safetensors_of(folder), where="")
    assert {p.requires_grad for p in model.projector.parameters()} == {False}
    assert model.language_model.lm_head.weight.requires_grad


def test_training_a_loaded_model_leaves_its_file_alone(folder: Path) -> None:
    model, _ = filled(folder)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_only_one_shard_of_what_is_written_exists_at_a_time(tmp_path: Path) -> None:
    made: list[int] = []

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for i in range(6):
            made.append(len(list(tmp_path.iterdir())))
            yield f"t{i}", torch.zeros(1000)

    save_weights(tmp_path, tensors(), shard_bytes=8000)
    assert made == [0, 0, 0, 1, 1, 2]


def test_a_native_name_has_a_name_here_for_every_tensor() -> None:
    native = {
        "vision_backbone.dino_featurizer.blocks.0.ls1.gamma": "vision_backbone.featurizer.blocks.0.ls1.gamma",
        "vision_backbone.siglip_featurizer.attn_pool.latent": "vision_backbone.fused_featurizer.attn_pool.latent",
        "vision_backbone.featurizer.pos_embed": "vision_backbone.featurizer.pos_embed",
        "projector.projector.0.weight": "projector.fc1.weight",
        "projector.projector.2.bias": "projector.fc2.bias",
        "llm_backbone.llm.model.embed_tokens.weight": "language_model.model.embed_tokens.weight",
    }
    assert {name: hf_name(name) for name in native} == native


MEASURE = """
import json, resource, sys, threading, time
from pathlib import Path
import torch
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.models.network import build_empty
from vlakit.checkpoints.hf_config import read_description
from vlakit.processing.tokens import TokenProcessor
folder, dtype = Path(sys.argv[1]), json.loads(sys.argv[2])
described = read_description(folder)
processor = TokenProcessor(described.processor)
build_empty(described.model.description, processor)  # what importing and building take is not the load
def resident(key):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(key))
before, peak, done = (resident("RssAnon"), resident("VmRSS")), [0, 0], threading.Event()
def watch():
    while not done.is_set():
        peak[:] = max(peak[0], resident("RssAnon")), max(peak[1], resident("VmRSS"))
        time.sleep(0.001)
thread = threading.Thread(target=watch); thread.start()
model = load(folder, LoadOptions(dtype=dtype and getattr(torch, dtype))).network
sum(p.detach().amax().item() for p in model.parameters())  # a mapped file counts only once it is read
done.set(); thread.join()
size = sum(p.nbytes for p in model.parameters())
print(json.dumps({"size": size, "own": peak[0] - before[0], "all": peak[1] - before[1]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_loading_takes_a_tenth_more_than_the_model_at_most(
    dtype: str | None, tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    wide: dict[str, Any] = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
    }
    folder = released_folder(tmp_path / "a", bridge_statistics, released_config(**wide))
    model = random_model(folder)
    (folder / SINGLE).unlink()
    save_weights(folder, model.state_dict().items(), shard_bytes=20_000_000)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), json.dumps(dtype)], capture_output=True, text=True, check=True
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["size"] > (300e6 if dtype is None else 150e6)
    print(found)
    assert found["all" if dtype is None else "own"] <= 1.1 * found["size"]  # a conversion also maps the file
