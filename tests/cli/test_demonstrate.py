"""The demonstrate verb: a suite's expert becomes an RLDS folder that vlakit reads like any other."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import complaint, report, run, says

from vlakit.configs import FOLDERS
from vlakit.data.rlds.reader import open_rlds, parse_episode, read_records
from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import load_spec
from vlakit.evaluation.demonstration_writer import RECORD


@pytest.fixture
def conf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the suite of the tests."""
    root = tmp_path / "conf"
    (root / "suite").mkdir(parents=True)
    (root / "suite" / "line.yaml").write_text("_target_: suites.LineSuite\ngain: 1.0\n")
    monkeypatch.setenv(FOLDERS, str(root))
    return root


def words(tmp_path: Path, *more: str) -> list[str]:
    return ["suite=line", "episodes=3", f"out={tmp_path / 'out'}", *more]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.usefixtures("conf")
def test_the_folder_is_read_as_rlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = report(capsys, "demonstrate", *words(tmp_path))
    folder = open_rlds(tmp_path / "out")
    assert folder.name == "line"
    (file,) = folder.splits["train"]
    episodes = [parse_episode(payload, folder.features) for _, payload in read_records(file)]
    assert len(episodes) == 6 == sum(tally["kept"] for tally in said["tasks"].values())
    first = episodes[0]
    assert first.metadata["episode_metadata/initial_state"] == b"left/train-0-0"
    assert set(first.steps["language_instruction"]) == {b"move left"}
    assert np.shape(first.steps["action"]) == (first.n_steps, 7)
    assert list(first.steps["is_last"]) == [False] * (first.n_steps - 1) + [True]


@pytest.mark.usefixtures("conf")
def test_shards_keep_images_and_actions_to_the_last_bit(tmp_path: Path) -> None:
    from vlakit.data.shards.reader import SampleRef, ShardFolder

    assert run("demonstrate", words(tmp_path)) == 0
    spec = tmp_path / "line.yaml"
    content = {
        "images": {"primary": "image"},
        "language": "language_instruction",
        "action": [{"take": "action"}],
        "action_encoding": "EEF_POS",
    }
    spec.write_text(yaml.safe_dump(content))
    convert(tmp_path / "out", tmp_path / "shards", load_spec(spec), val_fraction=0.2)
    shards = ShardFolder.open(tmp_path / "shards")
    (file,) = open_rlds(tmp_path / "out").splits["train"]
    raw = [parse_episode(payload, open_rlds(tmp_path / "out").features) for _, payload in read_records(file)]
    stored = {np.asarray(episode.steps["action"]).tobytes() for episode in raw}
    rows = [row for split in ("train", "val") for row in shards.episodes(split)]
    refs = [(row, SampleRef(shards.dataset, row.shard, row.first_frame)) for row in rows]
    assert {shards.read_sample(ref, chunk=row.n_frames).actions.tobytes() for row, ref in refs} == stored


@pytest.mark.usefixtures("conf")
def test_the_same_command_again_does_nothing_and_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = report(capsys, "demonstrate", *words(tmp_path))
    written = snapshot(tmp_path / "out")
    assert report(capsys, "demonstrate", *words(tmp_path)) == first
    assert snapshot(tmp_path / "out") == written


@pytest.mark.usefixtures("conf")
def test_a_killed_command_leaves_nothing_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("demonstrate", words(tmp_path)) == 0
    whole = snapshot(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "out.partial")  # as if killed before the last rename
    (tmp_path / "out.partial" / RECORD).unlink()
    assert run("demonstrate", words(tmp_path)) == 0
    assert snapshot(tmp_path / "out") == whole


@pytest.mark.usefixtures("conf")
def test_another_plan_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demonstrate", words(tmp_path)) == 0
    written = snapshot(tmp_path / "out")
    says(complaint(capsys, "demonstrate", *words(tmp_path, "seed=1")), "another plan", tmp_path / "out")
    assert snapshot(tmp_path / "out") == written


@pytest.mark.usefixtures("conf")
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    says(complaint(capsys, "demonstrate", *words(tmp_path)), "something else", "out=DIR")


@pytest.mark.usefixtures("conf")
def test_text_says_how_often_the_expert_succeeded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demonstrate", words(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "left" in out
    assert "6 episodes" in out


@pytest.mark.usefixtures("conf")
def test_a_suite_that_does_not_exist_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says(complaint(capsys, "demonstrate", "suite=lien", f"out={tmp_path}"), "no suite called 'lien'", "line")


def test_a_suite_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    says(complaint(capsys, "demonstrate"), "no suite was named", "suite=NAME")
