"""Passports as files: what others read of them, and when a run counts as made again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from vlakit.compare.pairs import Settings
from vlakit.errors import InvalidData
from vlakit.files import content_hash
from vlakit.reports.passport.check import check_data, compare
from vlakit.reports.passport.files import Card, readme, write_passport
from vlakit.reports.paths import portable, relocated
from vlakit.stats.intervals import wilson


def row_of(task: str, won: int, n: int) -> dict[str, Any]:
    low, high = wilson(won, n)
    return {
        "task": task, "episodes": n, "successes": won, "success": won / n, "low": low, "high": high, "credit": won / n,
        "steps": 9.0, "errors": 0,
    }  # fmt: skip


def evaluation(successes: Sequence[bool], suite: str = "fake", **settings: Any) -> dict[str, Any]:
    """One evaluation of two tasks in turn, as a passport holds it."""
    episodes = [
        {"task": ("reach", "far")[i % 2], "initial_state": f"s{i}", "seed": i, "success": won, "credit": float(won),
         "steps": 9}
        for i, won in enumerate(successes)
    ]  # fmt: skip
    told = {"suite": suite, "dataset": f"{suite}_dots", "states": "1f", "slots": 4, "control": {"latency_ms": 0}}
    policy = {"sha256": "a" * 64, "device": "cpu", "overridden": []}
    halves = [successes[start::2] for start in (0, 1)]
    tasks = [row_of(task, sum(half), len(half)) for task, half in zip(("reach", "far"), halves, strict=True)]
    return {
        "suite": suite,
        "settings": {**told, "versions": {"mujoco": "3.3.0"}, "policy": policy, **settings},
        "gate": {"skipped": "gate=false"},
        "success": row_of("all", sum(successes), len(successes)),
        "tasks": tasks,
        "episodes": episodes,
        "checkpoint": {
            "name": "last.ckpt", "sha256": "b" * 64, "strategy": "lora", "datasets": [f"{suite}_dots"], "step": 5,
            "parameters": 2_356_672, "versions": {"torch": "2.15.0"}, "rule": {"monitor": None},
        },
    }  # fmt: skip


def passport(*evaluations: dict[str, Any]) -> dict[str, Any]:
    config = {"strategy": {"_target_": "vlakit.Lora"}, "trainer": {"max_steps": 5}, "data": {"batch_size": 4}}
    training = {
        "name": "lora_r32", "seed": 7, "overrides": ["experiment=lora_r32"], "config": config, "mlflow_run_id": None,
        "shards": {"fake_dots": "c" * 64}, "weights": {"name": "<runs>/pretrain/best.ckpt", "sha256": None},
        "record": {"commit": "d" * 40, "dirty": "true"},
    }  # fmt: skip
    return {
        "passport": 1,
        "name": "lora_r32",
        "training": training,
        "evaluations": list(evaluations),
        "unknown": ["x: y"],
    }


def alternating(n: int, share: int = 2) -> list[bool]:
    return [i % share == 0 for i in range(n)]


def flipped(successes: Sequence[bool], *places: int) -> list[bool]:
    return [s != (i in places) for i, s in enumerate(successes)]


def test_the_hub_reads_name_results_and_provenance_from_the_front_matter() -> None:
    data = ModelCard(readme(passport(evaluation(alternating(8))), Card(license="mit"))).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("vlakit", "robotics", "mit")
    assert (data.base_model, data.datasets, data.model_name) == ("pretrain", ["fake_dots"], "lora_r32")
    assert {"lora", "fake"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("fake", "success_rate", 50.0)


def test_the_card_says_only_what_is_known_and_what_is_not() -> None:
    text = readme(passport(evaluation(alternating(8))), Card())
    assert "license:" not in text
    for fact in ("with uncommitted changes", "sha256 not known", "| all | 8 | 50.0 |", "no score chose it", "- x: y"):
        assert fact in text
    bare = passport(evaluation(alternating(8))) | {"training": None}
    assert "How it was made" not in readme(bare, Card())
    assert "None" not in text + readme(bare, Card())


def test_the_hub_dataset_and_the_source_of_the_results_are_what_the_user_says() -> None:
    card = Card(name="mine", benchmark="me/dots", url="https://example.org/run")
    (result,) = ModelCard(readme(passport(evaluation(alternating(8))), card)).data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("me/dots", "fake")
    assert (result.source_url, result.source_name) == ("https://example.org/run", "vlakit passport")


def test_an_unknown_licence_is_said_in_the_files(tmp_path: Path) -> None:
    files = write_passport(passport(evaluation(alternating(8))), Card(), tmp_path)
    assert [file.name for file in files] == ["passport.json", "README.md"]
    unknown = json.loads((tmp_path / "passport.json").read_text())["unknown"]
    assert [line.split(":")[0] for line in unknown] == ["x", "license"]
    assert all(line in (tmp_path / "README.md").read_text() for line in unknown)


@pytest.mark.parametrize(
    ("n", "changed", "verdict"),
    [
        (4, (), "reproduced"),  # all identical, however few
        (4, (0,), "cannot tell"),
        (2000, (0, 1), "reproduced"),  # one lost, one won
        (200, tuple(range(0, 40, 2)), "not reproduced"),  # twenty lost
    ],
)
def test_the_verdict_follows_from_the_episodes(n: int, changed: tuple[int, ...], verdict: str) -> None:
    then = alternating(n)
    found = compare([evaluation(then)], [evaluation(flipped(then, *changed))], Settings())
    assert (found.verdict, found.n, found.identical) == (verdict, n, n - len(changed))
    assert found.difference == pytest.approx(found.success - found.recorded)
    low, high = found.recorded_interval
    assert low < found.recorded < high
    assert verdict in str(found)


def test_suites_are_pooled_and_a_policy_of_other_weights_is_told_apart() -> None:
    then = [evaluation(alternating(6), suite) for suite in ("fake", "line")]
    now = [evaluation(alternating(6), "fake"), evaluation(alternating(6), "line", policy={"sha256": "e" * 64})]
    found = compare(then, now, Settings())
    assert (found.n, found.identical, found.same_policy) == (12, 12, False)
    assert "other weights" in str(found)


def test_other_initial_states_do_not_compare() -> None:
    with pytest.raises(InvalidData, match="initial states"):
        compare([evaluation(alternating(8))], [evaluation(alternating(8), states="2f")], Settings())


def test_every_dataset_that_differs_is_named() -> None:
    check_data({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, "data")
    with pytest.raises(InvalidData, match="a was 1, is 3; c was absent, is 4"):
        check_data({"a": "1", "b": "2"}, {"a": "3", "b": "2", "c": "4"}, "data")


def test_paths_leave_a_passport_and_come_back_elsewhere() -> None:
    tree = {"out": "/r/lora[seed=0]/last.ckpt", "data": ["/d", "/data2"], "word": "model.weights=/r/p/x.ckpt", "n": 3}
    portable = relocated(tree, {"/r": "<runs>", "/d": "<data>", "/r/lora[seed=0]": "<output>"})
    assert portable == {
        "out": "<output>/last.ckpt", "data": ["<data>", "/data2"], "word": "model.weights=<runs>/p/x.ckpt", "n": 3
    }  # fmt: skip
    assert relocated(portable, {"<runs>": "/r", "<data>": "/d", "<output>": "/r/lora[seed=0]"}) == tree


def test_a_path_in_a_list_of_an_override_or_in_an_address_keeps_its_name_alone() -> None:
    left = set[str]()
    tree = {"a": "data.root=/mnt/x/shards", "b": ["k=[/r/a,/home/me/b]"], "c": "sqlite:////home/me/m.db", "d": "a/b"}
    assert portable(tree, {"/r": "<runs>"}, left) == {
        "a": "data.root=<elsewhere>/shards", "b": ["k=[<runs>/a,<elsewhere>/b]"], "c": "sqlite:///<elsewhere>/m.db",
        "d": "a/b",
    }  # fmt: skip
    assert left == {"<elsewhere>/shards", "<elsewhere>/b", "<elsewhere>/m.db"}


def test_a_start_of_which_only_a_common_name_is_known_is_no_base_model() -> None:
    one = passport(evaluation(alternating(8)))
    one["training"]["weights"]["name"] = "<elsewhere>/last.ckpt"
    assert ModelCard(readme(one, Card(license="mit"))).data.base_model is None


def test_a_folders_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = content_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = content_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, content_hash(tmp_path)}) == 3
