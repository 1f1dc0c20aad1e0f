"""The shards verb: convert, convert again, verify."""

import shutil
from pathlib import Path

import pytest
from commands import complaint, report, run


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(folder.iterdir()) if f.is_file()}


def test_a_second_conversion_does_nothing_and_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset=bridge_orig", "source=sample", f"out={tmp_path / 'out'}", "val_fraction=0.2"]
    first = report(capsys, "shards", *words)
    assert {split: counts["episodes"] for split, counts in first["splits"].items()} == {"train": 20, "val": 5}
    written = snapshot(tmp_path / "out")
    assert report(capsys, "shards", *words) == first
    assert snapshot(tmp_path / "out") == written


def test_text_counts_episodes_and_says_where_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shards", ["dataset=bridge_orig", "source=sample", f"out={tmp_path / 'out'}"]) == 0
    captured = capsys.readouterr()
    assert "train: 24 episodes, 192 frames in 1 shards" in captured.out
    assert str(tmp_path / "out") in captured.out
    assert "episodes" in captured.err  # the progress bar


def test_verify_finds_nothing_in_a_sound_folder(bridge_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, "shards", f"verify={bridge_shards}") == {"folder": str(bridge_shards), "problems": []}


def test_verify_names_the_damaged_file_and_fails(
    bridge_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bridge_shards, tmp_path / "copy"))
    shard = next(copy.glob("train-*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert run("shards", [f"verify={copy}"]) == 1
    captured = capsys.readouterr()
    assert f"{shard.name}: its sha256 is not that of the index" in captured.out
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("words", [[], ["dataset=bridge_orig"], ["source=sample"]], ids=str)
def test_what_is_not_given_is_asked_for(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "source=DIR out=DIR" in complaint(capsys, "shards", *words)
