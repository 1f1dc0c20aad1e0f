"""`tiny` is the shipped checkpoint, and only while its bytes are those of the checksum."""

from hashlib import sha256
from pathlib import Path

import pytest

from vlakit.checkpoints.shipped import resolve
from vlakit.errors import CheckpointMismatch, PartMissing


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    (tmp_path / "tiny.ckpt").write_bytes(b"weights")
    (tmp_path / "tiny.ckpt.sha256").write_text(f"{sha256(b'weights').hexdigest()}  tiny.ckpt\n")
    return tmp_path


def test_the_name_is_the_shipped_file(assets: Path) -> None:
    assert resolve("tiny", assets) == assets / "tiny.ckpt"


def test_any_other_word_is_a_path(assets: Path) -> None:
    assert resolve("./tiny", assets) != assets / "tiny.ckpt"
    assert resolve(Path("runs/x"), assets) == Path("runs/x")


def test_other_bytes_are_refused(assets: Path) -> None:
    (assets / "tiny.ckpt").write_bytes(b"other weights")
    with pytest.raises(CheckpointMismatch, match="checksum"):
        resolve("tiny", assets)


@pytest.mark.parametrize("name", ["tiny.ckpt", "tiny.ckpt.sha256"])
def test_a_model_that_is_not_there_is_said_not_to_be_trained(assets: Path, name: str) -> None:
    (assets / name).unlink()
    with pytest.raises(PartMissing, match="not been trained yet") as caught:
        resolve("tiny", assets)
    assert "experiments/tiny_pretraining" in caught.value.do
