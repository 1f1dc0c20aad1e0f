"""`vlakit evaluate` and `vlakit replay`: records, refusals, exit statuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import complaint, report, run, says
from fake_suite import statistics
from tiny_runs import built, saved

from vlakit.compare.records import read_header
from vlakit.configs import FOLDERS
from vlakit.evaluation.records import EPISODES, read_episodes
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.full import Full
from vlakit.tracking.mlflow import client, experiment_id

Capture = pytest.CaptureFixture[str]
FAKE = "_target_: fake_suite.FakeSuite\nname: fake\ncontrol_hz: 5.0\nlimit: 8\n"


@pytest.fixture(autouse=True)
def _own_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf"
    (folder / "suite").mkdir(parents=True)
    (folder / "suite" / "fake.yaml").write_text(FAKE)
    (folder / "suite" / "diverging.yaml").write_text(FAKE + "raises_at: {far-001: 1}\n")
    monkeypatch.setenv(FOLDERS, str(folder))
    monkeypatch.setenv("VLAKIT_RUNS", str(tmp_path / "runs"))


def checkpoint(processor: TokenProcessor, file: Path, scale: float = 1.0, seed: int = 0, **card: object) -> Path:
    """A tiny model of random weights that knows statistics of the suite's dataset."""
    path = saved(built(Full, processor.for_training({"fake_dots": statistics(scale)}, None), seed=seed), file)
    content = torch.load(path, weights_only=True)
    content["vlakit"].update(card)
    torch.save(content, path)
    return path


def words(ckpt: Path, out: Path) -> list[str]:
    return ["suite=fake", f"ckpt={ckpt}", f"out={out}", "episodes=4", "slots=2", "gate_episodes=4"]


def test_the_expert_succeeds_and_every_episode_is_recorded(tmp_path: Path, capsys: Capture) -> None:
    found = report(capsys, "evaluate", "suite=fake", "policy=expert", "episodes=12")
    assert (found["success"], found["episodes"], found["errors"]) == (1.0, 12, 0)
    assert {row["task"]: row["episodes"] for row in found["tasks"]} == {"reach": 6, "far": 6}
    assert Path(found["out"]) == tmp_path / "runs" / "controls" / "fake" / "expert"
    assert len(read_episodes(found["out"])) == 12
    assert read_header(found["out"])["settings"]["slots"] == 12  # of 32: no episode would ever fill the others
    assert read_header(found["out"])["settings"]["suite_settings"]["_target_"] == "fake_suite.FakeSuite"


def test_the_table_has_a_line_a_task_and_its_interval(capsys: Capture) -> None:
    assert run("evaluate", ["suite=fake", "policy=nothing", "episodes=4"]) == 0
    out = capsys.readouterr().out
    says(out, "nothing on fake", "95 % interval", "[0.000, 0.658]")
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["reach", "far", "all"]


@pytest.mark.slow
def test_an_evaluation_cut_off_goes_on_to_the_same_episodes(
    tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture
) -> None:
    ckpt = checkpoint(tiny_processor, tmp_path / "x.ckpt")
    report(capsys, "evaluate", *words(ckpt, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    lines = (tmp_path / "whole" / EPISODES).read_bytes().splitlines(keepends=True)
    (tmp_path / "cut" / EPISODES).write_bytes(b"".join(lines[:1]) + lines[1][:50])
    found = report(capsys, "evaluate", *words(ckpt, tmp_path / "cut"), "workers=0")
    assert read_episodes(tmp_path / "cut") == read_episodes(tmp_path / "whole")
    assert found["gate"]["passed"]


def test_the_gate_is_recorded_and_refuses_other_statistics_unless_told(
    tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture
) -> None:
    broken = checkpoint(tiny_processor, tmp_path / "broken.ckpt", scale=0.2)
    says(complaint(capsys, "evaluate", *words(broken, tmp_path / "out")), "GateClosed", "0 of 20", "gate=false")
    assert not (tmp_path / "out" / EPISODES).exists()
    assert read_header(tmp_path / "out")["gate"]["passed"] is False
    assert run("evaluate", [*words(broken, tmp_path / "out"), "gate=false"]) == 0
    assert read_header(tmp_path / "out")["gate"] == {"skipped": "gate=false"}


@pytest.mark.slow
def test_another_checkpoints_folder_is_refused(tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture) -> None:
    first, second = (checkpoint(tiny_processor, tmp_path / f"{seed}.ckpt", seed=seed) for seed in (0, 1))
    assert run("evaluate", [*words(first, tmp_path / "out"), "gate=false"]) == 0
    says(complaint(capsys, "evaluate", *words(second, tmp_path / "out")), "policy.sha256 was", tmp_path / "out")
    moved = Path(shutil.copy(first, tmp_path / "moved.ckpt"))
    assert run("evaluate", [*words(moved, tmp_path / "out"), "gate=false"]) == 0


def test_a_checkpoint_of_other_surroundings_is_refused_unless_told(
    tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture
) -> None:
    ckpt = checkpoint(tiny_processor, tmp_path / "x.ckpt", surroundings={"control_hz": 10.0})
    says(complaint(capsys, "evaluate", *words(ckpt, tmp_path / "out")), "control_hz was 10.0, is 5.0", ckpt)
    assert run("evaluate", [*words(ckpt, tmp_path / "out"), "strict=false"]) == 0
    assert read_header(tmp_path / "out")["settings"]["policy"]["overridden"] == ["control_hz"]


def test_episodes_that_fail_by_an_error_are_recorded_and_the_exit_status_says_so(
    tmp_path: Path, capsys: Capture
) -> None:
    asked = ["suite=diverging", "policy=expert", "episodes=6", f"out={tmp_path / 'out'}"]
    assert run("evaluate", asked) == 1
    captured = capsys.readouterr()
    says(captured.out, "far-001", "RuntimeError: the contact solver diverged")
    assert "Traceback" not in captured.err
    records = read_episodes(tmp_path / "out")
    assert [record.success for record in records] == [record.initial_state != "far-001" for record in records]


def test_a_policy_that_answers_nan_is_recorded_and_the_exit_status_says_so(
    tiny_processor: TokenProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = TrainedPolicy.act
    monkeypatch.setattr(TrainedPolicy, "act", lambda self, observations: act(self, observations) * float("nan"))
    ckpt = checkpoint(tiny_processor, tmp_path / "x.ckpt")
    assert run("evaluate", words(ckpt, tmp_path / "out")) == 1
    assert all("not finite" in str(record.error) for record in read_episodes(tmp_path / "out"))


def test_videos_and_a_contact_sheet_are_written(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("av")
    found = report(capsys, "evaluate", "suite=fake", "policy=expert", "episodes=4", "videos=2", "picture_size=32")
    names = [Path(file).name for file in found["files"]]
    assert names == ["contact_sheet.png", "0000_reach_success.mp4", "0001_far_success.mp4"]
    assert all(Path(file).is_file() for file in found["files"])


@pytest.mark.slow
def test_success_is_filed_in_the_checkpoints_own_run(
    tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store = client(uri)
    run_id = store.create_run(experiment_id(store, "vlakit", str(tmp_path / "artifacts"))).info.run_id
    ckpt = checkpoint(tiny_processor, tmp_path / "x.ckpt", mlflow_run_id=run_id)
    found = report(capsys, "evaluate", *words(ckpt, tmp_path / "out"), f"tracking_uri={uri}")
    metrics = store.get_run(run_id).data.metrics
    assert metrics == dict.fromkeys(
        ["eval/success", "eval/success/fake", "eval/success/reach", "eval/success/far"], found["success"]
    )


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        (["suite=fakes", "policy=expert"], ["no suite called 'fakes'", "fake"]),
        (["suite=fake", "policy=expert", "tasks=[reech]"], ["no task 'reech'", "reach"]),
        (["suite=fake", "policy=expret"], ["expret", "expert"]),
        (["suite=fake", "policy=expert", "suite.control_h=3"], ["suite.control_h", "suite.control_hz"]),
        (["suite=fake", "policy=expert", "control.latency_ms=measured"], ["batch", "slots=1"]),
        (["suite=fake", "policy=expert", "ckpt=x.ckpt"], ["both given"]),
        (["policy=expert"], ["no suite was named"]),
        (["suite=fake"], ["no value for 'ckpt'"]),
        (["suite=fake", "policy=expert", "gate=no-thanks"], ["gate=no-thanks", "true or false"]),
        (["suite=fake", "policy=expert", "stop=decided"], ["stop=decided against=None", "against=DIR"]),
        (["suite=fake", "policy=expert", "stop=decided", "against=nowhere"], ["no evaluation.json here", "nowhere"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_run_is_refused_with_the_nearest_that_can(
    asked: list[str], parts: list[str], capsys: Capture
) -> None:
    assert run("evaluate", asked) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    says(said, *parts)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["ckpt=runs/base", "split=val"], "vlakit score ckpt=runs/base split=val"),
        (["ckpt=runs/base", "format=json"], "vlakit score ckpt=runs/base format=json"),
        (["suite=fake", "ckpt=x", "max_frames=8"], "vlakit score ckpt=x max_frames=8"),
        ([], "vlakit score ckpt=CKPT"),
    ],
    ids=" ".join,
)
def test_the_old_spelling_of_open_loop_says_where_it_went(words: list[str], advice: str, capsys: Capture) -> None:
    says(complaint(capsys, "evaluate", *words), advice, "suite=NAME")


def test_stopped_when_decided_it_says_so(tmp_path: Path, capsys: Capture) -> None:
    first = ["suite=fake", "policy=nothing", "episodes=20", f"out={tmp_path / 'idle'}"]
    report(capsys, "evaluate", *first)
    second = ["suite=fake", "policy=expert", "episodes=20", "slots=2", "stop=decided", f"against={tmp_path / 'idle'}"]
    stopped = report(capsys, "evaluate", *second)["stopped"]
    assert (stopped["verdict"], stopped["budget"]) == ("better", 20)
    assert stopped["pairs"] < 20
    assert run("evaluate", second) == 0
    says(capsys.readouterr().out, f"better after {stopped['pairs']} of 20 pairs (p = 0.0")
    out = tmp_path / "runs" / "controls" / "fake" / "expert"
    says(complaint(capsys, "passport", f"run={out}"), "stopped when it was decided", out)


def test_replay_passes_by_the_right_statistics_and_fails_by_wrong_ones(
    tiny_processor: TokenProcessor, tmp_path: Path, capsys: Capture
) -> None:
    right, wrong = (checkpoint(tiny_processor, tmp_path / f"{s}.ckpt", scale=s) for s in (1.0, 0.2))
    found = report(capsys, "replay", "suite=fake", f"ckpt={right}", "episodes=10")
    assert (found["success"], found["passed"], found["tried"]) == (1.0, True, 10)
    assert run("replay", ["suite=fake", f"ckpt={wrong}", "episodes=10", "format=json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_replay_of_demonstrations_on_disk(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "rlds"
    assert run("demonstrate", ["suite=fake", "noise=0", "episodes=2", f"out={out}"]) == 0
    found = report(capsys, "replay", "suite=fake", f"demonstrations={out}")
    assert (found["episodes"], found["passed"]) == (4, True)
    assert found["pixels"] < 5
