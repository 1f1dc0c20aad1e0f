"""What happened, in numbers: for Prometheus at /metrics, and for people at /live."""

from __future__ import annotations

import io
import time
from base64 import b64encode
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vlakit.schema import Float32
from vlakit.serving.questions import Question

EDGES_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
SHOWN, THUMB = 8, 128  # questions on the page, pixels of their pictures


@dataclass(frozen=True)
class _Seen:
    at: float
    dialect: str
    question: Question
    action: list[float]
    ms: float


class Metrics:
    """Counters of one server, and its last questions."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.answers = Counter("vlakit_answers", "questions answered", ["dialect"], registry=registry)
        self.errors = Counter("vlakit_errors", "questions without an answer", ["dialect", "kind"], registry=registry)
        seconds = [ms / 1000 for ms in EDGES_MS]
        words = "from question to answer"
        self.latency = Histogram("vlakit_answer_seconds", words, ["dialect"], buckets=seconds, registry=registry)
        self.rows = Histogram(
            "vlakit_batch_rows", "questions in a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.waiting = Gauge("vlakit_waiting", "questions that wait", registry=registry)
        self.clients = Gauge("vlakit_clients", "connections that are open", registry=registry)
        self._recent: deque[_Seen] = deque(maxlen=SHOWN)
        self._counts = np.zeros(len(EDGES_MS) + 1, np.int64)

    def answered(self, dialect: str, question: Question, answer: Float32, seconds: float) -> None:
        """A question was answered with (T, A)."""
        self.answers.labels(dialect).inc()
        self.latency.labels(dialect).observe(seconds)
        self._counts[int(np.searchsorted(EDGES_MS, seconds * 1000))] += 1
        self._recent.append(_Seen(time.time(), dialect, question, answer[0].tolist(), seconds * 1000))

    def refused(self, dialect: str, kind: str) -> None:
        """A question was not."""
        self.errors.labels(dialect, kind).inc()

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)

    def live(self) -> dict[str, Any]:
        """The last questions, the newest first, and the histogram of latencies: plain values."""
        edges = [f"<= {ms} ms" for ms in EDGES_MS] + [f"> {EDGES_MS[-1]} ms"]
        counts = [[edge, int(count)] for edge, count in zip(edges, self._counts, strict=True)]
        return {"latency": counts, "recent": [_shown(one) for one in reversed(self._recent)]}


def _shown(one: _Seen) -> dict[str, Any]:
    pictures = {camera: _thumbnail(frames[-1]) for camera, frames in one.question.images.items()}
    words = {"at": one.at, "dialect": one.dialect, "instruction": one.question.instruction, "ms": round(one.ms, 2)}
    return {**words, "action": [round(value, 5) for value in one.action], "pictures": pictures}


def _thumbnail(picture: np.ndarray) -> str:
    image, file = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((THUMB, THUMB))
    image.save(file, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
