"""starVLA's dialect, asked: one example at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from vlakit.schema import Float32, Observation
from vlakit.serving.clients.base import RemoteFailed, Socket, chunk_of, pictures_of, state_of


class StarVlaClient:
    """Pictures go in the order of their keys: "0" is the first."""

    cameras: ClassVar[dict[str, str]] = {"primary": "0"}

    def __init__(self, url: str, cameras: Mapping[str, str], token: str | None, timeout_s: float) -> None:
        self.sent, self.socket = cameras, Socket(url, token, timeout_s)
        said = self.socket.hear()
        self.metadata: Mapping[str, Any] = said if isinstance(said, dict) else {}
        self.info: Mapping[str, Any] = self.metadata.get("vlakit", {})

    def begin(self) -> None:
        """Only vlakit's server has a word for this."""
        if "reset" in self.info:
            self.socket.exchange({"type": self.info["reset"]}, "bytes")

    def ask(self, observation: Observation) -> Float32:
        """See Client."""
        shown = pictures_of(observation, self.sent)
        example: dict[str, Any] = {"image": [shown[key] for key in sorted(shown)], "lang": observation.instruction}
        if observation.proprio is not None:
            example["state"] = state_of(observation)
        known = self.metadata.get("available_unnorm_keys") or []
        key = observation.dataset if observation.dataset in known else self.metadata.get("default_unnorm_key")
        said = self.socket.exchange({"examples": [example], "unnorm_key": key}, "bytes")
        answer: Mapping[str, Any] = said if isinstance(said, dict) else {}
        if answer.get("ok") is not True:
            raise RemoteFailed(f"the server refuses: {answer.get('error', said)}"[:300], where=self.socket.url)
        actions: Any = (answer.get("data") or {}).get("actions")
        return chunk_of(actions[0] if np.ndim(actions) == 3 else actions, self.socket.url)

    def close(self) -> None:
        """See Client."""
        self.socket.close()
