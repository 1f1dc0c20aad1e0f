"""A server and its visitors: limits, tokens, other sites, ports, the end, clients that vanish or do not read."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any, cast

import msgpack
import numpy as np
import pytest
from servers import FACTS, Mean, frames, running, service_of
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from vlakit.errors import ConfigError
from vlakit.serving.arrays import from_json, pack, to_json, unpack
from vlakit.serving.batching import Limits
from vlakit.serving.server import Ports
from vlakit.serving.service import Guard
from vlakit.serving.sessions import Memory
from vlakit.serving.subjects import Facts, PolicySubject

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
PICTURE = np.full((8, 8, 3), 100, np.uint8)
ASKED = {"image": PICTURE, "instruction": "lift the pot"}
HANDSHAKE = b"\r\n".join(
    (
        b"GET / HTTP/1.1",
        b"Host: x",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"\r\n",
    )
)
SEEN = {"observation/image": PICTURE, "prompt": "lift the pot"}


def post(port: int, body: bytes, path: str = "/act", **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=30
        ) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def talking(port: int, **headers: str) -> Any:
    address = f"ws://127.0.0.1:{port}"
    return connect(address, compression=None, max_size=None, ping_interval=None, proxy=None, additional_headers=headers)


def clients(port: int) -> int:
    """How many are connected once ten seconds, or all of them, have gone."""
    deadline = time.monotonic() + 10
    while (count := json.loads(get(port, "/live")[1])["clients"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return count


def infer(talk: ClientConnection, **more: Any) -> Any:
    talk.send(pack({**SEEN, **more}, "bytes"))
    said = talk.recv(timeout=30)
    return said if isinstance(said, str) else unpack(said)[0]


def test_health_facts_metrics_and_the_page_are_there_beside_any_dialect() -> None:
    with running(service_of, ["openpi", "openvla", "vla_eval", "starvla"]) as ports:
        for port in ports.values():
            assert get(port, "/health") == (200, '{"status":"ok"}')
            assert get(port, "/healthz") == (200, "OK")
            assert json.loads(get(port, "/info")[1])["policy"] == "mean"
            assert "<title>vlakit serve</title>" in get(port, "/")[1]
        post(ports["openvla"], to_json(ASKED).encode())
        post(ports["openvla"], b"{")
        text = get(ports["openpi"], "/metrics")[1]
        live = json.loads(get(ports["openpi"], "/live")[1])
    assert 'vlakit_answers_total{dialect="openvla"} 1.0' in text
    assert 'vlakit_errors_total{dialect="openvla",kind="Refused"} 1.0' in text
    assert [one["instruction"] for one in live["recent"]] == ["lift the pot"]
    assert sum(count for _, count in live["latency"]) == 1


def test_no_client_can_end_or_change_a_server() -> None:
    with running(service_of, ["vla_eval"]) as ports:
        assert get(ports["vla_eval"], "/config")[0] == 403
        assert get(ports["vla_eval"], "/config?max_batch_size=8")[0] == 403
        assert get(ports["vla_eval"], "/health")[0] == 200


def test_with_a_token_nobody_else_asks_or_looks() -> None:
    with running(lambda: service_of(guard=Guard(token="geheim")), ["openvla", "openpi"]) as ports:
        assert post(ports["openvla"], to_json(ASKED).encode())[0] == 401
        assert post(ports["openvla"], to_json(ASKED).encode(), Authorization="Bearer falsch")[0] == 401
        assert post(ports["openvla"], to_json(ASKED).encode(), Authorization="Bearer geheim")[0] == 200
        assert {get(ports["openpi"], path)[0] for path in ("/", "/live", "/info", "/metrics")} == {401}
        assert get(ports["openpi"], "/live?token=geheim")[0] == 200
        assert get(ports["openpi"], "/healthz")[0] == 200
        with pytest.raises(InvalidStatus, match="403"), talking(ports["openpi"]):
            pass
        with talking(ports["openpi"], Authorization="Api-Key geheim") as talk:
            talk.recv()
            assert infer(talk)["actions"].shape == (3, 7)


def test_a_page_of_another_site_in_a_browser_moves_no_robot() -> None:
    with running(service_of, ["openvla", "openpi"]) as ports:
        assert post(ports["openvla"], to_json(ASKED).encode(), Origin="https://elsewhere.example")[0] == 401
        with pytest.raises(InvalidStatus, match="403"), talking(ports["openpi"], Origin="https://elsewhere.example"):
            pass


def test_what_is_larger_than_allowed_is_refused_before_it_is_read() -> None:
    with running(lambda: service_of(guard=Guard(bytes=10_000)), ["openvla", "openpi"]) as ports:
        assert "more than 10000 bytes" in post(ports["openvla"], b"[" + b"1," * 10_000 + b"1]")[1]["error"]
        with talking(ports["openpi"]) as talk:
            talk.recv()
            with pytest.raises(ConnectionClosed, match="1009"):
                infer(talk, padding=b"x" * 20_000)
        assert post(ports["openvla"], to_json(ASKED).encode())[0] == 200


def test_too_many_questions_a_second_and_too_many_clients_are_busy_not_dead() -> None:
    with running(lambda: service_of(guard=Guard(rate=2, clients=1)), ["openvla", "openpi"]) as ports:
        codes = [post(ports["openvla"], to_json(ASKED).encode())[0] for _ in range(4)]
        assert codes[:2] == [200, 200]
        assert 429 in codes
        with talking(ports["openpi"]) as first, talking(ports["openpi"]) as second:
            first.recv()
            assert "clients are connected" in str(second.recv(timeout=30))
            assert infer(first)["actions"].shape == (3, 7)


def test_idle_connections_are_counted_and_the_first_one_is_still_answered_when_they_go() -> None:
    with running(lambda: service_of(guard=Guard(clients=2)), ["openvla"]) as ports:
        port = ports["openvla"]
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(2 + 16)]
        time.sleep(0.5)
        assert get(port, "/health")[0] == 503
        for one in idle:
            one.close()
        time.sleep(0.5)
        assert post(port, to_json(ASKED).encode())[0] == 200


def test_who_never_ends_the_head_of_a_question_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlakit.serving.server.SILENT_S", 1)
    with running(service_of, ["openvla", "openpi"]) as ports, talking(ports["openpi"]) as patient:
        patient.recv()
        for begun in (b"", b"POST /act HTTP/1.1\r\nHost: x\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /he"):
            with socket.create_connection(("127.0.0.1", ports["openvla"]), timeout=10) as slow:
                slow.sendall(begun)
                heard, deadline = [b"none yet"], time.monotonic() + 5
                while heard[-1] and time.monotonic() < deadline:  # a letter now and then wins no time
                    slow.settimeout(0.3)
                    try:
                        heard.append(slow.recv(4096))
                        slow.sendall(b"x")
                    except TimeoutError:
                        pass
                    except OSError:
                        heard.append(b"")
                assert heard[-1] == b"", begun
        assert infer(patient)["actions"].shape == (3, 7)  # a WebSocket may be silent for as long as it likes


def test_openpis_other_robots_send_nested_pictures_and_states_of_their_own() -> None:
    facts = Facts("mean", ("primary", "wrist"), (3, 7), (), proprio=8, picture=(8, 8))
    subject = PolicySubject(Mean(cameras=facts.cameras), facts)
    keys = {"primary": "images/cam_high", "wrist": "images/cam_left_wrist"}
    nested = {name: PICTURE.transpose(2, 0, 1) for name in ("cam_high", "cam_low", "cam_left_wrist")}
    droid = {"observation/joint_position": np.ones(7), "observation/gripper_position": np.ones(1)}
    with running(lambda: service_of(subject), ["openpi"], keys) as ports, talking(ports["openpi"]) as talk:
        talk.recv()
        for state in ({"state": np.ones(8)}, {"observation/state": np.ones(8)}, droid):
            talk.send(pack({"images": nested, "prompt": "lift the pot", **state}, "bytes"))
            assert unpack(cast(bytes, talk.recv(timeout=30)))[0]["actions"].shape == (3, 7)
        talk.send(pack({"images": {"cam_low": PICTURE}, "prompt": "lift", **droid}, "bytes"))
        assert "images/cam_low" in str(talk.recv(timeout=30))  # what is there


def test_a_queue_over_http_is_a_clients_own_and_reset_empties_it() -> None:
    subject = PolicySubject(Mean(), FACTS)
    with running(lambda: service_of(subject, memory=Memory(queue=3)), ["openvla"]) as ports:
        port, body = ports["openvla"], to_json(ASKED).encode()

        def first(client: str) -> float:
            answer = post(port, body, **{"X-Client-Id": client})[1]
            return float(from_json(json.dumps(answer))[0])

        anna = [first("anna"), first("anna"), first("ben"), first("anna"), first("anna")]
        post(port, b"{}", "/reset", **{"X-Client-Id": "anna"})
        after = [first("anna"), first("anna")]
    steps = np.round((np.array([*anna, *after]) - anna[0]) * 100).astype(int).tolist()
    assert steps == [0, 1, 0, 2, 0, 0, 1]


def test_a_reset_empties_the_queue_of_every_row_that_a_client_asks_for() -> None:
    async def planned() -> list[bool]:
        service, seen = service_of(memory=Memory(queue=3)), []
        for turn in ("before", "after"):
            for name in ("anna", "anna/1", "ann"):
                with service.named(name) as session:
                    seen.append(session.planned() is not None)
                    if turn == "before":
                        session.answer(np.zeros((3, 7), np.float32))
            service.reset("anna")
        return seen

    assert asyncio.run(planned()) == [False] * 3 + [False, False, True]


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_the_first_question_is_answered_however_few_a_second_are_allowed(rate: float) -> None:
    with running(lambda: service_of(guard=Guard(rate=rate)), ["openvla", "starvla"]) as ports:
        assert [post(ports["openvla"], to_json(ASKED).encode())[0] for _ in range(2)] == [200, 429]
        with talking(ports["starvla"]) as talk:
            talk.recv()
            example = {"image": [np.zeros((8, 8, 3), np.uint8)], "lang": "lift"}
            talk.send(pack({"examples": [example] * 3}, "bytes"))
            assert unpack(cast(bytes, talk.recv(timeout=30)))[0]["data"]["actions"].shape == (3, 3, 7)


def test_half_a_character_is_refused_in_words_and_the_page_lives_on() -> None:
    with running(service_of, ["openvla"]) as ports:
        for wrong in ({**ASKED, "instruction": "put \ud800 it"}, {"\ud800": ASKED["image"], "instruction": "lift"}):
            code, said = post(ports["openvla"], to_json(wrong).encode())
            assert (code, "error" in said) == (400, True)
        assert get(ports["openvla"], "/live")[0] == 200


@pytest.mark.parametrize(("dialect", "number"), [("vla_eval", {"seq": 77}), ("starvla", {"request_id": "abc"})])
def test_an_error_keeps_the_number_of_a_question_whose_array_is_refused(dialect: str, number: dict[str, Any]) -> None:
    evil = {b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "|O", b"shape": [1]}
    asked = {"type": "observation" if dialect == "vla_eval" else "infer", "payload": {"images": evil}, **number}
    with running(service_of, [dialect]) as ports, talking(ports[dialect]) as talk:
        if dialect == "starvla":
            talk.recv()
        talk.send(msgpack.packb(asked))
        said = unpack(cast(bytes, talk.recv(timeout=30)))[0]
    assert said.items() >= number.items()
    assert said["type"] == "error" or said["status"] == "error"


def test_a_port_in_use_is_said_before_anything_is_loaded_and_none_is_kept() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        ports = Ports("127.0.0.1", {"openpi": 0, "openvla": number})
        with pytest.raises(ConfigError, match=f"port {number} is in use"):
            ports.bind()
    assert all(one.fileno() == -1 for one in ports.sockets.values())


def test_nobody_is_let_in_before_the_policy_is_warm() -> None:
    policy = Mean()
    policy.gate.clear()
    ports: dict[str, int] = {}
    bound = threading.Event()

    class Watched(PolicySubject):
        def warm_up(self, rows: int) -> None:
            bound.set()
            super().warm_up(rows)

    def start() -> None:
        with running(lambda: service_of(Watched(policy, FACTS)), ["openvla"]) as found:
            ports.update(found)

    starting = threading.Thread(target=start)
    starting.start()
    assert bound.wait(30)
    time.sleep(0.1)
    assert not ports
    policy.gate.set()
    starting.join(30)
    assert ports


def test_at_the_end_the_question_that_is_being_answered_gets_its_answer() -> None:
    policy = Mean()
    got: list[Any] = []
    with running(lambda: service_of(PolicySubject(policy, FACTS)), ["openpi"]) as ports:
        talk = talking(ports["openpi"]).__enter__()
        talk.recv()
        policy.gate.clear()
        asking = threading.Thread(target=lambda: got.append(infer(talk)))
        asking.start()
        time.sleep(0.2)
        threading.Timer(0.3, policy.gate.set).start()
    asking.join(30)
    talk.close()
    assert got[0]["actions"].shape == (3, 7)


@pytest.mark.parametrize("dialect", ["openpi", "openvla", "vla_eval", "starvla"])
def test_clients_that_die_in_the_middle_leave_nothing_behind(dialect: str) -> None:
    question = next(f["data"] for f in frames("openvla" if dialect == "openvla" else dialect) if f["bytes"] > 9000)
    with running(lambda: service_of(PolicySubject(Mean(), FACTS)), [dialect]) as ports:
        for cut in (10, 300, 2000, len(question) // 2):
            with socket.create_connection(("127.0.0.1", ports[dialect]), timeout=10) as one:
                if dialect != "openvla":
                    one.sendall(HANDSHAKE)
                    one.recv(200)
                    one.sendall(b"\x82\xfe" + len(question).to_bytes(2, "big") + b"\0\0\0\0" + question[:cut])
                else:
                    one.sendall(question[:cut])
        assert clients(ports[dialect]) == 0
        assert json.loads(get(ports[dialect], "/live")[1])["waiting"] == 0


def test_a_client_that_reads_nothing_is_let_go_and_holds_up_nobody() -> None:
    facts = Facts("mean", ("primary",), (40_000, 7), (), picture=(8, 8))  # 1 MB an answer
    subject = PolicySubject(Mean(40_000), facts)
    message = pack(SEEN, "bytes")
    frame = b"\x82\xfe" + len(message).to_bytes(2, "big") + b"\0\0\0\0" + message
    with (
        running(lambda: service_of(subject, limits=Limits(wait_ms=0, timeout_s=1)), ["openpi"]) as ports,
        socket.create_connection(("127.0.0.1", ports["openpi"]), timeout=10) as deaf,
    ):
        deaf.sendall(HANDSHAKE)
        deaf.recv(64)
        deaf.sendall(frame * 30)
        with talking(ports["openpi"]) as other:
            other.recv()
            assert infer(other)["actions"].shape == (40_000, 7)
        assert clients(ports["openpi"]) == 0  # though it is still there


def test_an_error_of_the_policy_closes_openpis_connection_and_tells_no_secret() -> None:
    with running(service_of, ["openpi"]) as ports, talking(ports["openpi"]) as talk:
        talk.recv()
        said = infer(talk, prompt="explode")
        assert isinstance(said, str)
        assert "RuntimeError" in said
        assert "secret" not in said
        with pytest.raises(ConnectionClosed, match="1011"):
            talk.recv(timeout=30)
