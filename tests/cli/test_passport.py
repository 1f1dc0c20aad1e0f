"""`vlakit passport` and `vlakit reproduce`: a run that is made again is the same, and what cannot be is refused."""

import json
import shutil
from pathlib import Path

import pytest
from commands import complaint, edited, report, run, says, train_here
from fake_suite import statistics
from tiny_runs import built, saved

from vlakit.evaluation.records import EPISODES, HEADER
from vlakit.processing.tokens import TokenProcessor
from vlakit.reports.passport.passport import PASSPORT
from vlakit.strategies.full import Full

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("own_suites")
TRAINED = ("steps=2", "validate_every=2", "evaluate.suite=fake_bridge", "evaluate.gate=false")


def test_an_expert_is_reproduced_to_the_last_episode(expert: Path, capsys: Capture) -> None:
    written = report(capsys, "passport", f"run={expert}")
    assert {Path(file).name for file in written["files"]} == {PASSPORT, "README.md"}
    found = report(capsys, "reproduce", f"passport={expert / 'passport'}")
    assert (found["verdict"], found["identical"], found["n"], found["trained"]) == ("reproduced", 6, 6, False)
    assert json.loads((Path(found["out"]) / "reproduction.json").read_text()) == found


def test_episodes_that_end_otherwise_are_not_reproduced_and_the_exit_status_says_so(
    expert: Path, tmp_path: Path, capsys: Capture
) -> None:
    lines = (json.loads(line) for line in (expert / EPISODES).read_text().splitlines())
    failed = [json.dumps({**line, "success": False, "credit": 0.0}) for line in lines]
    (expert / EPISODES).write_text("".join(f"{line}\n" for line in failed))
    report(capsys, "passport", f"run={expert}")
    words = [f"passport={expert / 'passport' / PASSPORT}", f"out={tmp_path / 'again'}"]
    assert run("reproduce", words) == 1
    says(
        capsys.readouterr().out, "0 of 6", "outside the recorded 0.0 %", "+100.0 points", "p = 0.0156", "not reproduced"
    )
    says(complaint(capsys, "reproduce", *words), "there already", "out=DIR")


def test_a_stored_checkpoint_is_found_beside_its_passport_and_evaluated_again(evaluated: Path, capsys: Capture) -> None:
    written = report(capsys, "passport", f"run={evaluated}")
    assert [Path(file).name for file in written["files"]] == [PASSPORT, "README.md"]
    moved = evaluated.rename(evaluated.with_name("moved"))
    found = report(capsys, "reproduce", f"passport={moved / 'passport'}")
    assert (found["verdict"], found["same_policy"]) == ("reproduced", True)


def test_a_checkpoint_that_changed_is_refused_by_both(
    evaluated: Path, tiny_processor: TokenProcessor, capsys: Capture
) -> None:
    report(capsys, "passport", f"run={evaluated}")
    saved(built(Full, tiny_processor.for_training({"fake_dots": statistics()}, None), seed=1), evaluated / "last.ckpt")
    says(complaint(capsys, "passport", f"run={evaluated}"), "not the one that was evaluated in fake", "last.ckpt")
    says(complaint(capsys, "reproduce", f"passport={evaluated / 'passport'}"), "sha256", "ckpt=FILE")
    (evaluated / "last.ckpt").unlink()
    says(complaint(capsys, "reproduce", f"passport={evaluated / 'passport'}"), "last.ckpt is not here", "ckpt=FILE")
    says(complaint(capsys, "passport", f"run={evaluated}"), "was evaluated", "is not here")


def test_two_evaluations_of_a_suite_are_refused_before_one_replaces_the_other(expert: Path, capsys: Capture) -> None:
    both = expert.with_name("both")
    copies = [shutil.copytree(expert, both / name) for name in ("first", "second")]
    says(complaint(capsys, "passport", f"run={both}"), "2 evaluations in fake", *copies)
    assert not (both / "passport").exists()


def test_a_setting_of_the_suite_can_be_told_to_reproduce(expert: Path, tmp_path: Path, capsys: Capture) -> None:
    report(capsys, "passport", f"run={expert}")
    out = tmp_path / "again"
    assert run("reproduce", [f"passport={expert / 'passport'}", "suite.limit=1", f"out={out}"]) == 1
    assert json.loads((out / "reproduction.json").read_text())["success"] == 0.0


def test_what_did_not_end_has_no_passport(expert: Path, tmp_path: Path, capsys: Capture) -> None:
    whole = (expert / EPISODES).read_text().splitlines(keepends=True)
    (expert / EPISODES).write_text("".join(whole[:-1]))
    says(complaint(capsys, "passport", f"run={expert}"), "did not end: 5 of 6", expert)
    (expert / EPISODES).unlink()
    says(complaint(capsys, "passport", f"run={expert}"), "did not end: 0 of 6")
    (tmp_path / "runs" / "job").mkdir(parents=True)
    says(complaint(capsys, "passport", f"run={tmp_path / 'runs' / 'job'}"), "no evaluation here")
    (tmp_path / "runs" / "job" / "job.json").write_text('{"status": "failed"}')
    says(complaint(capsys, "passport", f"run={tmp_path / 'runs' / 'job'}"), "the run is failed")
    says(complaint(capsys, "passport", "run=lora_r32"), "no recorded run is called 'lora_r32'")
    assert not (tmp_path / "runs" / "mlflow.db").exists()  # asking makes no store


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["passport", "card.url=me"], ["card.url=me", "a URL"]),
        (["passport", "card.benchmark=libero"], ["card.benchmark=libero", "ORGANISATION/DATASET"]),
        (["reproduce", "margin=2.0"], ["margin=2.0"]),
        (["reproduce", "train=true"], ["records no training"]),
    ],
    ids=lambda words: words[-1],
)
def test_words_that_mean_nothing_are_refused(words: list[str], parts: list[str], expert: Path, capsys: Capture) -> None:
    report(capsys, "passport", f"run={expert}")
    key = "run" if words[0] == "passport" else "passport"
    place = expert if words[0] == "passport" else expert / "passport"
    says(complaint(capsys, words[0], f"{key}={place}", *words[1:]), *parts)


def test_a_later_passport_and_another_world_are_refused(expert: Path, tmp_path: Path, capsys: Capture) -> None:
    report(capsys, "passport", f"run={expert}")
    file = expert / "passport" / PASSPORT
    whole = json.loads(file.read_text())
    says(complaint(capsys, "reproduce", f"passport={edited(file, passport=2)}"), "version 2", "reads 1")
    file.write_text("{}")
    says(complaint(capsys, "reproduce", f"passport={file}"), "no passport", file)
    (evaluation,) = whole["evaluations"]
    evaluation["settings"]["versions"]["renderer"] = "osmesa"
    edited(file, **{**whole, "evaluations": [evaluation]})
    says(complaint(capsys, "reproduce", f"passport={file}"), "renderer osmesa, here dots", "suite fake")
    evaluation["settings"]["versions"]["renderer"], evaluation["settings"]["states"] = "dots", "0" * 16
    edited(file, **{**whole, "evaluations": [evaluation]})
    says(complaint(capsys, "reproduce", f"passport={file}"), "initial states 0000000000000000, here")


@pytest.mark.parametrize(
    "change", [{"_target_": "torch.load"}, {"name": {"_target_": "torch.load"}}, {"limt": 3}], ids=str
)
def test_a_passport_chooses_no_code_and_no_setting_that_is_not_there(
    change: dict[str, object], expert: Path, tmp_path: Path, capsys: Capture
) -> None:
    report(capsys, "passport", f"run={expert}")
    file = expert / "passport" / PASSPORT
    (evaluation,) = json.loads(file.read_text())["evaluations"]
    evaluation["settings"]["suite_settings"] |= change
    edited(file, evaluations=[evaluation])
    says(complaint(capsys, "reproduce", f"passport={file}", f"out={tmp_path / 'again'}"), file)
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_a_training_is_made_again_to_the_bit_from_its_passport_alone(tmp_path: Path, capsys: Capture) -> None:
    train_here(tmp_path, *TRAINED, "evaluate.episodes=4", "logger.experiment=own")
    ran, out = tmp_path / "runs" / "run", tmp_path / "elsewhere"
    written = report(capsys, "passport", f"run={ran}", f"out={out}")
    content = json.loads((out / PASSPORT).read_text())
    assert str(tmp_path) not in (out / PASSPORT).read_text()
    assert len(content["training"]["record"]["commit"]) == 40  # from the run's own store
    assert content["evaluations"][0]["checkpoint"]["rule"] == {"monitor": None}
    assert written["unknown"] == [line for line in written["unknown"] if line.startswith(("overrides", "license"))]
    shutil.rmtree(ran)
    found = report(capsys, "reproduce", f"passport={out}")
    assert (found["verdict"], found["identical"], found["same_policy"], found["trained"]) == (
        "reproduced",
        4,
        True,
        True,
    )

    planted = json.loads(json.dumps(content))
    planted["training"]["config"]["callbacks"] = {"x": {"_target_": "torch.load", "f": "evil.pt"}}
    edited(out / PASSPORT, **planted)
    says(complaint(capsys, "reproduce", f"passport={out}"), "_target_ torch.load", "trusted=[MODULE]", out)
    content["training"]["shards"] = {"bridge_orig": "0" * 64}
    edited(out / PASSPORT, **content)
    says(complaint(capsys, "reproduce", f"passport={out}"), "bridge_orig was 000000000000, is", "data.root=DIR")
    content["training"]["config"]["data"]["sources"] = {}
    edited(out / PASSPORT, **content)
    says(complaint(capsys, "reproduce", f"passport={out}", "data.root=/nowhere"), "the data is not here", "/nowhere")
    says(complaint(capsys, "reproduce", f"passport={out}", "train=false"), "last.ckpt is not here")


@pytest.mark.slow
def test_a_recorded_run_is_found_by_its_id_and_one_that_stopped_is_refused(tmp_path: Path, capsys: Capture) -> None:
    train_here(tmp_path, *TRAINED, "evaluate.episodes=2")
    ran = tmp_path / "runs" / "run"
    report(capsys, "passport", f"run={ran}")
    run_id = json.loads((ran / "passport" / PASSPORT).read_text())["training"]["mlflow_run_id"]
    named = report(capsys, "passport", f"run={run_id}")
    assert named["files"][0] == str(ran / "passport" / PASSPORT)
    config = (ran / "config.yaml").read_text().replace("max_steps: 2", "max_steps: 5")
    (ran / "config.yaml").write_text(config)
    says(complaint(capsys, "passport", f"run={ran}"), "stopped at step 2 of 5", "ckpt_path=")
    header = ran / "evaluation" / "fake_bridge" / HEADER
    best = edited(header, subject=str(ran / "best.ckpt"))
    assert json.loads(best.read_text())["subject"].endswith("best.ckpt")
    report(capsys, "passport", f"run={ran}", "verify=false")
    rule = json.loads((ran / "passport" / PASSPORT).read_text())["evaluations"][0]["checkpoint"]["rule"]
    assert (rule["monitor"], rule["mode"], rule["held_out"]["val_fraction"]) == ("val/loss", "min", 0.2)
    says((ran / "passport" / "README.md").read_text(), "lowest val/loss on held-out demonstrations")
