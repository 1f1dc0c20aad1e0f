"""openpi's WebSocket: metadata first, then observations with free keys and a `prompt`; chunks (T, A) back."""

from __future__ import annotations

from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from vlakit.schema import Float32
from vlakit.serving.arrays import pack, unpack
from vlakit.serving.questions import Refused, pictures_in
from vlakit.serving.sessions import Session
from vlakit.serving.web import OverWebSocket, Talk

# Where openpi's robots put their state: LIBERO's, ALOHA's, DROID's in two parts.
STATES = (("observation/state",), ("state",), ("observation/joint_position", "observation/gripper_position"))
RESET = "vlakit/reset"  # a key of vlakit's own client; openpi's has no word for an episode's begin


class OpenPi(OverWebSocket):
    """See the module. An error is a text message, upon which the client raises, and the connection closes with 1011."""

    name: ClassVar[str] = "openpi"
    port: ClassVar[int] = 8000
    cameras: ClassVar[dict[str, str]] = {"primary": "observation/image", "wrist": "observation/wrist_image"}
    says_dataset: ClassVar[bool] = False
    state: ClassVar[str] = "observation/state"

    async def speak(self, talk: Talk, session: Session) -> None:
        """See OverWebSocket."""
        own = {"vlakit": self.service.info(), "reset": RESET}
        await talk.say(pack({"action_horizon": self.service.horizon, "cameras": self.asked.cameras, **own}, "bytes"))
        before: float | None = None
        while True:
            data = await talk.hear()
            began = perf_counter()
            message, codec = unpack(data)
            if isinstance(message, dict) and message.keys() == {RESET}:
                session.reset()
                await talk.say(pack({}, "bytes"))
                continue
            actions = await self._answer(talk, session, message)
            timing = {"infer_ms": (perf_counter() - began) * 1000}
            timing |= {} if before is None else {"prev_total_ms": before}
            await talk.say(pack({"actions": actions, "server_timing": timing}, codec or "bytes"))
            before = (perf_counter() - began) * 1000

    async def _answer(self, talk: Talk, session: Session, message: Any) -> Float32:
        if not isinstance(message, dict):
            raise Refused("the message is no dict", where="observation", do="send keys such as observation/image")
        message = {**message, **_named(message.get("images"))}
        state = _state(message) if self.asked.proprio else None
        question = self.asked.question(pictures_in(message, self.asked), message.get("prompt"), proprio=state)
        return await self.service.ask(self.name, talk.name, session, question)


def _named(images: Any) -> dict[str, Any]:
    """ALOHA's clients send pictures in a dict of their own: "images/cam_high" is the one called cam_high in it."""
    return {f"images/{name}": picture for name, picture in images.items()} if isinstance(images, dict) else {}


def _state(message: dict[Any, Any]) -> Any:
    """The robot's numbers, under the keys of the first robot whose all are there; None where nobody's are."""
    for keys in STATES:
        parts = [message[key] for key in keys if message.get(key) is not None]
        if len(parts) == len(keys):
            try:
                return parts[0] if len(parts) == 1 else np.concatenate([np.atleast_2d(one) for one in parts], axis=-1)
            except ValueError as error:
                raise Refused(
                    f"a state that is none: {error}"[:200], where=", ".join(keys), do="send arrays"
                ) from error
    return None
