"""`vlakit export`: a run as a folder for others, or three lines that say why not."""

from pathlib import Path

import pytest
import torch
from commands import complaint, report, run, says
from tiny_folders import logits_of
from tiny_runs import built, saved

from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import DatasetStatistics, Sample
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tiny_processor: TokenProcessor, samples: list[Sample], tmp_path: Path) -> Path:
    module = built(Lora, tiny_processor, rank=2)
    module.answer_golden(samples)
    return saved(module, tmp_path / "lora.ckpt")


def test_a_whole_folder_reloads_and_its_files_are_listed(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    found = report(capsys, "export", f"ckpt={checkpoint}", f"out={tmp_path / 'hf'}", "shard_bytes=1000000")
    assert found["files"] == {file.name: file.stat().st_size for file in (tmp_path / "hf").iterdir()}
    assert {"config.json", "contract.json", "dataset_statistics.json", "model.safetensors.index.json"} <= set(
        found["files"]
    )
    policy = TrainedPolicy.from_checkpoint(tmp_path / "hf")
    expected = logits_of(TrainedPolicy.from_checkpoint(checkpoint).network)
    torch.testing.assert_close(logits_of(policy.network), expected, atol=1e-5, rtol=1e-5)


def test_an_adapter_finds_its_base_again(
    checkpoint: Path, tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture
) -> None:
    base = saved(built(Full, tiny_processor), tmp_path / "base.ckpt")
    assert run("export", [f"ckpt={base}", f"out={tmp_path / 'base'}"]) == 0
    words = ("layout=adapter", f"base={tmp_path / 'base'}")
    found = report(capsys, "export", f"ckpt={checkpoint}", f"out={tmp_path / 'adapter'}", *words)
    assert "adapter_model.safetensors" in found["files"]
    assert "model.safetensors" not in found["files"]
    there, back = TrainedPolicy.from_checkpoint(checkpoint), TrainedPolicy.from_checkpoint(tmp_path / "adapter")
    assert torch.equal(logits_of(there.network), logits_of(back.network))


@pytest.mark.parametrize("layout", ["hf", "ckpt"])
def test_a_dtype_is_written_and_the_contract_holds_in_it(checkpoint: Path, tmp_path: Path, layout: str) -> None:
    words = [f"ckpt={checkpoint}", f"out={tmp_path / layout}", f"layout={layout}", "dtype=bf16"]
    assert run("export", words) == 0
    policy = TrainedPolicy.from_checkpoint(tmp_path / layout, strict=True)
    assert {p.dtype for p in policy.network.parameters()} == {torch.bfloat16}


def test_an_adapter_is_not_quantised(tmp_path: Path, capsys: Capture) -> None:
    words = [f"ckpt={tmp_path / 'none'}", f"out={tmp_path / 'out'}", "layout=adapter", "quantize=int8"]
    assert "merges the adapter" in complaint(capsys, "export", *words)


def test_a_target_that_exists_or_an_unknown_word_is_said_before_anything_is_loaded(
    tmp_path: Path, capsys: Capture
) -> None:
    """The checkpoint is not there: were it looked for first, that would be the complaint."""
    (tmp_path / "there").mkdir()
    words = (f"ckpt={tmp_path / 'none.ckpt'}",)
    says(complaint(capsys, "export", *words, f"out={tmp_path / 'there'}"), "there already", tmp_path / "there")
    new = f"out={tmp_path / 'new'}"
    says(complaint(capsys, "export", *words, new, "layout=hff"), "hff", "hf")
    says(complaint(capsys, "export", *words, new, "dtype=bf61"), "bf61", "bf16")
    says(complaint(capsys, "export", *words, new), "no checkpoint here", "none.ckpt")
    assert not (tmp_path / "new").exists()


def test_a_damaged_checkpoint_leaves_no_target(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    says(complaint(capsys, "export", f"ckpt={checkpoint}", f"out={tmp_path / 'hf'}"), checkpoint, "cannot be read")
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_a_broken_contract_leaves_no_target_unless_it_may(
    checkpoint: Path, bridge_statistics: DatasetStatistics, tmp_path: Path, capsys: Capture
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    bin_width = (bridge_statistics.q99 - bridge_statistics.q01)[0] / 255
    content["vlakit"]["contract"]["frames"][0]["actions"][0][0] += 5 * float(bin_width)
    torch.save(content, checkpoint)
    words = (f"ckpt={checkpoint}", f"out={tmp_path / 'hf'}")
    says(complaint(capsys, "export", *words), "ContractBroken", "5 bins", checkpoint)
    assert not (tmp_path / "hf").exists()
    assert run("export", [*words, "strict=false"]) == 0
