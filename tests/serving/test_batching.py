"""Batches over clients: bits, fairness, a bounded queue, a policy that raises, and the end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from servers import FACTS, Mean, service_of

from vlakit.errors import VlakitError
from vlakit.models.openvla.vla import OpenVLA
from vlakit.models.quantize import Quantization, quantize
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Observation
from vlakit.serving.batching import Limits
from vlakit.serving.questions import Busy, Question
from vlakit.serving.service import Service
from vlakit.serving.sessions import Memory
from vlakit.serving.subjects import Facts, PolicyFailed, PolicySubject, trained_subject


def question(words: str, shade: int = 100) -> Question:
    return Question({"primary": np.full((1, 8, 8, 3), shade, np.uint8)}, words)


def seen(one: Question) -> Observation:
    return Observation(one.images, one.instruction, one.dataset)


async def answered(service: Service, asks: Sequence[tuple[str, Question]]) -> list[Any]:
    """What clients get who ask at once, one session a name; errors as values."""
    worker = asyncio.create_task(service.batcher.run())

    async def one(client: str, asked: Question) -> Any:
        with service.named(client) as session:
            return await service.ask("test", client, session, asked)

    results = await asyncio.gather(*(one(*ask) for ask in asks), return_exceptions=True)
    worker.cancel()
    service.batcher.close()
    return results


@pytest.fixture
def policy(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> TrainedPolicy:
    return TrainedPolicy(tiny_vla, tiny_processor)


def test_an_answer_is_to_the_bit_what_act_answers(policy: TrainedPolicy) -> None:
    rng = np.random.default_rng(0)
    asked = Question({"primary": rng.integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)}, "lift the pot", "bridge_orig")
    subject = trained_subject(policy, "tiny", rows=None, dataset=None, pad_to=0)
    (answer,) = asyncio.run(answered(service_of(subject), [("a", asked)]))
    assert answer.tobytes() == policy.act([seen(asked)])[0].tobytes()


def test_warming_up_shows_the_camera_of_training_so_that_a_clients_other_one_is_told(
    policy: TrainedPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    policy.card = replace(policy.card, surroundings={"bridge_orig": {"picture": [64, 48]}})
    subject = trained_subject(policy, "tiny", rows=None, dataset=None, pad_to=0)
    assert subject.facts.picture == (48, 64)
    subject.warm_up(1)
    assert "aspect ratio" not in caplog.text
    policy.act([Observation.of(np.zeros((64, 64, 3), np.uint8), "lift it")])
    assert "the camera shows 64 x 64 pictures, the policy was trained on 64 x 48: another aspect ratio" in caplog.text


def test_a_server_says_what_quantising_changed(policy: TrainedPolicy) -> None:
    stored = quantize(policy.network, "int8")
    policy.quantization = Quantization.of(policy.network, stored, {}, {"quantize": "int8"})
    info = service_of(trained_subject(policy, "tiny", rows=None, dataset=None, pad_to=0)).info()
    told = json.loads(json.dumps(info))["quantization"]
    assert told["scheme"] == "int8"
    assert told["weight_bytes_after"] < told["weight_bytes_before"]


def test_in_rows_of_their_own_bits_do_not_depend_on_who_else_asks(policy: TrainedPolicy) -> None:
    rng = np.random.default_rng(0)
    words = ["lift the pot", "put the carrot on the plate", "close the drawer"]
    pictures = rng.integers(0, 256, (3, 1, 48, 64, 3), dtype=np.uint8)
    asks = [(str(i), Question({"primary": pictures[i]}, words[i], "bridge_orig")) for i in range(3)]
    pad_to = policy.processor.text_width(words)

    def served(which: Sequence[tuple[str, Question]]) -> list[Any]:
        subject = trained_subject(policy, "tiny", rows=3, dataset=None, pad_to=pad_to)
        return asyncio.run(answered(service_of(subject, rows=3, memory=Memory(), limits=Limits(3, 50)), which))

    together = served(asks)
    assert together[0].tobytes() == served(asks[:1])[0].tobytes()
    assert np.stack(together).tobytes() == policy.act([seen(one) for _, one in asks]).tobytes()


def test_clients_that_ask_together_are_one_batch_no_larger_than_allowed() -> None:
    policy = Mean()
    service = service_of(PolicySubject(policy, FACTS), limits=Limits(rows=4, wait_ms=30))
    asks = [(str(i), question("w" * (i + 1))) for i in range(10)]
    answers = asyncio.run(answered(service, asks))
    assert [len(batch) for batch in policy.batches] == [4, 4, 2]
    for answer, (_, asked) in zip(answers, asks, strict=True):
        assert np.array_equal(answer, policy.chunk(seen(asked)))


def test_a_client_that_has_long_been_idle_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_after_the_other() -> tuple[float, float]:
        service = service_of(limits=Limits(rows=4, wait_ms=600))
        worker = asyncio.create_task(service.batcher.run())
        with service.client("idle") as idle, service.client("busy") as busy:
            await service.ask("t", "idle", idle, question("once"))
            soon = await timed(service, busy)
            monkeypatch.setattr("vlakit.serving.batching.LATELY_S", 0.0)
            late = await timed(service, busy)
        worker.cancel()
        return soon, late

    async def timed(service: Service, session: Any) -> float:
        began = asyncio.get_running_loop().time()
        await service.ask("t", "busy", session, question("again"))
        return asyncio.get_running_loop().time() - began

    soon, late = asyncio.run(one_after_the_other())
    assert soon >= 0.6
    assert late < 0.6


def test_no_client_has_a_second_question_in_a_batch_before_all_have_their_first() -> None:
    policy = Mean()
    service = service_of(PolicySubject(policy, FACTS), limits=Limits(rows=3, wait_ms=30))
    greedy = [("greedy", question(f"greedy {i}")) for i in range(6)]
    modest = [(name, question(name)) for name in ("anna", "ben")]
    asyncio.run(answered(service, [*greedy, *modest]))
    assert {"anna", "ben"} <= set(policy.batches[0])
    assert len(policy.batches[0]) == 3


def test_a_full_queue_is_busy_at_once_and_those_who_wait_are_answered() -> None:
    policy = Mean()
    service = service_of(PolicySubject(policy, FACTS), limits=Limits(rows=2, wait_ms=0, queue=5))
    answers = asyncio.run(answered(service, [(str(i), question("w")) for i in range(9)]))
    busy = [one for one in answers if isinstance(one, Busy)]
    assert len(busy) == 4
    assert all("5 questions are waiting" in one.what for one in busy)
    assert sum(isinstance(one, np.ndarray) for one in answers) == 5


def test_whoever_makes_the_policy_raise_fails_alone_and_hears_no_secret() -> None:
    service = service_of(PolicySubject(Mean(), FACTS), limits=Limits(rows=3, wait_ms=30))
    asks = [("a", question("fine")), ("b", question("explode")), ("c", question("nan"))]
    fine, exploded, nan = asyncio.run(answered(service, asks))
    assert np.isfinite(fine).all()
    assert isinstance(exploded, PolicyFailed)
    assert isinstance(nan, PolicyFailed)
    assert "secret" not in str(exploded)
    assert "not finite" in nan.what


def test_an_answer_that_takes_too_long_is_an_error_and_its_place_in_the_queue_is_free_again() -> None:
    policy = Mean()

    async def slow() -> tuple[list[Any], list[list[str]]]:
        service = service_of(PolicySubject(policy, FACTS), limits=Limits(rows=1, wait_ms=0, timeout_s=0.2))
        policy.gate.clear()
        asking = asyncio.create_task(answered(service, [(str(i), question(str(i))) for i in range(3)]))
        await asyncio.sleep(0.5)
        policy.gate.set()
        return await asking, policy.batches

    results, batches = asyncio.run(slow())
    assert all(isinstance(one, Busy) and "no answer within 0.2 s" in one.what for one in results)
    assert len(batches) <= 1  # the two that had given up were never asked


def test_at_the_end_what_was_asked_is_answered_and_nothing_more_is_taken() -> None:
    policy = Mean()

    async def ending() -> tuple[list[Any], bool, Any]:
        service = service_of(PolicySubject(policy, FACTS), limits=Limits(rows=1, wait_ms=0))
        policy.gate.clear()
        asking = asyncio.create_task(answered(service, [(str(i), question(str(i))) for i in range(3)]))
        await asyncio.sleep(0.1)
        drained = asyncio.create_task(service.batcher.drain(5))
        await asyncio.sleep(0.05)
        try:
            with service.named("late") as session:
                late: Any = await service.ask("test", "late", session, question("late"))
        except VlakitError as error:
            late = error
        policy.gate.set()
        return await asking, await drained, late

    results, all_answered, late = asyncio.run(ending())
    assert all(isinstance(one, np.ndarray) for one in results)
    assert all_answered
    assert isinstance(late, Busy)


def test_a_policy_with_a_memory_has_a_row_a_client_and_hears_of_each_episode() -> None:
    policy = Mean()
    facts = Facts("mean", shape=(3, 7), picture=(8, 8), remembers=True)
    service = service_of(PolicySubject(policy, facts, rows=2), rows=2, limits=Limits(2, 30))

    async def episodes() -> list[Any]:
        worker = asyncio.create_task(service.batcher.run())
        with service.client("one") as one, service.client("two") as two:
            await asyncio.gather(*(service.ask("t", str(s.number), s, question("w" * s.number)) for s in (one, two)))
            two.reset()
            await service.ask("t", "2", two, question("ww"))
            refused = []
            try:
                with service.client("three"):
                    pass
            except Busy as error:
                refused.append(error)
        worker.cancel()
        return refused

    refused = asyncio.run(episodes())
    assert policy.resets == [0, 1, 1]
    assert policy.batches == [["w", "ww"], ["ww", "ww"]]
    assert len(refused) == 1


def test_questions_behind_an_earlier_one_of_their_own_client_are_few_and_wait_no_longer_than_others() -> None:
    """Where an answer depends on those before, they go one after the other."""
    policy = Mean()
    policy.gate.clear()
    service = service_of(PolicySubject(policy, FACTS), memory=Memory(queue=3), limits=Limits(queue=4, timeout_s=1))
    threading.Timer(4, policy.gate.set).start()
    results = asyncio.run(answered(service, [("a", question("w")) for _ in range(12)]))
    assert [type(result) for result in results] == [Busy] * 12
    assert sum("questions are waiting" in str(result) for result in results) >= 7
    assert sum("no answer within 1 s" in str(result) for result in results) >= 3


def test_a_row_of_a_client_that_has_been_silent_for_long_is_given_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(memory=Memory(queue=2), rows=1)
    with service.named("gone"):
        pass
    with pytest.raises(Busy), service.client("other"):
        pass
    monkeypatch.setattr("vlakit.serving.service.IDLE_S", -1.0)
    with service.client("other") as session:
        assert session.row == 0


def test_sessions_beside_a_connection_end_with_it() -> None:
    service = service_of(memory=Memory(queue=2), rows=3)
    with service.client("anna"):
        for n in (1, 2):
            with service.named(f"anna/{n}"):
                pass
        with pytest.raises(Busy), service.client("ben"):
            pass
    with service.client("ben"), service.client("cleo"), service.client("dora") as last:
        assert last.row == 2
