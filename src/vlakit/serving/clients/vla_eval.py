"""vla-eval's dialect, asked: the gripper is read as the server's action_spec declares it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, ClassVar

import numpy as np

from vlakit.schema import Float32, Observation
from vlakit.serving.clients.base import RemoteFailed, Socket, chunk_of, pictures_of, state_of

GRIPPERS: dict[str, Callable[[Any], Any]] = {  # format -> 0 closed .. 1 open
    "binary_close_positive": lambda g: (1 - g) / 2,
    "binary_close_negative": lambda g: (1 + g) / 2,
    "binary_close_01": lambda g: 1 - g,
    "continuous_01": lambda g: g,
    "raw": lambda g: g,
}


class VlaEvalClient:
    """See the module."""

    cameras: ClassVar[dict[str, str]] = {"primary": "agentview"}

    def __init__(self, url: str, cameras: Mapping[str, str], token: str | None, timeout_s: float) -> None:
        """Raises RemoteFailed, also for a gripper of a format that is not known."""
        self.sent, self.socket, self._seq = cameras, Socket(url, token, timeout_s), count(1)
        about = {"harness_version": "0.8.0", "protocol_version": 1, "benchmark": "vlakit"}
        hello = self._exchange("hello", about, "hello")
        self.info: Mapping[str, Any] = hello.get("vlakit", {})
        spec = hello.get("action_spec") or {}
        self.gripper = str((spec.get("gripper") or {}).get("format", "raw"))
        if self.gripper not in GRIPPERS:
            what = f"the server's gripper is {self.gripper!r}"
            raise RemoteFailed(what, where=url, do=f"one of {', '.join(GRIPPERS)}")

    def begin(self) -> None:
        """See Client."""
        self.socket.say(self._message("episode_start", {"task": {"name": "vlakit"}}), "text")

    def ask(self, observation: Observation) -> Float32:
        """See Client."""
        images = pictures_of(observation, self.sent)
        payload: dict[str, Any] = {"images": images, "task_description": observation.instruction}
        if observation.proprio is not None:
            payload["state"] = state_of(observation)
        chunk = chunk_of(self._exchange("observation", payload, "action").get("actions"), self.socket.url)
        gripper = GRIPPERS[self.gripper](chunk[:, -1:]).astype(np.float32)
        return np.concatenate([chunk[:, :-1], gripper], axis=-1)

    def close(self) -> None:
        """See Client."""
        self.socket.close()

    def _exchange(self, kind: str, payload: Mapping[str, Any], answer: str) -> dict[str, Any]:
        said = self.socket.exchange(self._message(kind, payload), "text")
        if not isinstance(said, dict) or said.get("type") != answer or not isinstance(said.get("payload"), dict):
            reason = said.get("payload") if isinstance(said, dict) else said
            raise RemoteFailed(f"the server refuses: {reason}"[:300], where=self.socket.url)
        return said["payload"]

    def _message(self, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": kind, "payload": payload, "seq": next(self._seq), "timestamp": time.time()}
