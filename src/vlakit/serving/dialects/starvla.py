"""starVLA's WebSocket: openpi's arrays, an envelope around each answer, several examples in a question."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import numpy as np
from starlette.websockets import WebSocketDisconnect

from vlakit.schema import Float32
from vlakit.serving.arrays import outline, pack, unpack
from vlakit.serving.questions import Question, Refused
from vlakit.serving.service import Service
from vlakit.serving.sessions import Session
from vlakit.serving.web import OverWebSocket, Talk

ASKS = (None, "infer")  # types of a question; a flat dict has none
RESET = "vlakit/reset"  # a type of vlakit's own client; starVLA's has no word for an episode's begin


class StarVla(OverWebSocket):
    """See the module. Pictures have no names there: a camera's key is its place, "0" the first. Errors are answers."""

    name: ClassVar[str] = "starvla"
    port: ClassVar[int] = 10093
    cameras: ClassVar[dict[str, str]] = {"primary": "0", "wrist": "1"}
    says_dataset: ClassVar[bool] = True

    @property
    def metadata(self) -> dict[str, Any]:
        """The first message, as its clients read it."""
        facts = self.service.facts
        return {
            "env": "starvla_policy_server",
            "ckpt_path": facts.name,
            "action_chunk_size": self.service.horizon,
            "available_unnorm_keys": list(facts.datasets),
            "default_unnorm_key": facts.dataset or (facts.datasets[0] if len(facts.datasets) == 1 else None),
            "training_data_mix": None,
            "training_obs_image_size": list(facts.picture) if facts.picture else None,
            "eval_image_contract": "explicit",
            "action_keys": ["action.all"],
            "state_keys": ["state"] if facts.proprio else [],
            "vlakit": {**self.service.info(), "reset": RESET},
        }

    async def speak(self, talk: Talk, session: Session) -> None:
        """See OverWebSocket."""
        await talk.say(pack(self.metadata, "bytes"))
        while True:
            data = await talk.hear()
            try:
                answer = await self._answer(talk, session, unpack(data)[0])
            except WebSocketDisconnect:
                raise
            except Exception as error:
                message = {"message": self.service.refuse(self.name, error)}
                answer = {"status": "error", "ok": False, **_envelope(outline(data)), "error": message}
            await talk.say(pack(answer, "bytes"))

    async def _answer(self, talk: Talk, session: Session, message: Any) -> dict[str, Any]:
        if not isinstance(message, dict):
            raise Refused("the message is no dict", where="message", do="send examples, or type and payload")
        kind = None if message.get("type") is None else str(message["type"])
        if kind in ("ping", RESET):
            if kind == RESET:
                session.reset()
            return {"status": "ok", "ok": True, **_envelope(message), "type": kind}
        if kind not in ASKS:
            raise Refused(f"Unsupported message type {kind!r}"[:200], where="type", do="infer or ping")
        actions = await self._act(talk, session, message if kind is None else message.get("payload"))
        return {"status": "ok", "ok": True, **_envelope(message), "data": {"actions": actions}}

    async def _act(self, talk: Talk, session: Session, payload: Any) -> Float32:
        """(B, T, A)."""
        examples = payload.get("examples") if isinstance(payload, dict) else None
        if not isinstance(examples, list) or not 1 <= len(examples) <= self.service.batcher.limits.queue:
            raise Refused("no examples", where="examples", do="send a list of them, each with image and lang")
        questions = [self._question(one, payload.get("unnorm_key")) for one in examples]
        return await answers(self.service, talk, session, questions)

    def _question(self, example: Any, unnorm_key: Any) -> Question:
        if not isinstance(example, dict):
            raise Refused("an example is no dict", where="examples", do="send image and lang in each")
        pictures = example.get("image")
        listed = pictures if isinstance(pictures, list) else [pictures] if pictures is not None else []
        shown = {str(place): picture for place, picture in enumerate(listed)}
        return self.asked.question(shown, example.get("lang"), unnorm_key=unnorm_key, proprio=example.get("state"))


def _envelope(message: dict[Any, Any]) -> dict[str, Any]:
    """What an answer repeats of its question."""
    number = message.get("request_id")
    return {
        "type": "inference_result" if message.get("type") in ASKS else "unknown",
        "request_id": number[:200] if isinstance(number, str) else "default",
    }


async def answers(service: Service, talk: Talk, session: Session, questions: list[Question]) -> Float32:
    """(B, T, A) of questions that came together; each but the first has a session beside the connection's."""

    async def beside(number: int, question: Question) -> Float32:
        with service.named(f"{talk.name}/{number}") as other:
            return await service.ask(talk.dialect, talk.name, other, question, counts=False)

    first = service.ask(talk.dialect, talk.name, session, questions[0])
    return np.stack(await asyncio.gather(first, *(beside(n, q) for n, q in enumerate(questions[1:], 1))))
