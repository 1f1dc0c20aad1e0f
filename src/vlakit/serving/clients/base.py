"""What connections to anybody's server share: `Client`, a WebSocket that fails in one way, pictures out, chunks in."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from vlakit.errors import ConfigError, VlakitError
from vlakit.schema import Float32, Observation
from vlakit.serving.arrays import pack, unpack

ENDING = "the server is ending"  # what a server of vlakit answers from SIGTERM on


class RemoteFailed(VlakitError):
    """A server that cannot be reached, refuses, or answers with what is no action."""


class Client(Protocol):
    """One connection. info: what the server says of itself, {} where its dialect has no words for that.

    window: frames that its policy sees; whole: whether a question holds all of them, not those since the last one.
    """

    info: Mapping[str, Any]

    def begin(self) -> None:
        """An episode begins."""
        ...

    def ask(self, observation: Observation) -> Float32:
        """A chunk (H, A). Raises RemoteFailed."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class Socket:
    """A WebSocket that raises RemoteFailed alone. timeout_s: of one answer."""

    def __init__(self, url: str, token: str | None, timeout_s: float) -> None:
        self.url, self.timeout_s = url, timeout_s
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        try:
            self.stack = ExitStack()
            self.socket: ClientConnection = self.stack.enter_context(
                connect(
                    url,
                    additional_headers=headers,
                    compression=None,
                    max_size=None,
                    ping_interval=None,
                    open_timeout=timeout_s,
                    proxy=None,
                )
            )
        except (OSError, WebSocketException, ValueError) as error:
            raise RemoteFailed(
                f"cannot connect: {error}"[:300], where=url, do="start the server, check url="
            ) from error

    def hear(self) -> Any:
        """The next message, unpacked; text is an error of the server."""
        try:
            message = self.socket.recv(timeout=self.timeout_s)
        except (OSError, WebSocketException, TimeoutError) as error:
            raise RemoteFailed(f"no answer: {error or type(error).__name__}"[:300], where=self.url) from error
        if isinstance(message, str):
            raise RemoteFailed(f"the server refuses: {message.strip().splitlines()[-1:] or ['']}"[:300], where=self.url)
        return unpack(message)[0]

    def exchange(self, message: Any, codec: str) -> Any:
        """The answer to a message."""
        self.say(message, codec)
        return self.hear()

    def say(self, message: Any, codec: str) -> None:
        """Send, and wait for nothing."""
        try:
            self.socket.send(pack(message, codec))
        except (OSError, WebSocketException) as error:
            raise RemoteFailed(f"the connection is lost: {error}"[:300], where=self.url) from error

    def close(self) -> None:
        """Hang up."""
        self.stack.close()


def pictures_of(observation: Observation, cameras: Mapping[str, str]) -> dict[str, Any]:
    """The dialect's key -> the picture (H, W, 3), or several (T, H, W, 3). Raises ConfigError for an absent camera."""
    for camera in cameras:
        if camera not in observation.images:
            has = ", ".join(observation.images)
            raise ConfigError(f"the suite has no camera {camera!r}", where=f"its cameras: {has}", do="mend cameras=")
    shown = {key: np.ascontiguousarray(observation.images[camera]) for camera, key in cameras.items()}
    return {key: frames[0] if len(frames) == 1 else frames for key, frames in shown.items()}


def state_of(observation: Observation) -> Float32 | None:
    """What the robot knows of itself: (P,), or (T, P) beside several pictures; None where nothing is known."""
    proprio = observation.proprio
    return proprio[0] if proprio is not None and len(proprio) == 1 else proprio


def chunk_of(value: Any, where: str) -> Float32:
    """(H, A) float32 of an answer (A,) or (H, A). Raises RemoteFailed for what is no action."""
    array = np.asarray(value) if isinstance(value, np.ndarray | list) else np.zeros(0)
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or not array.size:
        raise RemoteFailed(f"the answer is no action: {value!r}"[:300], where=where)
    return np.atleast_2d(array.astype(np.float32))
