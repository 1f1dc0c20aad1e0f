"""GR00T's service: ZMQ, msgpack, three encodings of arrays; a question is answered in the encoding it came in.

N1.5 sends flat keys `video.NAME`, `annotation....`; N1.6 and N1.7 send observations with a batch axis.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, ClassVar

import numpy as np
import zmq
import zmq.asyncio

from vlakit.schema import Float32
from vlakit.serving.arrays import pack, unpack
from vlakit.serving.questions import Question, Refused
from vlakit.serving.service import Service

log = logging.getLogger(__name__)
ACTION, STATE = "action", "state"  # names of what has but one part here
LANGUAGE = {"n1.5": "annotation.human.action.task_description"}  # since then: annotation.human.task_description
ARRAYS = {"n1.5": "npy", "n1.6": "npy", "n1.7": "msgpack_numpy"}
REFUSED = ("kill", "stop", "shutdown")


class Gr00t:
    """See the module. Errors are `{"error": text}`, the socket lives on. No client can end the server."""

    name: ClassVar[str] = "gr00t"
    port: ClassVar[int] = 5555
    cameras: ClassVar[dict[str, str]] = {}  # clients ask for the names
    says_dataset: ClassVar[bool] = False
    web: ClassVar[bool] = False

    def __init__(self, service: Service, cameras: dict[str, str]) -> None:
        self.service, self.asked = service, service.asked(cameras, STATE)
        self.generation = "n1.7"  # of clients that have not sent an array yet
        self.context = zmq.asyncio.Context()
        self._asking: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> None:
        """Take the port."""
        self.router = router = self.context.socket(zmq.ROUTER)
        router.setsockopt(zmq.MAXMSGSIZE, self.service.guard.bytes)
        router.setsockopt(zmq.LINGER, 1000)
        router.setsockopt(zmq.IPV6, int(":" in host))
        router.bind(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")

    async def serve(self) -> None:
        """Answer until cancelled."""
        try:
            while True:
                self._hear(self.router, await self.router.recv_multipart())
        finally:
            self.router.close()
            self.context.term()

    def _hear(self, router: zmq.asyncio.Socket, parts: list[bytes]) -> None:
        """Start answering one message; one of no REQ client has nowhere to be answered."""
        if len(parts) != 3 or parts[1]:
            return
        task = asyncio.create_task(self._reply(router, parts[0], parts[2]))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _reply(self, router: zmq.asyncio.Socket, client: bytes, data: bytes) -> None:
        codec = ARRAYS[self.generation]
        try:
            message, met = unpack(data)
            codec = met if met is not None and met in ARRAYS.values() else codec
            answer = await self._answer(client.hex(), message)
        except Exception as error:
            answer = {"error": self.service.refuse(self.name, error)}
        await router.send_multipart([client, b"", pack(answer, codec)])

    async def _answer(self, client: str, message: Any) -> Any:
        if not isinstance(message, dict):
            raise Refused("the message is no dict", where="message", do="send endpoint and data")
        self.service.check_token(message.get("api_token"))
        endpoint = message.get("endpoint", "get_action")
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return self.modality_config()
        if endpoint == "reset":
            self.service.reset(client)
            return {}
        if endpoint in REFUSED:
            raise Refused("no client can end this server", where="endpoint", do="end it where it was started")
        if endpoint != "get_action":
            raise Refused(f"Unknown endpoint: {endpoint!r}"[:200], where="endpoint", do="get_action, reset or ping")
        return await self._act(client, message.get("data"))

    async def _act(self, client: str, data: Any) -> Any:
        if not isinstance(data, dict):
            raise Refused("no data", where="data", do="send an observation")
        if "observation" not in data:  # N1.5
            actions = await self._ask(client, [self._flat(data)])
            return {f"{ACTION}.{ACTION}": actions[0].astype(np.float64)}
        actions = await self._ask(client, self._batch(data["observation"]))
        return [{ACTION: actions}, {}]

    async def _ask(self, client: str, questions: list[Question]) -> Float32:
        """(B, T, A)."""

        async def one(number: int, question: Question) -> Float32:
            with self.service.named(f"{client}/{number}" if number else client) as session:
                return await self.service.ask(self.name, client, session, question, counts=not number)

        return np.stack(await asyncio.gather(*(one(number, question) for number, question in enumerate(questions))))

    def _flat(self, data: dict[Any, Any]) -> Question:
        """N1.5: `video.NAME` (T, H, W, 3), `state.NAME` (T, P), `annotation....` [words]."""
        keys = [key for key in data if isinstance(key, str)]
        videos = {key.removeprefix("video."): data[key] for key in keys if key.startswith("video.")}
        words = next((data[key] for key in keys if key.startswith("annotation.")), None)
        states = [data[key] for key in keys if key.startswith("state.")]
        for name, video in videos.items():
            _check_axes(video, name, 4)
        return self.asked.question(videos, _words(words), proprio=_state([_row(one) for one in states]))

    def _batch(self, observation: Any) -> list[Question]:
        """N1.6 and later: video NAME (B, T, H, W, 3), state NAME (B, T, P), language KEY [[words]] a row."""
        parts = (
            [observation.get(key) for key in ("video", "state", "language")] if isinstance(observation, dict) else []
        )
        video, state, language = [one if isinstance(one, dict) else {} for one in [*parts, None, None, None][:3]]
        if not video or not language:
            raise Refused("no video or no language", where="observation", do="send both, and state where it is taken")
        for name, one in video.items():
            _check_axes(one, str(name), 5)
        words = next(iter(language.values()))
        rows = len(next(iter(video.values())))
        counts = {rows, *(len(one) for one in video.values()), len(words) if isinstance(words, list) else -1}
        if len(counts) != 1 or not 1 <= rows <= self.service.batcher.limits.queue:
            raise Refused(f"rows of {sorted(counts)}", where="observation", do="one row a question in every part")
        return [
            self.asked.question(
                {str(name): one[row] for name, one in video.items()},
                _words(words[row]),
                proprio=_state([_row(one, row) for one in state.values()]),
            )
            for row in range(rows)
        ]

    def modality_config(self) -> dict[str, Any]:
        """Names and steps of what is asked and answered. N1.6 and N1.7 tell it by another mark, so both are on it."""
        language = LANGUAGE.get(self.generation, "annotation.human.task_description")
        steps, seen = list(range(self.service.horizon)), list(range(1 - self.service.facts.window, 1))
        parts = {
            "video": (seen, list(self.asked.cameras.values())),
            "state": (
                seen if self.service.facts.proprio else [0],
                [STATE],
            ),  # its clients expect one; a policy that takes none leaves it out
            "action": (steps, [ACTION]),
            "language": ([0], [language]),
        }
        return {name: self._config(deltas, keys) for name, (deltas, keys) in parts.items()}

    def _config(self, deltas: list[int], keys: list[str]) -> dict[str, Any]:
        content = {"delta_indices": deltas, "modality_keys": keys}
        content |= dict.fromkeys(("sin_cos_embedding_keys", "mean_std_embedding_keys", "action_configs"))
        if self.generation == "n1.5":
            return {"__ModalityConfig_class__": True, "as_json": json.dumps(content)}
        return {"__ModalityConfig_class__": True, "__ModalityConfig__": True, "as_json": content}


def _check_axes(video: Any, name: str, axes: int) -> None:
    if not isinstance(video, np.ndarray) or video.ndim != axes:
        shape = getattr(video, "shape", type(video).__name__)
        raise Refused(f"a video {shape} where {axes} axes are taken", where=name, do="(batch,) time, height, width, 3")


def _words(value: Any) -> Any:
    """The words of [words] or [[words]]."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return value


def _row(state: Any, row: int | None = None) -> Any:
    """(T, P) of a state (T, P) or (P,), or of one row of (B, T, P)."""
    array = np.asarray(state) if isinstance(state, np.ndarray | list) else np.zeros(0)
    if row is not None:
        array = array[row] if array.ndim == 3 and row < len(array) else np.zeros(0)
    return array.reshape(-1, array.shape[-1]) if array.ndim and array.size else np.zeros((1, 0))


def _state(parts: list[Any]) -> Any:
    """(T, P) of all parts side by side; where they differ in length, of their newest moments."""
    shortest = min((len(part) for part in parts), default=0)
    return np.concatenate([part[-shortest:] for part in parts], axis=-1) if parts else None
