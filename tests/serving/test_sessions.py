"""What is kept of one client: frames, a queue, chunks to average; and that nothing outlives its episode."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from servers import Mean, service_of

from vlakit.evaluation.rollout import stacked
from vlakit.schema import Observation, UInt8
from vlakit.serving.questions import Busy, Question, Refused
from vlakit.serving.sessions import Memory, Session
from vlakit.serving.subjects import Facts, PolicySubject

CHUNK = np.arange(12, dtype=np.float32).reshape(4, 3)


def question(shade: int, words: str = "lift the pot", frames: int = 1) -> Question:
    return Question(
        {"primary": np.full((frames, 2, 2, 3), shade, np.uint8)}, words, None, np.full((frames, 2), shade, np.float32)
    )


def test_a_window_is_stacked_as_a_rollout_stacks_it() -> None:
    session = Session(Memory(window=3), 0)
    seen = [session.observe(question(shade)) for shade in (1, 2, 3, 4)]
    alone = [
        Observation(dict(question(shade).images), "lift the pot", None, np.full((1, 2), shade, np.float32))
        for shade in (1, 2, 3, 4)
    ]
    expected = [stacked([alone[max(i, 0)] for i in range(last - 2, last + 1)]) for last in range(4)]
    for one, other in zip(seen, expected, strict=True):
        assert one.window_mask is not None
        assert other.window_mask is not None
        assert np.array_equal(one.window_mask, other.window_mask)
        assert np.array_equal(one.images["primary"], other.images["primary"])
        assert one.proprio is not None
        assert other.proprio is not None
        assert np.array_equal(one.proprio, other.proprio)


def test_a_client_that_keeps_the_history_itself_is_taken_at_its_word() -> None:
    session = Session(Memory(window=3), 0)
    assert session.observe(question(1, frames=3)).images["primary"].shape[0] == 3
    late = replace(question(9, frames=5), images={"primary": frames_of(5, 6, 7, 8, 9)})
    assert session.observe(late).images["primary"][:, 0, 0, 0].tolist() == [7, 8, 9]  # the newest of more than it sees
    two = {"primary": frames_of(1), "wrist": frames_of(1, 2)}
    with pytest.raises(Refused, match=r"\[1, 2\] frames"):
        session.observe(replace(question(1), images=two))


def test_frames_since_the_last_question_come_behind_those_before() -> None:
    session = Session(Memory(window=3), 0)
    first = session.observe(question(1))
    assert first.images["primary"][:, 0, 0, 0].tolist() == [1, 1, 1]
    assert first.window_mask is not None
    assert first.window_mask.tolist() == [False, False, True]
    second = session.observe(replace(question(3, frames=2), images={"primary": frames_of(2, 3)}))
    assert second.images["primary"][:, 0, 0, 0].tolist() == [1, 2, 3]
    assert second.window_mask is not None
    assert second.window_mask.all()


def frames_of(*shades: int) -> UInt8:
    return np.concatenate([question(shade).images["primary"] for shade in shades])


def test_a_history_of_the_clients_own_brings_its_poses() -> None:
    session, whole = Session(Memory(window=3), 0), question(1, frames=3)
    assert whole.proprio is not None
    moving = replace(whole, proprio=whole.proprio + np.arange(3, dtype=np.float32)[:, None])
    assert np.array_equal(session.observe(moving).proprio, moving.proprio)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refused, match="proprio of 1 moments"):
        session.observe(replace(whole, proprio=whole.proprio[:1]))


def test_frames_of_a_question_without_an_answer_are_not_kept_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    async def submit(client: str, session: Session, observation: Observation) -> np.ndarray:
        seen.append(observation.images["primary"][:, 0, 0, 0].tolist())
        if len(seen) == 2:
            raise Busy("the queue is full", where="server", do="ask again")
        return CHUNK

    async def asked() -> None:
        facts = Facts("looks", shape=(4, 3), window=3)
        service = service_of(PolicySubject(Mean(4, 3), facts))
        monkeypatch.setattr(service.batcher, "submit", submit)
        with service.client("one") as session:
            await service.ask("openpi", "one", session, question(1))
            with pytest.raises(Busy):
                await service.ask("openpi", "one", session, question(2))
            for shade in (2, 3):
                await service.ask("openpi", "one", session, question(shade))

    asyncio.run(asked())
    assert seen == [[1, 1, 1], [1, 1, 2], [1, 1, 2], [1, 2, 3]]


def test_a_queue_hands_out_so_many_actions_and_then_asks_again() -> None:
    session = Session(Memory(queue=3), 0)
    given = [session.planned()]
    given += [session.answer(CHUNK), session.planned(), session.planned(), session.planned()]
    assert given[0] is None
    assert given[-1] is None
    assert np.array_equal(np.concatenate([one for one in given if one is not None]), CHUNK[:3])


def test_a_reset_and_other_words_empty_the_queue() -> None:
    session = Session(Memory(queue=4), 0)
    for forget in (session.reset, lambda: session.observe(question(1, "close the drawer"))):
        session.observe(question(1))
        session.answer(CHUNK)
        forget()
        assert session.planned() is None


def test_an_ensemble_weighs_all_predictions_for_now_and_the_oldest_most() -> None:
    session = Session(Memory(ensemble=0.5), 0)
    chunks = [CHUNK + 100 * i for i in range(6)]
    answers = [session.answer(chunk) for chunk in chunks]
    for now in range(6):
        oldest = max(0, now - 3)
        predicted = np.stack([chunks[then][now - then] for then in range(oldest, now + 1)])
        weights = np.exp(-0.5 * np.arange(len(predicted)))
        expected = (weights[:, None] * predicted).sum(axis=0) / weights.sum()
        assert np.allclose(answers[now], expected[None], rtol=1e-6)
    session.reset()
    assert np.array_equal(session.answer(CHUNK), CHUNK[:1])


def test_without_memory_the_whole_chunk_is_the_answer() -> None:
    session = Session(Memory(), 0)
    assert session.answer(CHUNK) is CHUNK
    assert session.planned() is None
    assert Memory().stateless
