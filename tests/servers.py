"""Policy servers for tests: a real one on a free port of this machine, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.cli.serve import cameras_of
from vlakit.schema import Float32, Observation
from vlakit.serving.batching import Limits
from vlakit.serving.server import DIALECTS, Ports, serve
from vlakit.serving.service import Guard, Service
from vlakit.serving.sessions import Memory
from vlakit.serving.subjects import Facts, PolicySubject, Subject

TALKS = Path(__file__).parent / "fixtures" / "serving"
WHOLE, SOON, OPEN = Memory(), Limits(wait_ms=1), Guard()
FACTS = Facts("mean", ("primary",), (3, 7), ("bridge_orig",), picture=(8, 8))


class Mean:
    """A policy whose answer tells what it saw: mean of the picture, length of the instruction, step, dimension."""

    window = 1

    def __init__(self, horizon: int = 3, size: int = 7, cameras: Sequence[str] = ("primary",)) -> None:
        self.horizon, self.size, self.cameras = horizon, size, cameras
        self.batches: list[list[str]] = []
        self.resets: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def reset(self, slots: Sequence[int]) -> None:
        self.resets += slots

    def act(self, observations: Sequence[Observation]) -> Float32:
        self.gate.wait(30)
        self.batches.append([one.instruction for one in observations])
        if any("explode" in one.instruction for one in observations):
            raise RuntimeError("a secret of the server")
        return np.stack([self.chunk(one) for one in observations])

    def chunk(self, one: Observation) -> Float32:
        base = np.mean([one.images[camera][-1].mean() for camera in self.cameras]) / 255 + len(one.instruction) / 1000
        if "nan" in one.instruction:
            base = np.nan
        steps = np.arange(self.horizon)[:, None] / 100 + np.arange(self.size)[None] / 10
        return (base + steps).astype(np.float32)


def service_of(
    subject: Subject | None = None,
    *,
    memory: Memory = WHOLE,
    limits: Limits = SOON,
    guard: Guard = OPEN,
    rows: int | None = None,
) -> Service:
    return Service(subject or PolicySubject(Mean(), FACTS, rows), memory, limits, guard, rows)


@contextmanager
def running(
    service_for: Any,
    dialects: Sequence[str] = ("openpi",),
    cameras: Mapping[str, Any] | None = None,
    drain_s: float = 5,
    generation: str = "",
) -> Iterator[dict[str, int]]:
    """dialect -> port of a server that answers; service_for: () -> Service, called in the server's own thread."""
    ports, ready, ended = Ports("127.0.0.1", dict.fromkeys(dialects, 0)).bind(), threading.Event(), threading.Event()
    found: dict[str, int] = {}
    state: dict[str, Any] = {}

    def told(numbers: Mapping[str, int]) -> None:
        found.update(numbers)
        ready.set()

    async def main() -> None:
        service = service_for()
        state.update(loop=asyncio.get_running_loop(), stop=asyncio.Event())
        kinds: dict[str, Any] = {name: DIALECTS.get(name) for name in dialects}
        built = {n: kind(service, cameras_of(cameras, n, kind.cameras, service.facts)) for n, kind in kinds.items()}
        if generation:
            built["gr00t"].generation = generation
        await serve(service, built, ports, drain_s=drain_s, ready=told, stop=state["stop"])

    def thread() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            state["error"] = error
        finally:
            ended.set()
            ready.set()

    runner = threading.Thread(target=thread, daemon=True)
    runner.start()
    assert ready.wait(60)
    if "error" in state:
        raise state["error"]
    try:
        yield found
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        assert ended.wait(60)
        if "error" in state:
            raise state["error"]


def frames(dialect: str) -> list[dict[str, Any]]:
    """The recorded conversation of a dialect, each frame with its bytes."""
    folder = TALKS / dialect
    entries = json.loads((folder / "frames.json").read_text())["frames"]
    return [{**entry, "data": (folder / entry["file"]).read_bytes()} for entry in entries]


def described(value: Any) -> Any:
    """A decoded message as frames.json writes it: arrays by shape, dtype and their mean or values."""
    if isinstance(value, np.ndarray):
        kind = value.dtype.str
        told = {"array": list(value.shape), "dtype": kind}
        return told | (
            {"mean": float(value.mean())} if value.size > 64 and kind == "|u1" else {"values": value.tolist()}
        )
    if isinstance(value, Mapping):
        return {key: described(one) for key, one in value.items()}
    return [described(one) for one in value] if isinstance(value, list | tuple) else value
