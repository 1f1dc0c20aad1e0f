"""Controls say what a suite's numbers mean, and a policy's identity says what they are of."""

import numpy as np
import pytest
import torch
from fake_suite import MAX_STEPS, FakeSuite, Seeker, states_of, statistics

from vlakit.errors import ConfigError, InvalidData, UnknownName
from vlakit.evaluation.actors import (
    CONTROLS,
    Actor,
    Expert,
    Nothing,
    PolicyActor,
    Random,
    Replay,
    action_bounds,
    actor_of,
)
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.rollout import Options, rollout
from vlakit.evaluation.suite import InitialState
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Float32, Observation

SUITE = FakeSuite()
STATES = states_of(SUITE, 5)
BOUNDS = (np.full(7, -0.05, np.float32), np.full(7, 0.05, np.float32))


def episodes(actor: Actor, slots: int = 4, states: list[InitialState] = STATES) -> list[EpisodeRecord]:
    return sorted(rollout(SUITE, actor, states, Options(slots)), key=lambda record: record.number)


def test_the_expert_always_succeeds_and_doing_nothing_never() -> None:
    assert all(record.success for record in episodes(Expert()))
    nothing = episodes(Nothing())
    assert {(record.success, record.steps) for record in nothing} == {(False, MAX_STEPS)}
    assert not any(record.trace[:, :6].any() for record in nothing)


def test_random_actions_follow_from_initial_state_and_seed_not_from_the_slots() -> None:
    assert episodes(Random(BOUNDS), 1) == episodes(Random(BOUNDS), 4)
    backwards = {record.initial_state: record.actions for record in episodes(Random(BOUNDS), 3, STATES[::-1])}
    assert backwards == {record.initial_state: record.actions for record in episodes(Random(BOUNDS))}
    assert episodes(Random(BOUNDS, 1)) != episodes(Random(BOUNDS))
    traces = np.concatenate([record.trace for record in episodes(Random(BOUNDS))])
    assert (np.abs(traces) <= 0.05).all()
    assert traces.std(axis=0).min() > 0.02


def test_a_replay_of_a_trace_is_the_same_episode_and_holds_when_it_is_over() -> None:
    shown = episodes(Expert())
    again = episodes(Replay({record.initial_state: record.trace for record in shown}), 3)
    assert [record.actions for record in again] == [record.actions for record in shown]
    assert all(record.success for record in again)
    cut = episodes(Replay({record.initial_state: record.trace[:1] for record in shown}))
    assert all(len(record.actions) == MAX_STEPS and not record.trace[1:, :6].any() for record in cut)


def test_a_state_without_a_recorded_trace_is_named() -> None:
    with pytest.raises(InvalidData, match=STATES[0].name):
        episodes(Replay({}))


def test_usual_actions_are_the_suites_own_else_the_datas_else_the_experts() -> None:
    low, high = action_bounds(SUITE, None, STATES)
    assert low[:2].min() >= -0.05 and high[:2].max() <= 0.05  # noqa: PT018
    assert (low[6], high[6]) == (1, 1)
    low, high = action_bounds(SUITE, statistics(2.0), STATES)
    assert high[0] == np.float32(0.1)
    ranged = FakeSuite(action_range=([-0.05] * 7, [0.05] * 7))
    assert action_bounds(ranged, statistics(2.0), STATES)[1][0] == np.float32(0.05)


def test_controls_are_chosen_by_name() -> None:
    kinds = {name: type(CONTROLS.build(name, bounds=lambda: BOUNDS, seed=0)) for name in CONTROLS.names()}
    assert kinds == {"expert": Expert, "nothing": Nothing, "random": Random}
    with pytest.raises(UnknownName, match="randm") as caught:
        CONTROLS.build("randm", bounds=lambda: BOUNDS, seed=0)
    assert "random" in caught.value.do


def test_a_policy_becomes_an_actor_and_an_actor_stays_itself() -> None:
    expert = Expert()
    assert actor_of(expert, 3) is expert
    assert isinstance(actor_of(Seeker(), 3), PolicyActor)


def test_a_batch_that_does_not_fit_ends_the_evaluation_with_advice() -> None:
    class Hungry(Seeker):
        def act(self, observations: object) -> Float32:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ConfigError, match="no memory for a batch of 4") as caught:
        list(rollout(SUITE, Hungry(), STATES, Options(4)))
    assert "slots" in caught.value.do


@pytest.fixture
def policy(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> TrainedPolicy:
    return TrainedPolicy(tiny_vla, tiny_processor)


def test_the_policy_hash_changes_with_weights_statistics_and_decoding_and_with_nothing_else(
    policy: TrainedPolicy, tiny_vla: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    first = policy.content_hash()
    assert first == TrainedPolicy(tiny_vla, tiny_processor).content_hash()
    other = TrainedPolicy(tiny_vla, tiny_processor.for_training({"bridge_orig": statistics()}, None))
    unconstrained = TrainedPolicy(tiny_vla, tiny_processor, constrain=False)
    found = {first, other.content_hash(), unconstrained.content_hash()}
    with torch.no_grad():
        next(tiny_vla.parameters()).view(-1)[0] += 1e-3
    assert len({*found, policy.content_hash()}) == 4


def test_a_rows_answer_is_the_same_to_the_bit_whatever_the_other_rows_are_once_prompts_are_padded_alike(
    policy: TrainedPolicy,
) -> None:
    """Unpadded, a longer neighbour changes log-probabilities by 1e-6, which is enough to tip an argmax."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    short, long = "lift the pot", "put the carrot on the plate next to the yellow towel"
    states = [InitialState("a", "a", 0, short), InitialState("b", "b", 0, long)]
    policy.pad_to = policy.processor.text_width(state.instruction for state in states)
    assert policy.pad_to == len(policy.processor.prompt_ids(long))

    def log_probs(*said: str) -> Float32:
        rows = [Observation.of(image, text) for image, text in zip(images, said, strict=True)]
        return policy.sample(rows, generator=torch.Generator().manual_seed(0)).log_probs

    plain, mixed = log_probs(*[short] * 8), log_probs(*[short] * 7, long)
    assert np.array_equal(plain[:7], mixed[:7])
    policy.pad_to = 0
    assert not np.array_equal(log_probs(*[short] * 8)[:7], log_probs(*[short] * 7, long)[:7])
