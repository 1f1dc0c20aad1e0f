"""quantize=int8|int4 of the verbs: what they print, what they keep, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import complaint, report, says
from tiny_runs import built, saved

from vlakit.compare.records import read_header
from vlakit.configs import FOLDERS
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Sample
from vlakit.strategies.lora import Lora

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tiny_processor: TokenProcessor, samples: list[Sample], tmp_path: Path) -> Path:
    module = built(Lora, tiny_processor, rank=2)
    module.answer_golden(samples)
    return saved(module, tmp_path / "lora.ckpt")


def test_score_says_what_became_smaller_how_near_and_fast_it_is_and_draws_if_asked(
    checkpoint: Path, bridge_shards: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = [f"ckpt={checkpoint}", f"data={bridge_shards}", "max_frames=2", "plots=1", f"out={tmp_path / 'out'}"]
    found = report(capsys, "score", *words, "quantize=int8", "quantize_also=[vision]")["quantization"]
    assert found["scheme"] == "int8"
    assert found["weight_bytes_after"] < 0.6 * found["weight_bytes_before"]
    assert found["golden"]["frames"] == 3
    assert 0 < found["latency"]["p50_ms"] <= found["latency"]["p95_ms"]
    assert found["asked"] == {"quantize": "int8", "quantize_also": ["vision"]}
    pictures = list((tmp_path / "out").glob("*.png"))
    assert len(pictures) == 1
    pictures[0].unlink()
    assert "quantization" not in report(capsys, "score", *words, "plots=0")
    assert not list((tmp_path / "out").glob("*.png"))


def test_what_is_exported_in_eight_bits_answers_as_it_did(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    found = report(capsys, "export", f"ckpt={checkpoint}", f"out={tmp_path / 'small'}", "quantize=int8", "dtype=bf16")
    assert "quantization.json" in found["files"]
    assert found["quantization"]["layers"] > 10
    policy = TrainedPolicy.from_checkpoint(tmp_path / "small", strict=True)
    assert policy.quantization is not None
    said = complaint(capsys, "export", f"ckpt={tmp_path / 'small'}", f"out={tmp_path / 'again'}", "quantize=int4")
    says(said, "quantised already: int8", "quantize=none")


def test_records_say_in_how_many_bits_a_policy_answered(
    checkpoint: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "conf" / "suite"
    folder.mkdir(parents=True)
    fake = "_target_: fake_suite.FakeSuite\nname: fake\ncontrol_hz: 5.0\nlimit: 3\ndataset: bridge_orig\n"
    (folder / "fake.yaml").write_text(fake)
    monkeypatch.setenv(FOLDERS, str(folder.parent))
    words = ["suite=fake", f"ckpt={checkpoint}", "episodes=2", "slots=2", "gate=false", "strict=false"]
    found = report(capsys, "evaluate", *words, f"out={tmp_path / 'eight'}", "quantize=int8")
    assert found["quantization"]["latency"]["p50_ms"] > 0
    assert read_header(tmp_path / "eight")["settings"]["policy"]["quantize"] == "int8"


def test_other_numbers_of_bits_are_refused(checkpoint: Path, capsys: Capture) -> None:
    says(complaint(capsys, "score", f"ckpt={checkpoint}", "quantize=int3"), "quantize", "int8")
    says(complaint(capsys, "serve", f"ckpt={checkpoint}", "quantize_also=[head]"), "quantize_also", "vision")
