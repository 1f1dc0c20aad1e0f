"""A policy served and evaluated remotely: the very same episodes, and a server's faults cost their episode alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_suite import FakeSuite, Seeker, states_of, statistics
from servers import Mean, running, service_of

from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.latency import Control
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.rollout import Options, rollout
from vlakit.evaluation.run import Request, evaluate
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Float32, Observation
from vlakit.serving.clients.base import RemoteFailed
from vlakit.serving.dialects.openpi import OpenPi
from vlakit.serving.remote import CLIENTS, remote_actor
from vlakit.serving.subjects import ExpertSubject, Facts, PolicySubject, RecordedSubject, trained_subject

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
URL = {
    "openpi": "ws://127.0.0.1:{}",
    "openvla": "http://127.0.0.1:{}",
    "gr00t": "tcp://127.0.0.1:{}",
    "vla_eval": "ws://127.0.0.1:{}",
    "starvla": "ws://127.0.0.1:{}",
}
DECIDES = ("initial_state", "task", "success", "credit", "steps", "actions", "error", "policy_calls")


def told(records: list[EpisodeRecord]) -> list[tuple[Any, ...]]:
    """What an episode is, apart from clocks and from what the policy is called."""
    return [tuple(getattr(one, name) for name in DECIDES) for one in sorted(records, key=lambda one: one.number)]


@pytest.fixture
def trained(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> TrainedPolicy:
    processor = TokenProcessor(tiny_processor.settings, {"fake_dots": statistics()})
    return TrainedPolicy(tiny_vla, processor)


@pytest.mark.parametrize(
    ("dialect", "slots"), [("openpi", 1), ("openpi", 3), ("openvla", 3), ("gr00t", 3), ("starvla", 3)]
)
def test_a_policy_served_has_the_very_same_episodes_as_in_process(
    trained: TrainedPolicy, dialect: str, slots: int
) -> None:
    suite = FakeSuite(limit=2)
    states = states_of(suite, 2)
    trained.pad_to = trained.processor.text_width(state.instruction for state in states)
    here = list(rollout(suite, trained, states, Options(slots)))
    subject = trained_subject(trained, "tiny", rows=slots, dataset=None, pad_to=trained.pad_to)
    with running(lambda: service_of(subject, rows=slots), [dialect]) as ports:
        actor = remote_actor(URL[dialect].format(ports[dialect]), dialect)
        there = list(rollout(suite, actor, states, Options(slots)))
        actor.close()
    assert told(there) == told(here)
    assert [one for one in here if one.error] == []


@pytest.mark.parametrize("dialect", URL)
def test_any_policy_of_the_seam_is_served_and_has_the_same_episodes(dialect: str) -> None:
    suite = FakeSuite()
    states = states_of(suite, 2)
    facts = Facts("seeker", datasets=("fake_dots",), picture=(64, 64))
    here = list(rollout(suite, Seeker(), states, Options(2)))
    warm = PolicySubject(Seeker(), facts)
    warm.warm_up = lambda rows: None  # pyright: ignore[reportAttributeAccessIssue]  # it seeks in vain in a blank picture
    with running(lambda: service_of(warm), [dialect]) as ports:
        actor = remote_actor(URL[dialect].format(ports[dialect]), dialect)
        there = list(rollout(suite, actor, states, Options(2)))
        actor.close()
    assert told(there) == told(here)
    assert all(one.success for one in there)


class Looks(Seeker):
    """Three frames decide on a chunk of two: those that are missing, or not its neighbours, make another."""

    window = 3

    def __init__(self, *, told: bool = True) -> None:
        """told: whether it hears which frames stand in for others."""
        super().__init__()
        self.told = told

    def act(self, observations: Sequence[Observation]) -> Float32:
        chunks = np.repeat(super().act([last(one) for one in observations]), 2, axis=1)
        for chunk, one in zip(chunks, observations, strict=True):
            real = np.ones(3, bool) if one.window_mask is None or not self.told else one.window_mask
            history = [frame.astype(float).std() for frame in one.images["primary"]]
            chunk[:, 3] = np.dot(history, [1, 10, 100]) * 1e-6 + np.dot(real, [1, 2, 4]) * 1e-3
            chunk[:, 4] = 0 if one.proprio is None else np.dot(one.proprio[:, 0], [1, 10, 100]) * 1e-5
        return chunks


def last(one: Observation) -> Observation:
    return replace(one, images={camera: frames[-1:] for camera, frames in one.images.items()}, window_mask=None)


@pytest.mark.parametrize("dialect", URL)
def test_a_policy_that_sees_a_history_is_served_every_frame_of_it(dialect: str) -> None:
    suite = FakeSuite()
    states = states_of(suite, 2)
    facts = Facts("looks", shape=(2, 7), datasets=("fake_dots",), picture=(64, 64), window=3)
    policy = Looks(told=dialect != "gr00t")  # whose clients send whole windows, with no word for stand-ins
    one_by_one = Control(execute=1) if dialect == "openvla" else Control()  # whose REST answers one action
    here = list(rollout(suite, policy, states, Options(2, control=one_by_one)))
    warm = PolicySubject(policy, facts)
    warm.warm_up = lambda rows: None  # pyright: ignore[reportAttributeAccessIssue]
    with running(lambda: service_of(warm), [dialect]) as ports:
        actor = remote_actor(URL[dialect].format(ports[dialect]), dialect)
        there = list(rollout(suite, actor, states, Options(2)))
        actor.close()
    assert told(there) == told(here)
    assert max(one.policy_calls for one in here) > 1


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("dialect", URL)
def test_every_client_sends_what_the_robot_knows_of_itself(dialect: str, window: int) -> None:
    felt: list[np.ndarray | None] = []

    class Feels(Mean):
        def act(self, observations: Any) -> Any:
            felt.extend(one.proprio for one in observations)
            return super().act(observations)

    pose = np.arange(8 * window, dtype=np.float32).reshape(window, 8) / 10
    pictures = {"primary": np.zeros((window, 64, 64, 3), np.uint8)}
    seen = Observation(pictures, "lift red cube", "fake_dots", pose)
    facts = Facts("feels", shape=(3, 7), datasets=("fake_dots",), picture=(64, 64), proprio=8, window=window)
    warm = PolicySubject(Feels(), facts)
    warm.warm_up = lambda rows: None  # pyright: ignore[reportAttributeAccessIssue]
    with running(lambda: service_of(warm), [dialect]) as ports:
        client: Any = CLIENTS.get(dialect)
        asking = client(URL[dialect].format(ports[dialect]), {"primary": client.cameras["primary"]}, None, 60)
        asking.begin()
        asking.ask(seen)
        asking.close()
    assert len(felt) == 1
    np.testing.assert_array_equal(felt[0], pose)


@pytest.mark.parametrize("generation", ["", "n1.5"])
@pytest.mark.parametrize("dialect", URL)
def test_no_client_carries_frames_of_one_episode_into_the_next(dialect: str, generation: str) -> None:
    """Though the words are the same ones."""
    shades: list[list[float]] = []

    class Looks(Mean):
        window = 2

        def act(self, observations: Any) -> Any:
            shades.extend([one.images["primary"].mean(axis=(1, 2, 3)).tolist() for one in observations])
            return super().act(observations)

    if generation and dialect != "gr00t":
        pytest.skip("of GR00T's clients alone")
    facts = Facts("looks", shape=(3, 7), datasets=("fake_dots",), picture=(64, 64), window=2)
    warm = PolicySubject(Looks(), facts)
    warm.warm_up = lambda rows: None  # pyright: ignore[reportAttributeAccessIssue]
    with running(lambda: service_of(warm), [dialect], generation=generation) as ports:
        client: Any = CLIENTS.get(dialect)
        asking = client(URL[dialect].format(ports[dialect]), {"primary": client.cameras["primary"]}, None, 60)
        for shade in (10, 200):
            asking.begin()
            asking.ask(Observation.of(np.full((64, 64, 3), shade, np.uint8), "lift red cube", "fake_dots"))
        asking.close()
    assert shades == [[10, 10], [200, 200]]


@pytest.mark.parametrize("actions", [[[1, 2], [3]], [], "no", {"a": 1}])
def test_an_answer_that_nobody_understands_fails_its_episode(actions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenPi, "_answer", lambda *_: _soon(actions))
    suite = FakeSuite()
    with running(service_of, ["openpi"]) as ports:
        actor = remote_actor(URL["openpi"].format(ports["openpi"]), "openpi")
        (record,) = rollout(suite, actor, states_of(suite, 1)[:1], Options(1))
        actor.close()
    assert record.error is not None
    assert "the server" in record.error


async def _soon(value: Any) -> Any:
    return value


def test_the_scripted_expert_is_served_as_the_twin_of_each_clients_world() -> None:
    suite = FakeSuite()
    states = states_of(suite, 3)
    with running(lambda: service_of(ExpertSubject(FakeSuite(), states))) as ports:
        actor = remote_actor(URL["openpi"].format(ports["openpi"]), "openpi")
        there = list(rollout(suite, actor, states, Options(3)))
        lost = list(rollout(suite, actor, states_of(suite, 5)[-2:], Options(1)))
        actor.close()
    assert all(one.success for one in there)
    assert all("no world of this suite looks so" in str(one.error) for one in lost)


def test_recorded_episodes_are_played_to_their_end_and_no_further() -> None:
    suite = FakeSuite()
    states = states_of(suite, 2)
    records = list(rollout(suite, Seeker(), states, Options(1)))
    with running(lambda: service_of(RecordedSubject(records, "recorded"))) as ports:
        actor = remote_actor(URL["openpi"].format(ports["openpi"]), "openpi")
        again = list(rollout(suite, actor, states, Options(1)))
        blocked = FakeSuite(limit=60)  # a world in which the recorded actions do not suffice
        over = list(rollout(blocked, actor, states_of(blocked, 7)[-1:], Options(1)))
        actor.close()
    assert told(again) == told(records)
    assert over[0].error is None or "the record ended" in over[0].error
    assert not over[0].success


def test_remote_facts_name_the_server_and_the_weights_behind_it(trained: TrainedPolicy, tmp_path: Path) -> None:
    suite = FakeSuite(limit=2)
    subject = trained_subject(trained, "tiny", rows=None, dataset=None, pad_to=0)
    with running(lambda: service_of(subject)) as ports:
        url = URL["openpi"].format(ports["openpi"])
        actor = remote_actor(url, "openpi")
        evaluated = evaluate(actor, suite, Request(episodes=2, slots=1), tmp_path / "out", name=actor.name)
        actor.close()
    assert url in evaluated.subject
    assert trained.content_hash() in (tmp_path / "out" / "evaluation.json").read_text()


def test_a_policy_that_fails_fails_its_episode_and_the_next_one_runs() -> None:
    suite = FakeSuite(limit=3)
    states = states_of(suite, 2)
    broken = Mean(1)
    real = broken.chunk
    broken.chunk = lambda one: real(one) * (np.nan if "far away" in one.instruction else 1)  # pyright: ignore[reportAttributeAccessIssue]
    facts = Facts("broken", picture=(8, 8))
    with running(lambda: service_of(PolicySubject(broken, facts))) as ports:
        actor = remote_actor(URL["openpi"].format(ports["openpi"]), "openpi")
        records = list(rollout(suite, actor, states, Options(1)))
        actor.close()
    assert [one.error is None for one in records] == [one.task == "reach" for one in records]
    assert "not finite" in str(next(one.error for one in records if one.error))


def test_a_server_that_dies_ends_the_rollouts_with_one_error_and_fails_no_episode() -> None:
    suite = FakeSuite(limit=100_000)
    policy = Mean(1)
    server = running(lambda: service_of(PolicySubject(policy, Facts("mean", picture=(8, 8)))), drain_s=0.1)
    ports = server.__enter__()
    actor = remote_actor(URL["openpi"].format(ports["openpi"]), "openpi")
    threading.Timer(0.3, lambda: server.__exit__(None, None, None)).start()
    with pytest.raises(RemoteFailed, match="the server is gone") as raised:
        list(rollout(suite, actor, states_of(suite, 2), Options(2)))
    actor.close()
    assert "the same command" in raised.value.do


def test_a_camera_that_the_suite_lacks_ends_the_rollouts_at_once() -> None:
    suite = FakeSuite()
    with running(service_of, ["openpi"]) as ports:
        actor = remote_actor(URL["openpi"].format(ports["openpi"]), "openpi", cameras={"wrist": "observation/image"})
        with pytest.raises(ConfigError, match="no camera 'wrist'"):
            list(rollout(suite, actor, states_of(suite, 2), Options(2)))
        actor.close()


def test_a_connection_that_breaks_costs_its_episode_alone() -> None:
    suite = FakeSuite(limit=3)
    with running(lambda: service_of(PolicySubject(Mean(1), Facts("mean", picture=(8, 8))))) as ports:
        actor = remote_actor(URL["openpi"].format(ports["openpi"]), "openpi")
        cut, real = iter([actor._clients[0].close]), actor._ask
        actor._ask = lambda slot, turn: (next(cut, int)(), real(slot, turn))[1]
        records = list(rollout(suite, actor, states_of(suite, 2), Options(1)))
        actor.close()
    assert [one.error is None for one in records] == [False, True, True, True]


def test_nobody_there_an_unknown_dialect_and_no_address_are_said() -> None:
    with pytest.raises(RemoteFailed, match="cannot connect"):
        remote_actor("ws://127.0.0.1:1", "openpi", timeout_s=5)
    with pytest.raises(UnknownName, match="openpi"):
        remote_actor("ws://127.0.0.1:1", "openpy")
    with pytest.raises(ConfigError, match="url=here"):
        remote_actor("here", "openpi")
