"""Points of a training's curves on their way to the record: each once, and kept while the store is away."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)
Point = tuple[str, int, float, int]  # name, step, value, milliseconds since 1970
PAUSE_S = 10.0  # between two tries; sqlite waits 5 s by itself, in which nothing trains
AT_ONCE = 1000  # the most that one request may hold


class Points:
    """(name, step) is written once, whoever brings it again: a resumed run repeats steps behind its checkpoint.

    write: files some points, or raises. known: what is on record already.
    """

    def __init__(self, write: Callable[[Sequence[Point]], None], known: Iterable[tuple[str, int]] = ()) -> None:
        self.write, self.known = write, set(known)
        self.waiting: list[Point] = []
        self.away = ""  # why the store did not take them
        self._again = 0.0

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """File the values of one step, now or when the store is back."""
        now = int(time.time() * 1000)
        self.bring((re.sub(r"[^\w/. -]", "", name), step, float(value), now) for name, value in values.items())
        if time.monotonic() >= self._again:
            self.flush()

    def bring(self, points: Iterable[Point]) -> None:
        """Let points wait, but for those that are known."""
        for name, step, value, when in points:
            if (name, step) not in self.known:
                self.known.add((name, step))
                self.waiting.append((name, step, value, when))

    def flush(self, patience_s: float = 0.0) -> bool:
        """Write what waits, trying for so long; False where the store is still away."""
        deadline = time.monotonic() + patience_s
        while not self._written():
            if time.monotonic() >= deadline:
                return False
            time.sleep(1.0)
        return True

    def _written(self) -> bool:
        try:
            while self.waiting:
                self.write(self.waiting[:AT_ONCE])
                del self.waiting[:AT_ONCE]
        except Exception as error:  # of the store, its database, its server or the network: none may end a training
            self._again = time.monotonic() + PAUSE_S
            if not self.away:
                self.away = str(error).splitlines()[0][:200]
                log.warning("the record does not answer, training goes on and its points wait: %s", self.away)
            return False
        if self.away:
            log.info("the record is back, and has every point")
            self.away = ""
        return True
