"""openpi's dialect, asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vlakit.schema import Float32, Observation
from vlakit.serving.clients.base import Socket, chunk_of, pictures_of, state_of


class OpenPiClient:
    """openpi's dialect. cameras: camera of the suite -> key."""

    cameras: ClassVar[dict[str, str]] = {"primary": "observation/image"}

    def __init__(self, url: str, cameras: Mapping[str, str], token: str | None, timeout_s: float) -> None:
        self.cameras_sent, self.socket = cameras, Socket(url, token, timeout_s)
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
            message["observation/state"] = state_of(observation)
        said = self.socket.exchange(message, "bytes")
        return chunk_of(said.get("actions") if isinstance(said, dict) else said, self.socket.url)

    def close(self) -> None:
        """See Client."""
        self.socket.close()
