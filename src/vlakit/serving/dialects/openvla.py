"""OpenVLA's REST: POST /act with a picture and an instruction, one action back; JSON with arrays of json-numpy."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from vlakit.serving.arrays import from_json, to_json
from vlakit.serving.questions import Busy, Refused, Unauthorized, pictures_in
from vlakit.serving.service import Service
from vlakit.serving.web import body_of, check_visitor

STATUS = {Refused: 400, Unauthorized: 401, Busy: 429}  # anything else: 500
CLIENT = "x-client-id"  # of clients whose sessions shall be told apart though they share an address


class OpenVLA:
    """See the module. An error is a status of 4xx or 5xx with a reason: `deploy.py` says 200 and "error"."""

    name: ClassVar[str] = "openvla"
    port: ClassVar[int] = 8000
    cameras: ClassVar[dict[str, str]] = {"primary": "image", "wrist": "wrist_image"}
    says_dataset: ClassVar[bool] = True
    web: ClassVar[bool] = True

    def __init__(self, service: Service, cameras: dict[str, str]) -> None:
        self.service, self.asked = service, service.asked(cameras, "state")

    def routes(self) -> list[BaseRoute]:
        """POST /act, and POST /reset for a server that keeps a queue of actions."""
        return [Route("/act", self.act, methods=["POST"]), Route("/reset", self.reset, methods=["POST"])]

    async def act(self, request: Request) -> Response:
        """(A,) float64, or why not."""
        try:
            check_visitor(self.service, request.headers)
            limits, guard = self.service.batcher.limits, self.service.guard
            payload = from_json(await body_of(request, guard.bytes, limits.timeout_s))
            twice = isinstance(payload, dict) and "encoded" in payload
            action = await self._answer(request, _inner(payload) if twice else payload)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            return self._error(error)
        text = to_json(action)
        return JSONResponse(text) if twice else Response(text, media_type="application/json")

    async def _answer(self, request: Request, payload: Any) -> np.ndarray:
        if not isinstance(payload, dict):
            raise Refused("the body is no object", where="body", do="send image and instruction")
        pictures = pictures_in(payload, self.asked)
        words = payload.get("instruction")
        question = self.asked.question(
            pictures,
            words.lower() if isinstance(words, str) else words,
            unnorm_key=payload.get("unnorm_key"),
            proprio=payload.get("state"),
        )
        client = _client(request)
        with self.service.named(client) as session:
            answer = await self.service.ask(self.name, client, session, question)
        return answer[0].astype(np.float64)

    async def reset(self, request: Request) -> Response:
        """Begin an episode."""
        try:
            check_visitor(self.service, request.headers)
            self.service.reset(_client(request))
        except Exception as error:
            return self._error(error)
        return JSONResponse({"status": "ok"})

    def _error(self, error: Exception) -> Response:
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
        headers = {"retry-after": "1"} if status == 429 else None
        return JSONResponse({"error": self.service.refuse(self.name, error)}, status, headers)


def _client(request: Request) -> str:
    return request.headers.get(CLIENT, request.client.host if request.client else "?")[:100]


def _inner(payload: dict[str, Any]) -> Any:
    """The question inside {"encoded": "<json>"}, of clients that cannot patch their json."""
    if set(payload) != {"encoded"} or not isinstance(payload["encoded"], str):
        raise Refused("`encoded` and more", where="body", do='send {"encoded": "<the whole question as JSON>"} alone')
    return from_json(payload["encoded"])
