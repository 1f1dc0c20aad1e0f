"""`Service`: between dialects and the policy. It knows clients, their sessions and rates, and counts what happens."""

from __future__ import annotations

import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

from vlakit import __version__
from vlakit.errors import VlakitError
from vlakit.schema import Float32
from vlakit.serving.batching import Batcher, Limits
from vlakit.serving.metrics import Metrics
from vlakit.serving.questions import Asked, Busy, Question, Unauthorized
from vlakit.serving.sessions import Memory, Session
from vlakit.serving.subjects import Facts, Subject

log = logging.getLogger(__name__)
SESSIONS = 1024  # of clients without a connection, such as HTTP's
IDLE_S = 600.0  # after which such a client is forgotten


@dataclass(frozen=True)
class Guard:
    """bytes: of one message; rate: questions a second of one client, None: any number; token: what clients must show;
    clients: most connections at a time.
    """

    bytes: int = 64 * 2**20
    rate: float | None = None
    token: str | None = None
    clients: int = 256


@dataclass
class _Client:
    """A client as its rate is counted: questions that it may still ask, and since when it was reckoned."""

    allowance: float
    since: float


class Service:
    """Answers checked questions of any dialect."""

    def __init__(self, subject: Subject, memory: Memory, limits: Limits, guard: Guard, rows: int | None = None) -> None:
        self.subject, self.memory, self.guard = subject, replace(memory, window=subject.facts.window), guard
        self.batcher = Batcher(subject.answer, limits)
        self.metrics = Metrics()
        self.ready = False
        self.started = time.time()
        self._free = list(range(rows)) if rows else None
        self._numbers = 0
        self._named: OrderedDict[str, tuple[Session, float]] = OrderedDict()
        self._rates: OrderedDict[str, _Client] = OrderedDict()

    @property
    def facts(self) -> Facts:
        """Of who answers."""
        return self.subject.facts

    @property
    def horizon(self) -> int:
        """Actions in an answer."""
        return self.facts.shape[0] if self.memory.queue == 0 and self.memory.ensemble is None else 1

    def asked(self, cameras: dict[str, str], proprio_key: str) -> Asked:
        """What a question of one dialect must hold."""
        facts = self.facts
        return Asked(cameras, facts.datasets, facts.dataset, facts.proprio, proprio_key)

    @contextmanager
    def client(self, name: str) -> Iterator[Session]:
        """The session of one connection. Raises Busy where there is no room for another."""
        if self.batcher.clients >= self.guard.clients:
            raise Busy(f"{self.guard.clients} clients are connected", where="server", do="disconnect one")
        session = self._session()
        self.batcher.clients += 1
        try:
            yield session
        finally:
            self.batcher.clients -= 1
            self._forget(session)
            for beside in self._beside(name):  # sessions of questions that came with others
                self._forget(self._named.pop(beside)[0])

    @contextmanager
    def named(self, name: str) -> Iterator[Session]:
        """The session of a client without a connection, by its name; one a question where nothing is remembered."""
        if self.memory.stateless and not self.facts.remembers:
            session = self._session()
            try:
                yield session
            finally:
                self._forget(session)
            return
        self._forget_idle(SESSIONS - 1)
        session = self._named.pop(name, (None, 0.0))[0] or self._session()
        self._named[name] = session, perf_counter()
        yield session

    def reset(self, name: str) -> None:
        """An episode of a client without a connection begins, whatever rows it has."""
        for one in (name, *self._beside(name)):
            with self.named(one) as session:
                session.reset()

    async def ask(
        self, dialect: str, client: str, session: Session, question: Question, *, counts: bool = True
    ) -> Float32:
        """The actions (T, A) for one question, to the bit the policy's. Raises Refused, Busy, PolicyFailed, ...

        counts: towards the client's rate; False for questions that came in one message with another.
        """
        began = perf_counter()
        if counts:
            self._check_rate(client)
        if self.memory.stateless and not self.facts.remembers and session.row is None:
            answer = await self._answer(client, session, question)
        else:
            async with self.batcher.turn(session):
                answer = await self._answer(client, session, question)
        self.metrics.answered(dialect, question, answer, perf_counter() - began)
        return answer

    def check_token(self, token: str | None) -> None:
        """Raise Unauthorized for another token than the server's."""
        wanted = self.guard.token
        if wanted is not None and not hmac.compare_digest(wanted.encode(), str(token or "").encode()):
            raise Unauthorized("Unauthorized: Invalid API token", do="send the token that the server was started with")

    def refuse(self, dialect: str, error: Exception) -> str:
        """Count an error, and what a client is told: of an error that is not vlakit's own, its kind alone."""
        self.metrics.refused(dialect, type(error).__name__)
        if isinstance(error, VlakitError):
            parts = [error.what, error.where and f"in: {error.where}", error.do and f"do: {error.do}"]
            said = "; ".join(part for part in parts if part)
            return said.encode(errors="replace").decode()  # a question's own words may be no text that can be sent
        log.exception("a question raised", exc_info=error)
        return f"the server raised {type(error).__name__}"

    def info(self) -> dict[str, Any]:
        """What is served, in plain values."""
        facts = self.facts
        return {
            "server": f"vlakit {__version__}",
            "policy": facts.name,
            "cameras": list(facts.cameras),
            "chunk": facts.shape[0],
            "action_size": facts.shape[1],
            "datasets": list(facts.datasets),
            "dataset": facts.dataset,
            "proprio": facts.proprio,
            "window": facts.window,
            "queue": self.memory.queue,
            "ensemble": self.memory.ensemble,
            **facts.more,
        }

    def counted(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.waiting.set(self.batcher.load)
        self.metrics.clients.set(self.batcher.clients)
        sizes, self.batcher.batches = self.batcher.batches, []
        for size in sizes:
            self.metrics.rows.observe(size)

    async def warm_up(self) -> None:
        """Answer once where the policy runs; from here on the server is ready."""
        await self.batcher.in_thread(partial(self.subject.warm_up, self.batcher.limits.rows))
        self.ready = True

    async def _answer(self, client: str, session: Session, question: Question) -> Float32:
        before = session.history()
        observation = session.observe(question)
        planned = session.planned()
        if planned is not None:
            return planned
        try:
            return session.answer(await self.batcher.submit(client, session, observation))
        except VlakitError:
            session.recall(before)
            raise

    def _beside(self, name: str) -> list[str]:
        return [one for one in self._named if one.startswith(f"{name}/")]

    def _forget_idle(self, most: int = SESSIONS) -> None:
        """Of clients without a connection: those that have not asked for long, and the oldest of more than `most`."""
        past = perf_counter() - IDLE_S
        while self._named and (len(self._named) > most or next(iter(self._named.values()))[1] < past):
            self._forget(self._named.popitem(last=False)[1][0])

    def _session(self) -> Session:
        self._forget_idle()
        if self._free is not None and not self._free:
            raise Busy("every row of the batch has its client", where="rows", do="disconnect one, or serve more rows")
        row = None if self._free is None else self._free.pop(0)
        self._numbers += 1
        return Session(self.memory, self._numbers, row)

    def _forget(self, session: Session) -> None:
        if self._free is not None and session.row is not None:
            self._free = sorted([*self._free, session.row])
        if self.facts.remembers:
            self.batcher.later(partial(self.subject.forget, session.number))

    def _check_rate(self, client: str) -> None:
        if self.guard.rate is None:
            return
        now, burst = perf_counter(), max(1.0, self.guard.rate)
        one = self._rates.pop(client, None) or _Client(burst, now)
        one.allowance = min(burst, one.allowance + (now - one.since) * self.guard.rate)
        one.since = now
        self._rates[client] = one
        while len(self._rates) > SESSIONS:
            self._rates.popitem(last=False)
        if one.allowance < 1:
            raise Busy(f"more than {self.guard.rate:g} questions a second", where="rate", do="ask more slowly")
        one.allowance -= 1
