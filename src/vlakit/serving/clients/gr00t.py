"""GR00T's service, asked: names of cameras, language and actions come from the server, as its own clients take them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any, ClassVar

import numpy as np
import zmq

from vlakit.errors import VlakitError
from vlakit.schema import Float32, Observation
from vlakit.serving.arrays import pack, unpack
from vlakit.serving.clients.base import RemoteFailed, chunk_of, pictures_of

MAIN = "*"  # the server's first camera


class Gr00tClient:
    """Of N1.5 (flat keys), N1.6 and N1.7: the modality config tells which."""

    cameras: ClassVar[dict[str, str]] = {"primary": MAIN}

    def __init__(self, url: str, cameras: Mapping[str, str], token: str | None, timeout_s: float) -> None:
        """Raises RemoteFailed."""
        self.url, self.timeout_ms, self.token = url, int(timeout_s * 1000), token
        self.context = zmq.Context()
        self._connect()
        config = self._call("get_modality_config")
        self.flat = isinstance(config.get("video", {}).get("as_json"), str)
        self.codec = "msgpack_numpy" if "__ModalityConfig__" in config.get("video", {}) else "npy"
        self.keys = {part: _keys(config.get(part, {}), part) for part in ("video", "language", "action")}
        self.states = _keys(config.get("state", {}), "state")
        deltas, self.moments = (_moments(config.get(part, {}), url) for part in ("video", "state"))
        self.info: Mapping[str, Any] = {"window": deltas, "whole": True}
        if not all(self.keys.values()):
            raise RemoteFailed(f"no whole modality config: {self.keys}"[:300], where=url)
        self.sent = {name: self.keys["video"][0] if key == MAIN else key for name, key in cameras.items()}

    def begin(self) -> None:
        """See Client; N1.5's own server has no word for it."""
        with suppress(VlakitError) if self.flat else nullcontext():
            self._call("reset", {"options": None})

    def ask(self, observation: Observation) -> Float32:
        """See Client."""
        shown = pictures_of(observation, self.sent)
        videos = {key: one if one.ndim == 4 else one[None] for key, one in shown.items()}  # (T, H, W, 3)
        language, words = self.keys["language"][0], observation.instruction
        proprio = observation.proprio if len(self.states) == 1 else None  # of several nothing says how wide each is
        states = {} if proprio is None else {self.states[0]: proprio[-self.moments :]}  # (T, P)
        if self.flat:
            asked = {f"video.{k}": v for k, v in videos.items()} | {f"state.{k}": v for k, v in states.items()}
            said = self._call("get_action", {**asked, language: [words]})
            parts = [said.get(f"action.{key}") for key in self.keys["action"]]
        else:
            rows, told = ({key: one[None] for key, one in part.items()} for part in (videos, states))
            seen: dict[str, Any] = {"video": rows, "state": told, "language": {language: [[words]]}}
            said = self._call("get_action", {"observation": seen, "options": None})
            given = said[0] if isinstance(said, list) and said and isinstance(said[0], dict) else {}
            chunks = [given.get(key) for key in self.keys["action"]]
            parts = [one[0] if isinstance(one, np.ndarray) and one.ndim == 3 else None for one in chunks]
        if not all(isinstance(one, np.ndarray) for one in parts):
            raise RemoteFailed(f"the answer lacks one of {self.keys['action']}", where=self.url)
        return np.concatenate([chunk_of(one, self.url) for one in parts], axis=-1)

    def close(self) -> None:
        """See Client."""
        self.socket.close(0)
        self.context.term()

    def _connect(self) -> None:
        self.socket = self.context.socket(zmq.REQ)
        for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
            self.socket.setsockopt(option, self.timeout_ms)
        try:
            self.socket.connect(self.url)
        except zmq.ZMQError as error:
            raise RemoteFailed(f"cannot connect: {error}", where=self.url, do="write url=tcp://HOST:PORT") from error

    def _call(self, endpoint: str, data: Any = None) -> Any:
        request = {"endpoint": endpoint} | ({} if data is None else {"data": data})
        request |= {"api_token": self.token} if self.token else {}
        try:
            self.socket.send(pack(request, getattr(self, "codec", "npy")))
            said = unpack(self.socket.recv())[0]
        except zmq.ZMQError as error:
            raise RemoteFailed(f"no answer: {error}", where=self.url, do="start it, check url=") from error
        if isinstance(said, dict) and "error" in said:
            raise RemoteFailed(f"the server refuses: {said['error']}"[:300], where=self.url)
        return said


def _content(entry: Any) -> Mapping[str, Any]:
    inner = entry.get("as_json", entry) if isinstance(entry, dict) else {}
    inner = json.loads(inner) if isinstance(inner, str) else inner
    return inner if isinstance(inner, dict) else {}


def _moments(entry: Any, url: str) -> int:
    """How many frames, or states, in a row a question holds. Raises RemoteFailed for frames that are apart."""
    deltas = _content(entry).get("delta_indices") or [0]
    if deltas != list(range(1 - len(deltas), 1)):
        raise RemoteFailed(f"the server asks for moments {deltas} of a history"[:200], where=url, do="serve neighbours")
    return len(deltas)


def _keys(entry: Any, part: str) -> list[str]:
    keys = _content(entry).get("modality_keys")
    return [str(key).removeprefix(f"{part}.") for key in keys or []]
