"""OpenVLA's REST, asked."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, ClassVar

from vlakit.schema import Float32, Observation
from vlakit.serving.arrays import from_json, to_json
from vlakit.serving.clients.base import RemoteFailed, chunk_of, pictures_of, state_of


class OpenVLAClient:
    """OpenVLA's REST; a dataset of the observation goes as unnorm_key where the server knows it."""

    cameras: ClassVar[dict[str, str]] = {"primary": "image"}

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
            payload["state"] = state_of(observation)
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
