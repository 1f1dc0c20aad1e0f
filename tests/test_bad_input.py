"""Bad input ends in one error that says what, where and what to do; nothing half-written stays behind."""

import io
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import complaint, run, says
from PIL import Image
from rlds_writer import dataset, example, floats, strings, tensor, write_folder

from vlakit.data.source import SAMPLE
from vlakit.errors import CorruptRecord

FILE = "toy-train.tfrecord-00000-of-00001"
SPEC = """
images: {primary: image}
language: instruction
action: [{take: action}]
"""
TREE = dataset(
    {
        "action": tensor("float32", 7),
        "instruction": {"text": {}},
        "observation": {"featuresDict": {"features": {"image": {"image": {"dtype": "uint8"}}}}},
    }
)


def picture(side: int = 16, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, "JPEG")
    return stream.getvalue()


def episode(**changes: bytes) -> dict[str, bytes]:
    plain = {
        "action": floats(*np.linspace(-0.5, 0.5, 14)),
        "instruction": strings(b"lift", b"lift"),
        "image": strings(picture(), picture()),
    }
    keys = {"action": "steps/action", "instruction": "steps/instruction", "image": "steps/observation/image"}
    return {keys[name]: value for name, value in {**plain, **changes}.items()}


def rlds(folder: Path, *episodes: dict[str, bytes]) -> Path:
    (folder / "toy.yaml").write_text(SPEC)
    return write_folder(folder / "toy" / "1.0.0", TREE, {FILE: [example(content) for content in episodes]})


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """Converting a source fails and leaves no shard under its final name."""

    def convert(source: Path, *words: object) -> str:
        out = tmp_path / "out"
        said = complaint(capsys, "shards", f"dataset={tmp_path / 'toy.yaml'}", f"source={source}", f"out={out}", *words)
        assert [f.name for f in tmp_path.rglob("*") if f.suffix == ".tar" or f.name == "shardindex.json"] == []
        return said

    return convert


def test_the_toy_source_itself_is_sound(tmp_path: Path) -> None:
    source = rlds(tmp_path, episode(), episode(instruction=strings(b"push", b"push")))
    assert run("shards", [f"dataset={tmp_path / 'toy.yaml'}", f"source={source}", f"out={tmp_path / 'out'}"]) == 0


def test_a_truncated_record(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    source = rlds(tmp_path, episode(), episode())
    file = source / FILE
    file.write_bytes(file.read_bytes()[:-20])
    says(refused(source), "CorruptRecord", "ends inside a record", file, "record 1", "fetch it again")


@pytest.mark.parametrize(("position", "what"), [(40, "fails its checksum"), (2, "length of a record fails")])
def test_a_wrong_checksum(tmp_path: Path, refused: Callable[[Path], str], position: int, what: str) -> None:
    source = rlds(tmp_path, episode())
    data = bytearray((source / FILE).read_bytes())
    data[position] ^= 4
    (source / FILE).write_bytes(data)
    says(refused(source), "CorruptRecord", what, source / FILE, "record 0", "fetch the file again")


def test_an_intact_record_that_is_no_example(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    (tmp_path / "toy.yaml").write_text(SPEC)
    source = write_folder(tmp_path / "toy" / "1.0.0", TREE, {FILE: [b"\xff" * 30]})
    says(refused(source), "CorruptRecord", source / FILE, "record 0")


def test_a_missing_feature(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    content = episode()
    del content["steps/action"]
    says(refused(rlds(tmp_path, episode(), content)), "FeatureMissing", "steps/action", "record 1", FILE)


def test_a_feature_that_the_source_never_had(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    source = rlds(tmp_path, episode())
    (tmp_path / "toy.yaml").write_text(SPEC.replace("take: action", "take: acton"))
    says(refused(source), "acton", "did you mean action")


def test_an_action_of_another_size(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    source = rlds(tmp_path, episode())
    (tmp_path / "toy.yaml").write_text(SPEC.replace("take: action", "take: action, cols: [0, 6]"))
    says(refused(source), "InvalidData", "shape (2, 6), expected (T, 7)", "record 0", FILE, "action segments")


def test_an_action_that_is_not_a_number(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    source = rlds(tmp_path, episode(), episode(action=floats(*[0.0] * 9, float("nan"), *[0.0] * 4)))
    says(refused(source), "ActionNotFinite", "step 1", "nan", "record 1", FILE)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (b"\xff\xd8 no jpeg", "header"),
        (picture(mode="L"), "mode L"),
        (picture(side=8), "8 x 8"),
        (b"GIF87a", "its format is unknown"),
    ],
    ids=["broken", "another mode", "another size", "another format"],
)
def test_an_image_of_another_kind(tmp_path: Path, refused: Callable[[Path], str], image: bytes, what: str) -> None:
    source = rlds(tmp_path, episode(), episode(image=strings(picture(), image)))
    says(refused(source), what, "record 1, byte", "step 1, camera primary", FILE)


def test_a_source_without_a_train_episode(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    says(refused(rlds(tmp_path)), "InvalidData", "no train episodes", tmp_path / "toy")


def test_a_source_whose_episodes_are_all_empty(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    nothing = episode(action=floats(), instruction=strings(), image=strings())
    says(refused(rlds(tmp_path, nothing)), "every train episode was skipped", "no step: 1", tmp_path / "toy")


@pytest.mark.parametrize("kind", ["absent", "empty folder", "file"])
def test_a_source_that_is_no_rlds_folder(tmp_path: Path, refused: Callable[[Path], str], kind: str) -> None:
    rlds(tmp_path, episode())
    source = tmp_path / "source"
    if kind == "empty folder":
        source.mkdir()
    if kind == "file":
        source.write_text("x")
    says(refused(source), source)


def test_an_unknown_dataset(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = complaint(capsys, "shards", "dataset=brigde_orig", "source=sample", f"out={tmp_path / 'out'}")
    says(said, "no dataset called 'brigde_orig'", "conf/dataset", "did you mean bridge_orig")
    assert not (tmp_path / "out").exists()


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond `limit` bytes: the only full disk that needs no mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_while_converting(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    source = rlds(tmp_path, *[episode()] * 20)
    with small_disk(4096):
        said = refused(source)
    says(said, "DiskFull", tmp_path / "out", "free some space")
    assert list(tmp_path.rglob("*.partial")) == []


def test_debug_shows_where_it_was_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(shutil.copytree(SAMPLE, tmp_path / "copy"))
    for file in source.rglob("*-train.tfrecord-*"):
        file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setenv("VLAKIT_DEBUG", "1")
    with pytest.raises(CorruptRecord):
        run("shards", ["dataset=bridge_orig", f"source={source}", f"out={tmp_path / 'out'}"])


def test_a_file_in_the_place_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    said = complaint(capsys, "shards", "dataset=bridge_orig", "source=sample", f"out={tmp_path / 'taken'}")
    says(said, "cannot write here: Not a directory", tmp_path / "taken", "name a folder")
