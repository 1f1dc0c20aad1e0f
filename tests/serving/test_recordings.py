"""Bytes of real clients: each decodes to what was recorded, and gets over the wire what its own server answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import zmq
from servers import FACTS, Mean, described, frames, running, service_of
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from vlakit.serving.arrays import from_json, unpack
from vlakit.serving.questions import Refused
from vlakit.serving.subjects import Facts, PolicySubject

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
TALKS = ("openvla", "openpi", "starvla", "vla_eval", "gr00t/n1.5", "gr00t/n1.6", "gr00t/n1.7")
HORIZON = {"openvla": 1, "vla_eval": 1, "openpi": 5}  # of the recorded stand-in; others: 8
ONE_CAMERA = ("openvla", "vla_eval")
GR00T = {"primary": "exterior", "wrist": "gripper"}
SAID = [(talk, frame) for talk in TALKS for frame in frames(talk) if frame["sender"] == "client"]


def body(frame: dict[str, Any]) -> bytes:
    return frame["data"].partition(b"\r\n\r\n")[2] if frame["kind"] == "http" else frame["data"]


def decoded(talk: str, frame: dict[str, Any]) -> Any:
    value = from_json(body(frame)) if talk == "openvla" else unpack(body(frame))[0]
    if talk == "openvla" and "encoded" in value:
        return {}  # as recorded; its inside is held below
    if talk == "vla_eval":
        value = {key: value[key] for key in ("type", "seq", "payload")}
    return described(value)


@pytest.mark.parametrize(("talk", "frame"), SAID, ids=[f"{talk}-{frame['file']}" for talk, frame in SAID])
def test_every_recorded_question_decodes_to_what_was_recorded_of_it(talk: str, frame: dict[str, Any]) -> None:
    if frame["decoded"] is None:
        with pytest.raises(Refused):
            decoded(talk, frame)
    else:
        assert close(decoded(talk, frame), frame["decoded"])


def test_what_is_encoded_twice_is_the_same_question_once_more() -> None:
    plain, twice = frames("openvla")[0], frames("openvla")[4]
    assert described(from_json(from_json(body(twice))["encoded"])) == plain["decoded"]


def close(a: Any, b: Any) -> bool:
    """Equal, numbers to 1e-5: the recorded servers answer in float64, some in float32."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    return bool(abs(a - b) < 1e-5) if isinstance(a, float) and isinstance(b, float) else a == b


@contextmanager
def stand_in(talk: str) -> Iterator[int]:
    """The port of our server with the recorded stand-in's policy behind it."""
    dialect, horizon = talk.partition("/")[0], HORIZON.get(talk, 8)
    cameras = ("primary",) if talk in ONE_CAMERA else ("primary", "wrist")
    facts = Facts("stub", cameras, (horizon, 7), ("bridge_orig",), picture=(8, 8))
    subject = PolicySubject(Mean(horizon, 7, cameras), facts)
    mapped = GR00T if dialect == "gr00t" else None
    with running(lambda: service_of(subject), [dialect], mapped) as ports:
        yield ports[dialect]


def pairs(talk: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Questions with the answers that followed them."""
    talked = frames(talk)
    return [(a, b) for a, b in pairwise(talked) if (a["sender"], b["sender"]) == ("client", "server")]


def talking(port: int) -> Any:
    return connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, ping_interval=None, proxy=None)


def http(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
        one.sendall(data.replace(b"Connection: keep-alive", b"Connection: close"))
        parts = []
        while part := one.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_openvla_answers_as_its_own_server_but_says_why_it_does_not() -> None:
    with stand_in("openvla") as port:
        for question, answer in pairs("openvla"):
            reply = http(port, question["data"])
            said = reply.partition(b"\r\n\r\n")[2]
            if answer["decoded"] == "error" or answer["status"] != 200:
                assert b" 400 " in reply.splitlines()[0]
                assert set(from_json(said)) == {"error"}
                continue
            value = from_json(said)
            if isinstance(value, str):
                value, expected = from_json(value), from_json(answer["decoded"])
                assert np.allclose(value, expected, atol=1e-6)
            else:
                assert close(described(value), answer["decoded"])


def test_openpi_answers_as_its_own_server_and_ends_after_an_error() -> None:
    with stand_in("openpi") as port, talking(port) as talk:
        assert isinstance(unpack(talk.recv())[0], dict)
        for number, (question, answer) in enumerate(pairs("openpi")):
            talk.send(question["data"])
            said = talk.recv(timeout=30)
            if answer["kind"] == "ws-text":
                assert isinstance(said, str)
                assert "no instruction" in said
                continue
            value, codec = unpack(said)
            assert codec == "bytes"
            assert close(described(value["actions"])["values"], answer["decoded"]["actions"]["values"])
            assert ("prev_total_ms" in value["server_timing"]) == (number > 0)
        with pytest.raises(ConnectionClosedError, match="1011"):
            talk.recv(timeout=30)


def test_starvla_answers_as_its_own_server_in_the_same_envelope() -> None:
    with stand_in("starvla") as port, talking(port) as talk:
        metadata, recorded = unpack(talk.recv())[0], frames("starvla")[0]["decoded"]
        assert recorded.keys() <= metadata.keys()
        assert metadata["action_chunk_size"] == recorded["action_chunk_size"]
        for question, answer in pairs("starvla"):
            value = exchanged(talk, question["data"])
            expected = answer["decoded"]
            assert {key: value.get(key) for key in ("status", "ok", "type", "request_id")} == {
                key: expected.get(key) for key in ("status", "ok", "type", "request_id")
            }
            if expected["ok"] and "data" in expected:
                assert close(value["data"]["actions"].tolist(), expected["data"]["actions"]["values"])
            elif not expected["ok"]:
                assert value["error"]["message"]


def exchanged(talk: ClientConnection, data: bytes) -> Any:
    talk.send(data)
    said = talk.recv(timeout=30)
    assert isinstance(said, bytes)
    return unpack(said)[0]


def test_vla_eval_answers_as_its_own_server_with_the_gripper_that_it_declares() -> None:
    with stand_in("vla_eval") as port, talking(port) as talk:
        for frame in [
            frame for frame in frames("vla_eval") if frame["kind"] == "ws-binary" and frame["sender"] == "client"
        ]:
            if frame["decoded"]["type"] in ("episode_start", "episode_end"):
                talk.send(frame["data"])  # has no answer
                continue
            value = exchanged(talk, frame["data"])
            answer = next(f for f in frames("vla_eval") if f["sender"] == "server" and f["file"] > frame["file"])[
                "decoded"
            ]
            assert (value["type"], value["seq"]) == (answer["type"], answer["seq"])
            if value["type"] == "action":
                expected = answer["payload"]["actions"]["values"]
                assert close(value["payload"]["actions"].tolist()[:6], expected[:6])
                assert value["payload"]["actions"][6] == -1  # 1.0 and more: open
            if value["type"] == "hello":
                assert value["payload"]["action_spec"]["gripper"]["format"] == "binary_close_positive"


@pytest.mark.parametrize("generation", ["n1.5", "n1.6", "n1.7"])
def test_gr00t_answers_each_generation_in_the_encoding_that_it_asked_in(generation: str) -> None:
    with stand_in(f"gr00t/{generation}") as port:
        context = zmq.Context()
        client = context.socket(zmq.REQ)
        client.setsockopt(zmq.RCVTIMEO, 30_000)
        client.connect(f"tcp://127.0.0.1:{port}")
        try:
            for question, answer in pairs(f"gr00t/{generation}"):
                client.send(question["data"])
                value, codec = unpack(client.recv())
                gr00t_answer(question["what"], value, codec, answer["decoded"])
        finally:
            client.close(0)
            context.term()


def gr00t_answer(what: str, value: Any, codec: str | None, expected: Any) -> None:
    if isinstance(expected, list):
        assert codec is not None
        assert value[0]["action"].dtype == np.float32
        assert close(value[0]["action"].tolist(), joined(expected[0]))
    elif any(key.startswith("action.") for key in expected):
        assert close(value["action.action"].tolist(), joined(expected))
    elif what in ("ping", "reset"):
        assert value == expected
    elif what == "a wrong token":
        assert value == {"status": "ok", "message": "Server is running"}  # this server was started without one
    elif "error" in expected:
        assert value.keys() == {"error"}
    else:
        assert value.keys() == expected.keys()  # the modality config: our own names


def joined(parts: dict[str, Any]) -> list[Any]:
    return np.concatenate([np.array(one["values"]) for one in parts.values()], axis=-1).tolist()


def test_a_policy_of_one_camera_is_not_disturbed_by_more_pictures() -> None:
    question = frames("openpi")[2]["data"]
    with running(lambda: service_of(PolicySubject(Mean(), FACTS))) as ports, talking(ports["openpi"]) as talk:
        talk.recv()
        assert exchanged(talk, question)["actions"].shape == (3, 7)
