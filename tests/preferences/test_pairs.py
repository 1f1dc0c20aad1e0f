"""From a policy's draws to pairs: what is recorded, replayed, paired, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preference_cases import Rightward, collected, names, paired_up, policy
from toy_network import ToyNetwork

from vlakit.collecting.collector import Collector, CollectPlan, seen_again, training_starts
from vlakit.errors import CheckpointMismatch, ConfigError, CorruptRecord, InvalidData, PartMissing
from vlakit.policy import TrainedPolicy
from vlakit.preferences.episodes import Episode, Rollouts
from vlakit.preferences.pair_file import PairFolder
from vlakit.preferences.pairs import PairPlan, mismatches, paired
from vlakit.processing.processor import Processor
from vlakit.processing.settings import ProcessorSettings


def lines(rollouts: Rollouts) -> list[bytes]:
    return [rollouts.block(number).read_bytes() for number in rollouts.numbers()]


def episode(number: int, start: str, success: bool, steps: int = 2) -> Episode:
    """One without pictures."""
    actions, ids = [[0.0] * 7] * steps, [[31990] * 7] * steps
    logp = [[-1.0] * 7] * steps
    return Episode(
        number, start, number, "reach", "go", success, float(success), actions, list(range(steps)), ids, logp
    )


@pytest.mark.parametrize(("chunk", "window"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("pixels", ["rendered", "stored"])
def test_what_was_recorded_while_drawing_is_what_log_prob_says_on_replay(
    tmp_path: Path, chunk: int, window: int, pixels: Any
) -> None:
    one = policy(chunk, window)
    rollouts = collected(tmp_path / "r", one, pixels=pixels)
    episodes = rollouts.episodes()
    seen = list(seen_again(rollouts, Rightward(), window)(episodes))
    for episode_, observations in zip(episodes, seen, strict=True):
        assert {len(one.images["primary"]) for one in observations} == {window}
        again = one.log_prob(observations, episode_.tokens).detach().numpy()
        assert np.abs(again - episode_.behaviour).max() < 1e-5
        executed = episode_.mask.reshape(len(episode_.asked), chunk, 7)[..., 0].sum()
        assert executed == episode_.steps  # of a chunk that was cut short the rest does not count


def test_both_ways_to_keep_pictures_give_the_same_pairs(tmp_path: Path) -> None:
    kept = {way: collected(tmp_path / way, pixels=way) for way in ("rendered", "stored")}
    folders = [paired_up(tmp_path / f"p_{way}", rollouts=one) for way, one in kept.items()]
    for name in ("image.primary", "ids", "reference", "mismatched_reference"):
        assert np.array_equal(folders[0][name], folders[1][name])


def test_a_collection_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = collected(tmp_path / "whole", slots=2)
    assert len(whole.numbers()) == 2
    killed = collected(tmp_path / "killed", slots=2)
    killed.block(0).unlink()
    before = killed.block(1).stat().st_mtime_ns
    assert lines(collected(tmp_path / "killed", slots=2)) == lines(whole)
    assert killed.block(1).stat().st_mtime_ns == before


def test_another_seed_draws_otherwise_and_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    assert lines(collected(tmp_path / "a")) != lines(collected(tmp_path / "b", seed=1))
    with pytest.raises(ConfigError, match=r"temperature was 1.0, is 2.0"):
        collected(tmp_path / "a", temperature=2.0)


def test_no_start_of_a_collection_is_one_of_an_evaluation(tmp_path: Path) -> None:
    suite = Rightward()
    starts = {one.start for one in collected(tmp_path / "r").episodes()}
    assert len(starts) == 12
    assert starts == names(training_starts(suite, (), 12, 100))
    assert not starts & {state.name for task in suite.tasks for state in suite.initial_states(task, 50)}


def test_pairs_are_a_success_over_a_failure_from_the_same_start(tmp_path: Path) -> None:
    folder = paired_up(tmp_path)
    pairs = [[folder.spans[place] for place in pair] for split in folder.pairs.values() for pair in split]
    assert pairs
    assert all(won.start == lost.start and won.preferred and not lost.preferred for won, lost in pairs)
    held_out = {won.start for won, _ in (pairs[i] for i in range(len(folder.pairs["train"]), len(pairs)))}
    assert held_out
    assert not held_out & {folder.spans[won].start for won, _ in folder.pairs["train"]}
    counts = folder.header["counts"]
    assert counts["yield"] == (counts["starts"] - counts["all_won"] - counts["all_lost"]) / counts["starts"]


@pytest.mark.parametrize(("plan", "most"), [({"pairing": "one"}, 1), ({"pairing": "cap", "cap": 2}, 2), ({}, 4)])
def test_of_a_start_there_are_so_many_pairs(plan: dict[str, Any], most: int) -> None:
    episodes = [episode(i, f"s{i // 4}", i % 4 < 2) for i in range(8)]
    made = paired(episodes, PairPlan(held_out=0.0, **plan))
    assert made.counts["pairs"] == 2 * most
    assert paired(episodes, PairPlan(held_out=0.0, **plan)) == made


def test_pairs_by_length_are_of_two_successes_the_shorter_first() -> None:
    episodes = [episode(0, "s", True, 2), episode(1, "s", True, 5), episode(2, "s", False, 9)]
    (pair,) = paired(episodes, PairPlan(prefer="length")).pairs["train"]
    assert [one.number for one in pair] == [0, 1]


@pytest.mark.parametrize("outcome", [True, False])
def test_starts_with_one_outcome_give_no_pair_and_are_counted(outcome: bool) -> None:
    with pytest.raises(InvalidData, match="of 2 starts") as caught:
        paired([episode(i, f"s{i % 2}", outcome) for i in range(4)], PairPlan())
    assert "rollouts_per_start" in caught.value.do


def test_mismatched_tokens_are_of_another_start() -> None:
    episodes = [episode(i, f"s{i // 3}", True) for i in range(9)]
    partners = mismatches(episodes, 0)
    assert all(episodes[a].start != episodes[b].start for a, b in enumerate(partners))
    with pytest.raises(InvalidData, match="no other"):
        mismatches(episodes[:1], 0)


def test_precomputed_reference_is_that_of_asking_one_by_one(tmp_path: Path) -> None:
    folder, one = paired_up(tmp_path), policy()
    for row in range(0, len(folder["ids"]), 7):
        for name in ("", "mismatched_"):
            ids = np.array(folder[f"{name}ids"][row : row + 1])
            asked = one.log_prob([folder.observation(row)], ids).detach().numpy()
            assert np.abs(asked - folder[f"{name}reference"][row]).max() < 1e-5


def test_rollouts_of_another_policy_are_refused(tmp_path: Path) -> None:
    rollouts = collected(tmp_path / "r", policy(seed=0))
    with pytest.raises(CheckpointMismatch, match="another policy: dice"):
        paired_up(tmp_path, policy(seed=1), rollouts)


def test_tokens_made_of_actions_afterwards_are_refused(tmp_path: Path) -> None:
    rollouts = collected(tmp_path / "r")
    records = [json.loads(line) for line in rollouts.block(0).read_text().splitlines()]
    records[0]["ids"][0][2] += 1
    rollouts.block(0).write_text("".join(f"{json.dumps(record)}\n" for record in records))
    with pytest.raises(InvalidData, match="are not those of its actions"):
        paired_up(tmp_path, rollouts=rollouts)
    assert not (tmp_path / "pairs").exists()
    records[0]["ids"] = []
    rollouts.block(0).write_text(json.dumps(records[0]) + "\n")
    with pytest.raises(InvalidData, match="without the tokens"):
        rollouts.episodes()
    rollouts.block(0).write_text("{}{\n")
    with pytest.raises(CorruptRecord, match="not an episode"):
        rollouts.episodes()


def test_log_probabilities_of_other_pictures_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    rollouts = collected(tmp_path / "r")
    records = [json.loads(line) for line in rollouts.block(0).read_text().splitlines()]
    records[0]["log_probs"][0][0] -= 0.5
    rollouts.block(0).write_text("".join(f"{json.dumps(record)}\n" for record in records))
    with pytest.raises(InvalidData, match=r"off by up to 0\.5 nats"):
        paired_up(tmp_path, rollouts=rollouts)
    assert not (tmp_path / "pairs").exists()


def test_a_policy_without_a_likelihood_says_which_capability_it_lacks() -> None:
    reading = Processor(ProcessorSettings(image_size=16, channel_statistics=("half",)))
    with pytest.raises(PartMissing, match=r"log_prob and sample\) needs Likelihood"):
        Collector(TrainedPolicy(ToyNetwork(reading), reading), Rightward(), CollectPlan())


def test_folders_that_are_no_rollouts_or_no_pairs_say_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text("")
    with pytest.raises(InvalidData, match="an evaluation, whose records hold no tokens"):
        Rollouts.open(tmp_path)
    with pytest.raises(InvalidData, match="no pairs here") as caught:
        PairFolder(tmp_path)
    assert "vlakit pairs" in caught.value.do


@pytest.mark.parametrize("plan", [{"pairing": "cap"}, {"cap": 2}, {"held_out": 1.0}])
def test_plans_that_contradict_themselves_are_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="pairing="):
        PairPlan(**plan)


def test_without_chance_no_two_rollouts_differ() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        CollectPlan(temperature=0.0)


def test_an_episode_that_fails_by_an_error_is_recorded_and_never_paired(tmp_path: Path) -> None:
    suite = Rightward()
    first = training_starts(suite, (), 12, 100)[0].name
    suite.raises_at = {f"{first}#1": 0}
    episodes = collected(tmp_path / "r", suite=suite).episodes()
    (broken,) = [one for one in episodes if one.error is not None]
    assert (broken.start, broken.rollout) == (first, 1)
    assert "diverged" in str(broken.error)
    assert all(broken not in pair for pairs in paired(episodes, PairPlan()).pairs.values() for pair in pairs)
