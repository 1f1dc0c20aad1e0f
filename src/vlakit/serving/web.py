"""What every server that speaks HTTP has beside its dialect: health, metrics, facts, a page; and who may ask at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vlakit.serving.page import page
from vlakit.serving.questions import Refused, Unauthorized
from vlakit.serving.service import Service
from vlakit.serving.sessions import Session

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Dialect(Protocol):
    """A language of clients. cameras: camera -> the key of its own client's pictures; port: where that client looks."""

    name: ClassVar[str]
    port: ClassVar[int]
    cameras: ClassVar[dict[str, str]]
    says_dataset: ClassVar[bool]  # whether a question may name the statistics that apply
    web: ClassVar[bool]  # whether it speaks HTTP or WebSocket, so that the page has room beside it


class Pages:
    """GET /, /live, /health, /healthz, /metrics, /info. What shows pictures or facts wants the token."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def routes(self) -> list[BaseRoute]:
        """One for each."""
        shows = {"/": self.page, "/live": self.live, "/metrics": self.metrics, "/info": self.info}
        open_ = {"/health": self.health, "/healthz": self.healthz}
        gets = {**open_, **{path: self._guarded(endpoint) for path, endpoint in shows.items()}}
        return [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]

    @property
    def good(self) -> bool:
        """Whether questions are answered."""
        return self.service.ready and not self.service.batcher.draining

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        self.service.counted()
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def live(self, request: Request) -> Response:
        """What the page shows anew each second."""
        batcher = self.service.batcher
        return JSONResponse({**self.service.metrics.live(), "clients": batcher.clients, "waiting": batcher.load})

    async def health(self, request: Request) -> Response:
        """As vla-eval's clients ask."""
        return JSONResponse({"status": "ok" if self.good else "not ready"}, 200 if self.good else 503)

    async def healthz(self, request: Request) -> Response:
        """As openpi's clients ask."""
        return PlainTextResponse("OK" if self.good else "not ready", 200 if self.good else 503)

    async def info(self, request: Request) -> Response:
        """Facts and contract."""
        return JSONResponse(self.service.info())

    async def page(self, request: Request) -> Response:
        """For people."""
        return HTMLResponse(page(self.service.info()))

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """For those with the token alone, who may also write ?token=... behind the address."""

        async def checked(request: Request) -> Response:
            try:
                check_visitor(self.service, request.headers, request.query_params.get("token"))
            except Unauthorized as error:
                return PlainTextResponse(error.what, 401)
            return await endpoint(request)

        return checked


def app(service: Service, routes: Sequence[BaseRoute]) -> Starlette:
    """The application of one port; the dialect's routes come first."""
    return Starlette(routes=[*routes, *Pages(service).routes()])


def check_visitor(service: Service, headers: Headers, token: str | None = None) -> None:
    """Raise Unauthorized for another token, and for a page of another site that a browser has open."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Unauthorized(f"a page of {origin}"[:200], do="ask without a browser")
    service.check_token(token or headers.get("authorization", "").rpartition(" ")[2])


async def body_of(request: Request, most: int, timeout_s: float) -> bytes:
    """The whole body. Raises Refused for a longer one, and for one that does not come."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise Refused(f"more than {most} bytes", where="body", do="send smaller pictures")
                parts.append(part)
    except TimeoutError as error:
        raise Refused(f"no whole body within {timeout_s:g} s", where="body", do="send it at once") from error
    return b"".join(parts)


class OverWebSocket:
    """A dialect of one WebSocket at /: a child names itself and speaks. state: its key of the proprioception."""

    name: ClassVar[str]
    state: ClassVar[str] = "state"
    web: ClassVar[bool] = True

    def __init__(self, service: Service, cameras: dict[str, str]) -> None:
        self.service, self.asked = service, service.asked(cameras, self.state)

    def routes(self) -> list[BaseRoute]:
        """The WebSocket at /."""
        return [WebSocketRoute("/", self.connected)]

    async def connected(self, socket: WebSocket) -> None:
        """One client."""
        await Talk(socket, self.service, self.name).run(self.speak)

    async def speak(self, talk: Talk, session: Session) -> None:
        """Until the client goes."""
        raise NotImplementedError


class Talk:
    """One WebSocket: binary messages in, one answer each; an error is the dialect's to tell."""

    def __init__(self, socket: WebSocket, service: Service, dialect: str) -> None:
        self.socket, self.service, self.dialect = socket, service, dialect
        self.name = f"{socket.client.host}:{socket.client.port}" if socket.client else "?"

    async def run(self, speak: Callable[[Talk, Session], Awaitable[None]]) -> None:
        """Let the client in, if it may, and `speak` with it until it goes."""
        try:
            check_visitor(self.service, self.socket.headers)
        except Unauthorized as error:
            self.service.refuse(self.dialect, error)
            await self.socket.close(1008)  # before the handshake: HTTP 403
            return
        await self.socket.accept()
        try:
            with self.service.client(self.name) as session:
                await speak(self, session)
        except (WebSocketDisconnect, TimeoutError):
            pass  # it went, or reads no answers: nobody is left to tell
        except Exception as error:
            await self.end(self.service.refuse(self.dialect, error))

    async def hear(self) -> bytes:
        """The next message. Raises WebSocketDisconnect, and Refused for text."""
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data: Any = message.get("bytes")
        if data is None:
            raise Refused("a text message", where="websocket", do="send binary messages")
        return data

    async def say(self, data: bytes) -> None:
        """Send an answer; a client that does not read it for too long is let go."""
        async with asyncio.timeout(self.service.batcher.limits.timeout_s):
            await self.socket.send_bytes(data)

    async def end(self, reason: str, code: int = 1011) -> None:
        """Say in a text message why, and close."""
        try:
            async with asyncio.timeout(5):
                await self.socket.send_text(reason)
                await self.socket.close(code)
        except (WebSocketDisconnect, TimeoutError, RuntimeError):
            pass  # it has gone already
