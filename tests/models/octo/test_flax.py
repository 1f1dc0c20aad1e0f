"""The original's parameters by their Flax names, and its checkpoints as they come."""

from pathlib import Path

import numpy as np
import pytest
import torch
from octo_cases import octo_of, processor_of

from vlakit.checkpoints.formats import load, start_from
from vlakit.errors import CheckpointMismatch
from vlakit.models.octo.flax import load_flax, own_name
from vlakit.models.octo.transformer import Pooling
from vlakit.schema import DatasetStatistics

WHOLE = {"goals": True, "stem": [32, 32, 32, 32]}


def flax_of(network: torch.nn.Module, heads: int = 2) -> dict[str, np.ndarray]:
    """The parameters of a network as Flax has them: the map the other way round, by hand."""
    paths: dict[str, np.ndarray] = {}
    for name, tensor in network.state_dict().items():
        path, x = theirs(name), tensor.numpy()
        layer, leaf = path.split("/")[-2:]
        if layer in ("query", "key", "value"):
            x = x.T.reshape(x.shape[1], heads, -1) if leaf == "kernel" else x.reshape(heads, -1)
        elif layer == "out" and leaf == "kernel":
            x = x.T.reshape(heads, -1, x.shape[0])
        elif leaf == "kernel" and layer != "time_preprocess":
            x = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
        elif leaf.endswith("pos_embedding"):
            x = x[None]
        paths[path] = x
    return paths


def theirs(name: str) -> str:
    owner, _, leaf = name.rpartition(".")
    for ours, their in (
        ("trunk.stems.primary.convolutions.", "octo_transformer/observation_tokenizers_primary/SmallStem16_0/StdConv_"),
        ("trunk.stems.primary.norms.", "octo_transformer/observation_tokenizers_primary/SmallStem16_0/GroupNorm_"),
        ("trunk.stems.primary.", "octo_transformer/observation_tokenizers_primary/SmallStem16_0/"),
        ("trunk.observed.primary.projection", "octo_transformer/obs_primary_projection"),
        ("trunk.observed.primary.place", "octo_transformer/obs_primary_pos_embedding"),
        ("trunk.task.language.projection", "octo_transformer/task_language_projection"),
        ("trunk.task.language.place", "octo_transformer/task_language_pos_embedding"),
        ("trunk.readouts.action", "octo_transformer/readout_action_pos_embedding"),
        ("trunk.transformer.blocks.", "octo_transformer/BlockTransformer_0/Transformer_0/encoderblock_"),
        ("trunk.transformer.norm", "octo_transformer/BlockTransformer_0/Transformer_0/encoder_norm"),
        (".norm_attention", "/LayerNorm_0"),
        (".norm_mlp", "/LayerNorm_1"),
        (".attention.", "/MultiHeadDotProductAttention_0/"),
        (".mlp.expand", "/MlpBlock_0/Dense_0"),
        (".mlp.contract", "/MlpBlock_0/Dense_1"),
        ("head.noise_network.frequencies", "heads_action/diffusion_model/time_preprocess"),
        ("head.noise_network.time_expand", "heads_action/diffusion_model/cond_encoder/Dense_0"),
        ("head.noise_network.time_contract", "heads_action/diffusion_model/cond_encoder/Dense_1"),
        ("head.noise_network.enter", "heads_action/diffusion_model/reverse_network/Dense_0"),
        ("head.noise_network.leave", "heads_action/diffusion_model/reverse_network/Dense_1"),
        ("head.noise_network.blocks.", "heads_action/diffusion_model/reverse_network/MLPResNetBlock_"),
        ("0.norm", "0/LayerNorm_0"),
        ("0.expand", "0/Dense_0"),
        ("0.contract", "0/Dense_1"),
    ):  # fmt: skip
        owner = owner.replace(ours, their)
    if owner.endswith("pos_embedding"):
        return owner
    norm = "Norm_" in owner or owner.endswith("encoder_norm")
    return f"{owner}/{'bias' if leaf == 'bias' else 'scale' if norm else 'kernel'}"


def test_a_run_begins_from_the_originals_parameters(tmp_path: Path, bridge_statistics: DatasetStatistics) -> None:
    processor = processor_of(bridge_statistics, tokenizer="t5")
    network = octo_of(processor, "diffusion", seed=3, text="t5", **WHOLE)
    arrays = flax_of(network)
    assert {own_name(path) for path in arrays} == set(network.state_dict())
    frozen = {"octo_transformer/task_tokenizers_language/hf_model/shared/embedding": np.zeros((2, 2))}
    file = tmp_path / "octo.npz"
    np.savez(file, **arrays, **frozen)  # pyright: ignore[reportArgumentType]
    started = start_from(file, network.description, processor)
    for name, tensor in network.state_dict().items():
        assert torch.equal(started.state_dict()[name], tensor), name
    other = {**network.description, "mlp": 48}
    with pytest.raises(CheckpointMismatch, match=r"mlp\.\w+\.\w+ is .*, the network needs"):
        start_from(file, other, processor)
    with pytest.raises(CheckpointMismatch, match="missing"):
        start_from(file, {**network.description, "layers": 3}, processor)


def test_a_run_of_fewer_senses_or_another_head_begins_from_what_it_has_in_common(
    tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    processor = processor_of(bridge_statistics)
    network = octo_of(processor, "diffusion", seed=3, **WHOLE)
    wrist = {path.replace("primary", "wrist"): x for path, x in flax_of(network).items() if "primary" in path}
    file = tmp_path / "octo.npz"
    np.savez(file, **flax_of(network), **wrist)  # pyright: ignore[reportArgumentType]
    assert wrist
    one = start_from(file, network.description, processor).state_dict()
    assert all(torch.equal(one[name], tensor) for name, tensor in network.state_dict().items())
    goal = octo_of(processor, "l1", seed=4, **WHOLE)
    other = start_from(file, goal.description, processor).state_dict()
    assert not any(tensor.is_meta for tensor in other.values())
    assert all(torch.equal(other[n], t) for n, t in network.state_dict().items() if n.startswith("trunk."))
    with pytest.raises(CheckpointMismatch, match="missing"):  # a sense that the file lacks is not begun anew in silence
        start_from(file, {**network.description, "layers": 3}, processor)


def test_a_parameter_too_many_is_named_with_the_nearest() -> None:
    with pytest.raises(CheckpointMismatch, match="not of this network") as caught:
        load_flax(Pooling(16), {"map_head/LayerNorm_0/scales": np.zeros(16)}, where="here")
    assert "do:" in str(caught.value)


@pytest.mark.parametrize("file", ["example_batch.msgpack", "default/checkpoint", "_METADATA", "default/manifest.ocdbt"])
def test_a_flax_folder_as_it_is_is_refused_with_the_recipe(
    tmp_path: Path, bridge_statistics: DatasetStatistics, file: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    processor = processor_of(bridge_statistics)
    for refused in (lambda: load(tmp_path), lambda: start_from(tmp_path, octo_of(processor).description, processor)):
        with pytest.raises(CheckpointMismatch, match="Flax") as caught:
            refused()
        assert "flatten_dict" in caught.value.do


def test_parameters_alone_are_no_policy_and_a_broken_file_is_named(
    tmp_path: Path, bridge_statistics: DatasetStatistics
) -> None:
    file = tmp_path / "octo.npz"
    file.write_bytes(b"no zip")
    with pytest.raises(CheckpointMismatch, match="parameters alone") as caught:
        load(file)
    assert "model.weights" in caught.value.do
    processor = processor_of(bridge_statistics)
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        start_from(file, octo_of(processor).description, processor)
    np.savez(file, pickled=np.array([object()]))
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        start_from(file, octo_of(processor).description, processor)
