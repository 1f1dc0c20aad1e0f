"""Questions that have no answer, made from recorded ones: wrong by construction, so that none may get an action."""

from __future__ import annotations

import copy
import json
import random
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import zmq
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TALKS = Path(__file__).parents[3] / "tests" / "fixtures" / "serving"
DEEP = 100_000  # levels of brackets
Path_ = tuple[Any, ...]
WORDS = ("words", [None, 5, 1.5, True, [], {}, "", "   ", "w" * 5000])
PICTURE = ("picture", [None, 5, "picture", [], {}, [[1, 2], [3, 4]], True])
PICTURES = ("pictures", [None, 5, "picture", [], {}])
PART = ("part", [None, 5, "x", [], True])
RECORDED: dict[
    str, tuple[str, dict[Path_, tuple[str, list[Any]]]]
] = {  # dialect -> (file, what must be there and right)
    "openvla": ("openvla/000_client.bin", {("image",): PICTURE, ("instruction",): WORDS}),
    "openpi": ("openpi/002_client.bin", {("observation/image",): PICTURE, ("prompt",): WORDS}),
    "starvla": (
        "starvla/001_client.bin",
        {
            ("examples",): PART,
            ("examples", 0): PART,
            ("examples", 0, "image", 0): PICTURE,
            ("examples", 0, "lang"): WORDS,
        },
    ),
    "vla_eval": (
        "vla_eval/007_client.bin",
        {
            ("type",): ("type", [None, 5, "dance", [], {}]),
            ("seq",): ("seq", [None, "x", [], 1.5, True]),
            ("payload",): PART,
            ("payload", "images"): PART,
            ("payload", "images", "agentview"): PICTURE,
            ("payload", "task_description"): WORDS,
        },
    ),
    **{
        f"gr00t/{generation}": (
            f"gr00t/{generation}/006_client.bin",
            {
                ("data",): PART,
                ("data", "observation", "video"): PART,
                ("data", "observation", "language"): PART,
                ("data", "observation", "video", "exterior"): PICTURE,
                ("data", "observation", "language", "annotation.human.task_description"): WORDS,
            },
        )
        for generation in ("n1.6", "n1.7")
    },
}
CAMERAS = {"gr00t": {"primary": "exterior"}}  # where the recorded client has keys of its own
DTYPES = ["|O", "<M8[s]", "<f4", "<f8", "V8", "<U4", "<c16", "[('a', '<i4')]", "", "|u3", None, 7, "i4,(9999999)f8"]
SHAPES = [
    [-1, 3],
    [2**62, 2**62, 3],
    [1.5, 2],
    "64",
    None,
    [],
    [64, 64, 3, 1, 1, 1, 1, 1, 1],
    [0, 0, 3],
    [64, 64, 4],
    {},
]


def question(dialect: str, dataset: str | None = None) -> bytes:
    """The recorded question itself, without HTTP's head; of a dataset that the server knows, where it says one."""
    data = (TALKS / RECORDED[dialect][0]).read_bytes()
    if dialect == "starvla" and dataset is not None:
        return msgpack.packb({**msgpack.unpackb(data, raw=False), "unnorm_key": dataset})
    return data.partition(b"\r\n\r\n")[2] if dialect == "openvla" else data


def mutants(dialect: str, dataset: str | None = None, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(what is wrong, the bytes), without end."""
    rng, whole = random.Random(seed), question(dialect, dataset)
    text = dialect == "openvla"
    tree = json.loads(whole) if text else msgpack.unpackb(whole, raw=False)
    ways = [_cut, _longer, _deep, _noise, _dropped, _replaced, _replaced, _bad_array, _bad_array]
    while True:
        way = rng.choice(ways)
        if way in (_cut, _longer, _deep, _noise):
            yield way.__name__[1:], way(rng, whole, text)
            continue
        changed = copy.deepcopy(tree)
        what = way(rng, changed, RECORDED[dialect][1])
        yield what, json.dumps(changed).encode() if text else msgpack.packb(changed)


def _cut(rng: random.Random, whole: bytes, text: bool) -> bytes:
    return whole[: rng.randrange(len(whole) - 1)]


def _longer(rng: random.Random, whole: bytes, text: bool) -> bytes:
    return whole + (b"}" if text else b"\x80") * rng.randrange(1, 50)


def _deep(rng: random.Random, whole: bytes, text: bool) -> bytes:
    return (rng.choice([b"[", b'{"a":']) if text else rng.choice([b"\x91", b"\x81\xa1a"])) * DEEP


def _noise(rng: random.Random, whole: bytes, text: bool) -> bytes:
    return b"\xc1" + rng.randbytes(rng.randrange(2000))  # 0xc1 begins neither msgpack nor UTF-8


def _dropped(rng: random.Random, tree: Any, parts: dict[Path_, Any]) -> str:
    path = rng.choice(sorted((path for path in parts if isinstance(path[-1], str)), key=str))
    del _at(tree, path[:-1])[path[-1]]
    return f"without {parts[path][0]}"


def _replaced(rng: random.Random, tree: Any, parts: dict[Path_, Any]) -> str:
    path = rng.choice(sorted(parts, key=str))
    kind, values = parts[path]
    _at(tree, path[:-1])[path[-1]] = rng.choice(values)
    return f"another {kind}"


def _bad_array(rng: random.Random, tree: Any, parts: dict[Path_, Any]) -> str:
    """The picture's array with one of its own fields wrong."""
    path = rng.choice([path for path in parts if parts[path] is PICTURE])
    array = _at(tree, path)
    fields = {str(key.decode() if isinstance(key, bytes) else key): key for key in array}
    names = [name for name in ("dtype", "type", "shape", "data", "__numpy__", "as_npy") if name in fields]
    key = fields[rng.choice(names)]
    name = key.decode() if isinstance(key, bytes) else key
    if name in ("dtype", "type"):
        array[key] = rng.choice(DTYPES)
    elif name == "shape":
        array[key] = rng.choice(SHAPES)
    elif name == "as_npy":
        array[key] = rng.choice([array[key][:-5], array[key].replace(b"'|u1'", b"'|O' "), b"\x93NUMPY", b"", 5, None])
    else:
        array[key] = rng.choice([array[key][: len(array[key]) // 2], array[key] + array[key][:8], None, 5, [1]])
    return f"array with another {name}"


def _at(tree: Any, path: Sequence[Any]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


class Visitor:
    """Asks one server of a dialect; a connection that it closes is opened anew."""

    def __init__(self, dialect: str, port: int) -> None:
        self.dialect, self.port = dialect.partition("/")[0], port
        self.context = zmq.Context() if self.dialect == "gr00t" else None
        self.talk: Any = None

    def ask(self, data: bytes) -> tuple[bool, bytes]:
        """Whether an action came back, and what came back."""
        if self.dialect == "openvla":
            return self._post(data)
        if self.context is not None:
            return self._request(self.context, data)
        try:
            if self.talk is None:
                self._connect()
            self.talk.send(data)
            said = self.talk.recv(timeout=60)
        except ConnectionClosed as error:
            self.talk = None
            return False, str(error).encode()
        if isinstance(said, str):  # openpi: the connection ends with it
            self.close()
            return False, said.encode()
        return self._is_action(said), said

    def _connect(self) -> None:
        address = f"ws://127.0.0.1:{self.port}"
        self.stack = connect(address, compression=None, max_size=None, ping_interval=None, proxy=None)
        self.talk = self.stack.__enter__()
        if self.dialect != "vla_eval":
            self.talk.recv(timeout=60)

    def _is_action(self, said: bytes) -> bool:
        value = msgpack.unpackb(said, raw=False)
        return {"starvla": value.get("ok"), "vla_eval": value.get("type") == "action"}.get(
            self.dialect, "actions" in value
        )

    def _post(self, data: bytes) -> tuple[bool, bytes]:
        url, headers = f"http://127.0.0.1:{self.port}/act", {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as reply:
                return True, reply.read()
        except urllib.error.HTTPError as error:
            return error.code >= 500, error.read()  # a 5xx says that something broke: as bad as an action

    def _request(self, context: Any, data: bytes) -> tuple[bool, bytes]:
        if self.talk is None:
            self.talk = context.socket(zmq.REQ)
            self.talk.setsockopt(zmq.RCVTIMEO, 60_000)
            self.talk.connect(f"tcp://127.0.0.1:{self.port}")
        self.talk.send(data)
        said = self.talk.recv()
        value = msgpack.unpackb(said, raw=False)
        return not (isinstance(value, dict) and "error" in value), said

    def close(self) -> None:
        """Hang up."""
        if self.dialect == "gr00t" and self.talk is not None:
            self.talk.close(0)
        elif self.talk is not None:
            self.stack.__exit__(None, None, None)
        self.talk = None
