"""vla-eval's WebSocket: typed messages with a number; a gripper of +1 closed, -1 open, as action_spec declares."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.websockets import WebSocketDisconnect

from vlakit import __version__
from vlakit.schema import Float32
from vlakit.serving.arrays import outline, pack, unpack
from vlakit.serving.questions import Refused
from vlakit.serving.sessions import Session
from vlakit.serving.web import OverWebSocket, Talk

PROTOCOL = 1
ARM = 7  # numbers of an action of one arm and a gripper, whose convention is known


class VlaEval(OverWebSocket):
    """See the module. An error is a message of its own with the question's number; the connection lives on."""

    name: ClassVar[str] = "vla_eval"
    port: ClassVar[int] = 8000
    cameras: ClassVar[dict[str, str]] = {"primary": "agentview", "wrist": "wrist"}
    says_dataset: ClassVar[bool] = False

    def routes(self) -> list[BaseRoute]:
        """The WebSocket at /, and /config, through which the original lets anybody change it."""
        return [*super().routes(), Route("/config", self.config, methods=["GET"])]

    async def config(self, request: Request) -> Response:
        """Refused."""
        return JSONResponse({"error": "this server is not configured from outside; see /info"}, 403)

    async def speak(self, talk: Talk, session: Session) -> None:
        """See OverWebSocket."""
        while True:
            data = await talk.hear()
            try:
                message = _message(data)
                said = await self._said(talk, session, message)
            except WebSocketDisconnect:
                raise
            except Exception as error:
                message = outline(data)  # an array that is refused leaves nothing else
                said = "error", {"error": f"observation_failed: {self.service.refuse(self.name, error)}"}
            if said is not None:
                await talk.say(_packed(*said, message.get("seq")))

    async def _said(self, talk: Talk, session: Session, message: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """Type and payload of what is said to a message; None where nothing is."""
        match message["type"]:
            case "hello":
                return "hello", self.hello
            case "episode_start" | "episode_end":
                session.reset()
                return None
            case "observation":
                return "action", {"actions": await self._act(talk, session, message["payload"])}
            case kind:
                raise Refused(
                    f"unknown message type {kind!r}"[:200], where="type", do="observation, episode_start, ..."
                )

    async def _act(self, talk: Talk, session: Session, payload: dict[str, Any]) -> Float32:
        """(A,) where one action is answered, else (T, A)."""
        images = payload.get("images")
        if not isinstance(images, dict):
            raise Refused("no images", where="images", do="send camera -> picture")
        words = payload.get("task_description")
        question = self.asked.question(images, words, proprio=payload.get("state"))
        actions = closing_positive(await self.service.ask(self.name, talk.name, session, question))
        return actions[0] if len(actions) == 1 else actions

    @property
    def hello(self) -> dict[str, Any]:
        """What the server is, and what its actions mean."""
        about = {"harness_version": __version__, "protocol_version": PROTOCOL, "capabilities": {}}
        seen = {
            "image": {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"},
            "language": {"name": "language", "dims": 0, "format": "language"},
        }
        specs = {"action_spec": action_spec(self.service.facts.shape[1]), "observation_spec": seen}
        return {**about, "model_server": f"vlakit {self.service.facts.name}", **specs, "vlakit": self.service.info()}


def action_spec(size: int) -> dict[str, dict[str, Any]]:
    """The meaning of an action's numbers; those of another robot than one arm and a gripper go out as they are."""
    if size != ARM:
        return {"action": {"name": "action", "dims": size, "format": "raw"}}
    gripper = {"name": "gripper", "dims": 1, "format": "binary_close_positive", "range": [-1, 1]}
    return {
        "position": {"name": "position", "dims": 3, "format": "delta_xyz"},
        "rotation": {"name": "rotation", "dims": 3, "format": "axis_angle"},
        "gripper": gripper,
    }


def closing_positive(actions: Float32) -> Float32:
    """Actions (T, 7) with gripper 0 closed .. 1 open as +1 closed or -1 open; others (T, A) as they are."""
    if actions.shape[-1] != ARM:
        return actions
    gripper = np.where(actions[:, 6:] > 0.5, -1.0, 1.0).astype(np.float32)
    return np.concatenate([actions[:, :6], gripper], axis=-1)


def _message(data: bytes) -> dict[str, Any]:
    """A message with its four fields. Raises Refused."""
    message, _ = unpack(data)
    if not isinstance(message, dict):
        raise Refused("the message is no dict", where="message", do="send type, payload, seq, timestamp")
    seq, payload = message.get("seq"), message.get("payload")
    if not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(payload, dict) or "type" not in message:
        raise Refused("no whole message", where="message", do="send type, payload, seq, timestamp")
    return message


def _packed(kind: str, payload: dict[str, Any], seq: Any) -> bytes:
    seq = seq if isinstance(seq, int) and not isinstance(seq, bool) else 0
    return pack({"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}, "text")
