"""The other side of a dialect: connections on which vlakit itself asks a server, anybody's."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from vlakit.errors import VlakitError
from vlakit.registry import Registry
from vlakit.schema import Float32, Observation
from vlakit.serving.arrays import from_json, pack, to_json, unpack


class RemoteFailed(VlakitError):
    """A server that cannot be reached, refuses, or answers with what is no action."""


class Client(Protocol):
    """One connection. info: what the server says of itself, {} where its dialect has no words for that."""

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


class _Socket:
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


class OpenPiClient:
    """openpi's dialect. cameras: camera of the suite -> key."""

    cameras = {"primary": "observation/image", "wrist": "observation/wrist_image"}  # noqa: RUF012

    def __init__(self, url: str, cameras: Mapping[str, str], token: str | None, timeout_s: float) -> None:
        self.cameras_sent, self.socket = cameras, _Socket(url, token, timeout_s)
        said = self.socket.hear()
        metadata: Mapping[str, Any] = said if isinstance(said, dict) else {}
        self.reset_key = metadata.get("reset") if "vlakit" in metadata else None
        self.info: Mapping[str, Any] = metadata.get("vlakit", {})

    def begin(self) -> None:
        """Only vlakit's server has a word for this."""
        if self.reset_key is not None:
            self.socket.exchange({self.reset_key: True}, "bytes")

    def ask(self, observation: Observation) -> Float32:
        """See Client."""
        message: dict[str, Any] = pictures_of(observation, self.cameras_sent) | {"prompt": observation.instruction}
        if observation.proprio is not None:
            message["observation/state"] = observation.proprio[-1]
        said = self.socket.exchange(message, "bytes")
        return chunk_of(said.get("actions") if isinstance(said, dict) else said, self.socket.url)

    def close(self) -> None:
        """See Client."""
        self.socket.close()


class OpenVLAClient:
    """OpenVLA's REST; a dataset of the observation goes as unnorm_key where the server knows it."""

    cameras = {"primary": "image", "wrist": "wrist_image"}  # noqa: RUF012

    def __init__(self, url: str, cameras: Mapping[str, str], token: str | None, timeout_s: float) -> None:
        self.url, self.cameras_sent, self.timeout_s = url.rstrip("/").removesuffix("/act"), cameras, timeout_s
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.info: Mapping[str, Any] = self._info()

    def begin(self) -> None:
        """Only vlakit's server has a word for this."""
        if self.info:
            self._post("/reset", {})

    def ask(self, observation: Observation) -> Float32:
        """See Client."""
        payload: dict[str, Any] = pictures_of(observation, self.cameras_sent)
        payload["instruction"] = observation.instruction
        if observation.dataset in self.info.get("datasets", ()):
            payload["unnorm_key"] = observation.dataset
        if observation.proprio is not None:
            payload["state"] = observation.proprio[-1]
        return chunk_of(self._post("/act", payload), self.url)

    def close(self) -> None:
        """Nothing is kept open."""

    def _post(self, path: str, payload: Any) -> Any:
        headers = {**self.headers, "X-Client-Id": f"vlakit-{id(self)}"}
        request = urllib.request.Request(self.url + path, to_json(payload).encode(), headers)
        try:
            with self.opener.open(request, timeout=self.timeout_s) as reply:
                return from_json(reply.read())
        except urllib.error.HTTPError as error:
            reason = error.read(500).decode(errors="replace")
            raise RemoteFailed(f"the server refuses: {error.code} {reason}"[:300], where=self.url) from error
        except (OSError, ValueError) as error:
            raise RemoteFailed(
                f"no answer: {error}"[:300], where=self.url, do="start the server, check url="
            ) from error

    def _info(self) -> Mapping[str, Any]:
        """What a server of vlakit says of itself; nobody else has to."""
        try:
            with self.opener.open(
                urllib.request.Request(f"{self.url}/info", headers=self.headers), timeout=10
            ) as reply:
                said = json.loads(reply.read())
        except urllib.error.HTTPError:
            return {}
        except (OSError, ValueError) as error:
            raise RemoteFailed(f"cannot connect: {error}"[:300], where=self.url, do="start the server") from error
        return said if isinstance(said, dict) and str(said.get("server", "")).startswith("vlakit") else {}


CLIENTS: Registry[Client] = Registry("dialect of policy=remote")
CLIENTS.register("openpi")(OpenPiClient)
CLIENTS.register("openvla")(OpenVLAClient)


def pictures_of(observation: Observation, cameras: Mapping[str, str]) -> dict[str, Any]:
    """The dialect's key -> the latest picture (H, W, 3). Raises RemoteFailed for a camera that the suite lacks."""
    for camera in cameras:
        if camera not in observation.images:
            has = ", ".join(observation.images)
            raise RemoteFailed(f"the suite has no camera {camera!r}", where=f"its cameras: {has}", do="mend cameras=")
    return {key: np.ascontiguousarray(observation.images[camera][-1]) for camera, key in cameras.items()}


def chunk_of(value: Any, where: str) -> Float32:
    """(H, A) float32 of an answer (A,) or (H, A). Raises RemoteFailed for what is no action."""
    array = np.asarray(value) if isinstance(value, np.ndarray | list) else np.zeros(0)
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or not array.size:
        raise RemoteFailed(f"the answer is no action: {value!r}"[:300], where=where)
    return np.atleast_2d(array.astype(np.float32))
