"""Ports, signals and the end: bound before weights are read, listening when warm, ending when all is answered."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vlakit.errors import ConfigError
from vlakit.registry import Registry
from vlakit.serving.service import Service
from vlakit.serving.web import app

log = logging.getLogger(__name__)
DIALECTS: Registry[Any] = Registry(
    "dialect",
    {
        "openvla": "vlakit.serving.dialects.openvla:OpenVLA",
        "openpi": "vlakit.serving.dialects.openpi:OpenPi",
        "gr00t": "vlakit.serving.dialects.gr00t:Gr00t",
        "vla_eval": "vlakit.serving.dialects.vla_eval:VlaEval",
        "starvla": "vlakit.serving.dialects.starvla:StarVla",
        "lerobot": "vlakit.serving.dialects.lerobot:LeRobot",
    },
)


@dataclass
class Ports:
    """Where dialects are spoken: host, name -> port (0: a free one); bound already, so that nobody else takes them."""

    host: str
    ports: Mapping[str, int]
    sockets: dict[str, socket.socket] = field(default_factory=dict[str, socket.socket])
    numbers: dict[str, int] = field(default_factory=dict[str, int])  # as given, or found where that was 0

    def bind(self) -> Ports:
        """Take the ports. Raises ConfigError for one that is in use, or not allowed."""
        for name, port in self.ports.items():
            one = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a peer that lost its power is noticed
            self.sockets[name] = one
            try:
                one.bind((self.host, port))
                self.numbers[name] = int(one.getsockname()[1])
            except (OSError, OverflowError) as error:
                self.close()
                used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
                raise ConfigError(
                    f"port {port} is in use" if used else f"cannot listen: {error}",
                    where=f"{self.host}:{port}, dialect {name}",
                    do="give another: port=N" if used else "host=127.0.0.1 is this machine alone; port=N another port",
                ) from error
        return self

    def close(self) -> None:
        """Give them back."""
        for one in self.sockets.values():
            one.close()

    def give(self, name: str) -> int:
        """The port of a dialect that binds it itself: it is free until then."""
        self.sockets[name].close()
        return self.numbers[name]


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: several of them share one loop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Impatient(H11Protocol):
    """uvicorn's HTTP, which hangs up on who never sends the head of a question: it would hold its place for ever."""

    _ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.get_protocol() is not self:  # of a WebSocket, once it is upgraded
            self._unwatch()
        elif self._ends is None:  # a byte now and then wins no time
            self._ends = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _unwatch(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None


SILENT_S = 75  # of a connection between two questions, or before a question's head is whole
SPARE = 16  # connections that are for /health, /metrics and the page when all clients are there


def web_server(service: Service, routes: Sequence[Any]) -> _Server:
    """A server of one port. No pings: a client that waits for a slow first answer is not dead."""
    config = uvicorn.Config(
        app(service, routes),
        http=_Impatient,
        ws="websockets-sansio",
        ws_max_size=service.guard.bytes,
        ws_max_queue=2,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=SILENT_S,
        limit_concurrency=service.guard.clients + SPARE,  # open connections, silent ones too; 503 to a question beyond
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=64 * 1024,
    )
    return _Server(config)


async def serve(
    service: Service,
    dialects: Mapping[str, Any],
    ports: Ports,
    *,
    drain_s: float = 30.0,
    ready: Callable[[Mapping[str, int]], None] = lambda ports: None,
    stop: asyncio.Event | None = None,
) -> bool:
    """Serve until a signal or `stop`; whether every question that had been asked was answered.

    ready: called with name -> port once clients are answered.
    """
    stop = stop or asyncio.Event()
    with _signals(stop):
        batches = asyncio.create_task(service.batcher.run())
        try:
            await service.warm_up()
            servers = {name: web_server(service, one.routes()) for name, one in dialects.items() if one.web}
            running = [asyncio.create_task(one.serve([ports.sockets[name]])) for name, one in servers.items()]
            plain = {name: one for name, one in dialects.items() if not one.web}
            for name, one in plain.items():
                await one.listen(ports.host, ports.give(name))
            others = [asyncio.create_task(one.serve()) for one in plain.values()]
            while not all(one.started or task.done() for one, task in zip(servers.values(), running, strict=True)):
                await asyncio.sleep(0.005)
            ready({name: ports.numbers[name] for name in dialects})
            await _until(stop, [batches, *running, *others])
            return await _end(service, list(servers.values()), running, others, drain_s)
        finally:
            batches.cancel()
            service.batcher.close()
            ports.close()


async def _until(stop: asyncio.Event, tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for the event; a task that ends before it is an error of the server."""
    waiting = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for task in done - {waiting}:
        task.result()


async def _end(
    service: Service,
    servers: Sequence[uvicorn.Server],
    running: Sequence[asyncio.Task[Any]],
    others: Sequence[asyncio.Task[Any]],
    drain_s: float,
) -> bool:
    log.info("ending: %d questions are waiting", service.batcher.load)
    answered = await service.batcher.drain(drain_s)
    await asyncio.sleep(0.05)  # answers leave before their connections close
    for server in servers:
        server.should_exit = True
    for task in others:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*running, *others, return_exceptions=True), 15)
    return answered


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the server in good order; outside the main thread nobody sends them."""
    loop = asyncio.get_running_loop()
    caught = []
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
            caught.append(number)
        except (ValueError, RuntimeError, NotImplementedError):
            break
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
