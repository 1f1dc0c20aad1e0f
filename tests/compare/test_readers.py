"""Every format is read as its kit writes it; files of another version, pending or damaged, are refused by name."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
from evaluations import foundry, lerobot, outcomes, vla_eval, write_json, write_own
from places import FIXTURES

from vlakit.compare.episodes import Start
from vlakit.compare.readers import read, readers
from vlakit.errors import CorruptRecord, InvalidData, UnknownName, VlakitError
from vlakit.evaluation.records import EPISODES, HEADER

RELEASED = FIXTURES / "tri_rollouts" / "CS"


def edited(file: Path, change: Any) -> Path:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


def test_each_reader_is_a_file_of_its_own() -> None:
    assert [reader.name for reader in readers()] == [
        *("lerobot", "vlakit", "csv", "vla-eval", "vla-eval recording", "vla_foundry")
    ]


def test_own_evaluations_are_read_from_their_folder_and_from_the_runs(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "run" / "evaluation", [1, 0.5, 0, 1])
    found = read(folder)
    assert found.starts[1] == Start("tabletop", "push", "push_0001 seed 1")
    assert (list(found.credit), list(found.success)) == ([1, 0.5, 0, 1], [True, False, False, True])
    assert found.versions["mujoco"] == "3.3.2"
    assert found.doubt == ""
    assert read(tmp_path / "run").starts == found.starts


def test_the_training_gives_an_evaluation_its_name_and_seed(tmp_path: Path) -> None:
    config = tmp_path / "runs" / "7" / ".hydra" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("name: lora_r32\nseed: 2\nmodel:\n  name: tiny\n")
    found = read(write_own(tmp_path / "runs" / "7" / "evaluation", [1, 0]))
    assert (found.run, found.seed) == ("lora_r32", "2")
    assert read(write_own(tmp_path / "full[seed=4]", [1, 0])).seed == "4"


def test_a_run_without_a_configuration_gives_its_folders_name_and_an_unended_evaluation_is_noted(
    tmp_path: Path,
) -> None:
    folder = write_own(tmp_path / "mine" / "evaluation" / "tabletop", [1, 0])
    assert (read(folder).run, read(folder).notes) == ("mine", [])
    (folder / HEADER).write_text('{"settings": {}}')
    assert "did not end, 2 episodes" in read(folder).notes[0]


def test_half_a_last_line_is_no_episode_and_a_broken_line_is_named(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "a", [1, 0, 1])
    with (folder / EPISODES).open("a") as stream:
        stream.write('{"number": 3, "suite": "tab')
    assert len(read(folder)) == 3
    with (folder / EPISODES).open("a") as stream:
        stream.write("\n")
    with pytest.raises(CorruptRecord, match="line 4 is no episode"):
        read(folder)


def test_an_evaluation_that_has_not_begun_or_has_no_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / HEADER).write_text('{"settings": {}}')
    with pytest.raises(InvalidData, match="no episode"):
        read(tmp_path / "a")
    (write_own(tmp_path / "b", [1]) / HEADER).unlink()
    with pytest.raises(InvalidData, match=r"no evaluation\.json"):
        read(tmp_path / "b")


def test_errors_and_mixed_versions_of_episodes_are_not_silent(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "a", [0, 0], error="the policy's action is not finite")
    assert "2 of 2 episodes" in read(folder).notes[0]
    other = write_own(tmp_path / "b", [0, 0, 0], versions={"mujoco": "9"})
    lines = (folder / EPISODES).read_text().splitlines()[:2] + (other / EPISODES).read_text().splitlines()[2:]
    (folder / EPISODES).write_text("\n".join(lines) + "\n")
    with pytest.raises(InvalidData, match="2 sets of versions"):
        read(folder)


def test_a_run_with_several_evaluations_asks_which(tmp_path: Path) -> None:
    for name in ("blocking", "free"):
        write_own(tmp_path / "run" / name, [1])
    with pytest.raises(InvalidData, match="2 evaluations") as caught:
        read(tmp_path / "run")
    assert "blocking, free" in caught.value.do


def test_released_files_of_vla_foundry_are_read() -> None:
    found = read(RELEASED / "Foundry-VLA-1.7B-full")
    assert (len(found), int(found.success.sum())) == (200, 2)
    assert found.run == "Foundry-VLA-1.7B-full"
    assert found.starts[3] == Start("CS", "PutMugInCenterOfTable", "scenario 00003")
    for deeper in ("PutMugInCenterOfTable", "PutMugInCenterOfTable/rollouts/2026-04-18T00-00-00/results.json"):
        again = read(RELEASED / "Foundry-VLA-1.7B-full" / deeper)
        assert (again.starts, again.run) == (found.starts, found.run)


def test_two_attempts_at_one_task_are_refused(tmp_path: Path) -> None:
    model = foundry(tmp_path, "CS", "m", {"Push": "0110"})
    first = next(model.rglob("results.json"))
    write_json(first.parents[1] / "2026-05-01T00-00-00" / "results.json", json.loads(first.read_text()))
    with pytest.raises(InvalidData, match="more than once"):
        read(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["evaluations"][0].update(is_pending=True), "1 of 4 rollouts are pending"),
        (lambda c: c["evaluations"][0].pop("scenario_index"), "no 'scenario_index' here: a file of another version"),
        (lambda c: c["evaluations"][0].update(is_success=None), "a success of None"),
        (lambda c: c.update(evaluations={}), "'evaluations' is no list"),
        (lambda c: c.update(evaluations=[]), "no episode here"),
    ],
)
def test_foreign_files_that_are_not_whole_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    model = foundry(tmp_path, "CS", "m", {"Push": "0110"})
    edited(next(model.rglob("results.json")), change)
    with pytest.raises((InvalidData, CorruptRecord), match=message):
        read(model)


def test_lerobot_is_read_in_both_layouts_and_leaves_a_doubt(tmp_path: Path) -> None:
    found = read(lerobot(tmp_path / "pi0", {("libero_goal", 0): [True, False], ("libero_goal", 1): [True, True]}))
    assert (found.run, found.success.mean()) == ("pi0", 0.75)
    assert found.starts[2] == Start("libero_goal", "task 1", "episode 00000")
    assert "does not say" in found.doubt
    episodes = [
        {"episode_ix": i, "sum_reward": 0.0, "max_reward": 0.0, "success": i < 1, "seed": 1000 + i} for i in range(3)
    ]
    old = read(write_json(tmp_path / "old" / "eval_info.json", {"per_episode": episodes, "aggregated": {}}))
    assert old.starts[1].unit == "seed 1001"
    assert int(old.success.sum()) == 1


def test_vla_evals_shards_are_joined_and_their_sum_beside_them_is_refused(tmp_path: Path) -> None:
    for shard in range(2):
        values = [value == 1 for value in outcomes(5, 0.5, shard)]
        vla_eval(tmp_path / "oft" / f"L_shard{shard}of2.json", {"open": values}, first=5 * shard, seed=7)
    found = read(tmp_path / "oft")
    assert (len(found), found.doubt, found.run) == (10, "", "oft")
    vla_eval(tmp_path / "oft" / "merged.json", {"open": [True] * 10}, seed=7)
    with pytest.raises(InvalidData, match="more than once"):
        read(tmp_path / "oft")


def test_vla_eval_without_a_seed_leaves_a_doubt_and_two_seeds_are_refused(tmp_path: Path) -> None:
    assert "no seed" in read(vla_eval(tmp_path / "a.json", {"open": [True]})).doubt
    for seed in (1, 2):
        vla_eval(tmp_path / "b" / f"{seed}.json", {"open": [True]}, first=seed, seed=seed)
    with pytest.raises(InvalidData, match="seeds 1, 2"):
        read(tmp_path / "b")


def test_what_no_reader_knows_is_refused_with_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no such folder") as caught:
        read(tmp_path / "nowhere")
    assert all(word in caught.value.do for word in ("episodes.jsonl", "eval_info.json", "results.json"))
    with pytest.raises(UnknownName, match="no evaluation here"):
        read(tmp_path)
    write_json(tmp_path / "eval_info.json", [1])
    with pytest.raises(InvalidData, match="another version"):
        read(tmp_path)
    (tmp_path / "eval_info.json").write_text("{")
    with pytest.raises(CorruptRecord, match="not JSON"):
        read(tmp_path)


def damaged(content: Any) -> Iterator[Any]:
    """Copies of a JSON value in which one value, anywhere, is gone or of another kind."""
    places: list[tuple[Any, ...]] = [()]
    for place in places:  # it grows as it is walked
        value = reduce(getitem, place, content)
        keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        places += [(*place, key) for key in keys]
    for place in places[1:]:
        for wrong in (None, 3, "x", [], {}, [1], 1.5, ...):
            copy = deepcopy(content)
            holder = reduce(getitem, place[:-1], copy)
            holder[place[-1]] = wrong
            if wrong is ...:
                del holder[place[-1]]
            yield copy


@pytest.mark.parametrize("name", ["foundry", "lerobot", "vla_eval", HEADER, EPISODES])
def test_no_damage_to_a_file_ends_in_anything_but_a_refusal_or_a_reading(tmp_path: Path, name: str) -> None:
    place = {
        "foundry": lambda: foundry(tmp_path, "CS", "m", {"P": "01"}),
        "lerobot": lambda: lerobot(tmp_path / "l", {("g", 0): [True, False]}),
        "vla_eval": lambda: vla_eval(tmp_path / "v.json", {"o": [True]}, seed=1),
    }.get(name, lambda: write_own(tmp_path / "o", [1]))()
    file = (
        place if place.is_file() else next(f for f in place.rglob("*.json*") if name in {f.name, "foundry", "lerobot"})
    )
    n_refused = 0
    for content in damaged(json.loads(file.read_text())):
        file.write_text(json.dumps(content) + "\n")
        try:
            assert len(read(place))
        except VlakitError:
            n_refused += 1
    assert n_refused > 5


def test_trainings_share_a_name_only_if_the_seed_alone_was_changed(tmp_path: Path) -> None:
    def name(place: str, *words: str) -> str:
        hydra = tmp_path / place / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "config.yaml").write_text("name: full\nseed: 0\n")
        (hydra / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
        return read(write_own(tmp_path / place / "evaluation", [1, 0])).run

    assert name("a", "experiment=full", "hparams_search=table1", "seed=0", "+evaluate.videos=5") == "full"
    assert name("b", "seed=1", "strategy.optimizer.lr=1e-4", "paths.runs=/x") == "full[strategy.optimizer.lr=1e-4]"
    assert name("c", "model.weights=/mnt/w/grounded") == "full[model.weights=grounded]"
    assert name("d", "'data.mixture={a: 1}'") == "full[data.mixture={a: 1}]"


def test_control_characters_of_a_foreign_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    tasks = {"op\x1b[31men\x07": [True, False]}
    found = read(vla_eval(tmp_path / "o\x1b[2Jft.json", tasks, seed=1))
    assert (found.starts[0].task, found.run) == ("op[31men", "o[2Jft")
    config = tmp_path / "run" / ".hydra" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("name: lo\x1b[31mra\nseed: 2\n")
    folder = write_own(tmp_path / "run" / "evaluation", [0, 0], error="boom")
    assert (read(folder).run, read(folder).notes) == (
        "lo[31mra",
        ["2 of 2 episodes of lo[31mra ended in an error and count as failed"],
    )


def test_the_newest_lerobot_file_is_read_and_its_own_count_must_agree(tmp_path: Path) -> None:
    file = lerobot(tmp_path / "pi05", {("libero_10", 3): [True, False, True]}) / "eval_info.json"
    whole = {"avg_sum_reward": 0.7, "pc_success": 66.7, "n_episodes": 3, "eval_s": 9.0, "predicted_video_paths": []}
    edited(file, lambda c: c["per_task"][0]["metrics"].update(predicted_video_paths=[]))
    edited(file, lambda c: c.update(per_group={"libero_10": whole}, overall={**whole, "avg_max_reward": float("nan")}))
    found = read(file)
    assert (len(found), int(found.success.sum()), found.run) == (3, 2, "pi05")
    edited(file, lambda c: c["overall"].update(n_episodes=4))
    with pytest.raises(InvalidData, match="it says 4 episodes, and its tasks hold 3"):
        read(file)
