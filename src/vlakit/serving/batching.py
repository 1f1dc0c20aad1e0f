"""Questions of all clients to one policy: batches as they come, a bounded queue, each client its turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeAlias

from vlakit.errors import VlakitError
from vlakit.schema import Float32, Observation
from vlakit.serving.clients.base import ENDING
from vlakit.serving.questions import Busy
from vlakit.serving.sessions import Session

LATELY_S = 1.0
log = logging.getLogger(__name__)
Result: TypeAlias = Float32 | VlakitError  # a chunk (H, A), or why there is none


@dataclass(frozen=True)
class Ask:
    """One question on its way: who asks, what it sees, where the answer goes."""

    client: str
    session: Session
    observation: Observation
    answer: asyncio.Future[Float32]
    since: float = field(default_factory=perf_counter)


@dataclass(frozen=True)
class Limits:
    """rows: most questions in a batch; wait_ms: how long a batch waits for others; queue: most that wait; timeout_s: of
    one answer, its waiting included.
    """

    rows: int = 8
    wait_ms: float = 3.0
    queue: int = 64
    timeout_s: float = 60.0


class Batcher:
    """Runs `answer` in one thread of its own, so that the loop goes on hearing clients meanwhile.

    A batch is taken as soon as every client that has asked lately is in it, or `wait_ms` after its first question. No
    client has a second question in a batch before all others have their first.
    """

    def __init__(self, answer: Callable[[Sequence[Ask]], Sequence[Result]], limits: Limits) -> None:
        self._answer, self.limits = answer, limits
        self.clients = 0  # connections that are open
        self.draining = False
        self.batches: list[int] = []  # sizes of those since somebody looked
        self._asked: dict[str, float] = {}  # client -> when it asked last
        self._took_s = 0.0
        self._queueing = 0  # questions behind an earlier one of their own client
        self._waiting: list[Ask] = []
        self._running: list[Ask] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "policy")

    @property
    def load(self) -> int:
        """Questions that wait."""
        return len(self._waiting) + self._queueing

    @asynccontextmanager
    async def turn(self, session: Session) -> AsyncIterator[None]:
        """A client's questions one after the other, where an answer depends on those before. Raises Busy."""
        self._check_room()
        self._queueing += 1
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                await session.lock.acquire()
        except TimeoutError as error:
            raise self._late() from error
        finally:
            self._queueing -= 1
        try:
            yield
        finally:
            session.lock.release()

    async def submit(self, client: str, session: Session, observation: Observation) -> Float32:
        """The chunk (H, A) for one question. Raises Busy, and what the policy raised."""
        if self.draining:
            raise Busy(ENDING, where="server", do="ask another, or later")
        self._check_room()
        self._asked[client] = perf_counter()
        ask = Ask(client, session, observation, asyncio.get_running_loop().create_future())
        self._waiting.append(ask)
        self._arrived.set()
        try:
            return await asyncio.wait_for(ask.answer, self.limits.timeout_s)
        except TimeoutError as error:
            raise self._late() from error

    def _check_room(self) -> None:
        if self.load >= self.limits.queue:
            raise Busy(f"{self.load} questions are waiting", where="queue", do="ask again in a moment")

    def _late(self) -> Busy:
        what = f"no answer within {self.limits.timeout_s:g} s"
        return Busy(what, where="timeout_s", do="ask again, or fewer at a time")

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            await self._gather()
            self._running = self._take()
            if not self._running:
                continue
            self.batches = [*self.batches[-999:], len(self._running)]
            began = perf_counter()
            results = await loop.run_in_executor(self._thread, self._answer, self._running)
            self._took_s = perf_counter() - began
            for ask, result in zip(self._running, results, strict=True):
                _settle(ask.answer, result)
            self._running = []

    async def drain(self, seconds: float) -> bool:
        """Take no more questions, and let those that are here be answered; whether all were."""
        self.draining = True
        end = perf_counter() + seconds
        while (self._waiting or self._running) and perf_counter() < end:
            await asyncio.sleep(0.01)
        return not (self._waiting or self._running)

    async def in_thread(self, work: Callable[[], object]) -> None:
        """Run something where the policy runs."""
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def later(self, work: Callable[[], object]) -> None:
        """The same, without waiting for it."""
        with suppress(RuntimeError):  # the thread has ended
            self._thread.submit(work)

    def close(self) -> None:
        """End the thread once it is idle."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> None:
        """Wait for others as long as some are missing and time is left; one that is idle is not waited for."""
        now = perf_counter()
        lately, end = max(LATELY_S, 2 * self._took_s), now + self.limits.wait_ms / 1000
        self._asked = {client: when for client, when in self._asked.items() if now - when < lately}
        while len(self._waiting) < min(self.limits.rows, len(self._asked)):
            left = end - perf_counter()
            if left <= 0:
                break
            self._arrived.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def _take(self) -> list[Ask]:
        """The next batch: the oldest question of each client, then second ones; whoever has gone is left out."""
        alive = [ask for ask in self._waiting if not ask.answer.done()]
        met: dict[str, int] = {}
        turns: list[tuple[int, int]] = []
        for place, ask in enumerate(alive):
            met[ask.client] = met.get(ask.client, 0) + 1
            turns.append((met[ask.client], place))
        chosen = {place for _, place in sorted(turns)[: self.limits.rows]}
        self._waiting = [ask for place, ask in enumerate(alive) if place not in chosen]
        if not self._waiting:
            self._arrived.clear()
        return [ask for place, ask in enumerate(alive) if place in chosen]


def _settle(answer: asyncio.Future[Float32], result: Result) -> None:
    if answer.done():  # its client has gone
        return
    if isinstance(result, VlakitError):
        answer.set_exception(result)
    else:
        answer.set_result(result)
