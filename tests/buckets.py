"""Remote folders for tests: an S3 server and a plain web server on this machine, behind a proxy that can fail."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
STALL = 3.0  # seconds; longer than the timeout that tests give then


class Proxy:
    """Passes requests on; `faults[name]` holds what happens to the next bodies of that file: fail, stall, cut, flip."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.faults: dict[str, deque[str]] = defaultdict(deque)
        self.always: dict[str, str] = {}
        self.latency = 0.0
        self.asked: list[tuple[str, str, str]] = []  # method, file name, range

    def fault(self, name: str) -> str:
        waiting = self.faults[name]
        return waiting.popleft() if waiting else self.always.get(name, "")

    def gets(self) -> Counter[str]:
        """File -> bodies that were asked for."""
        return Counter(name for method, name, _ in self.asked if method == "GET")

    def calm(self) -> None:
        """No fault, and nothing asked yet."""
        self.faults.clear()
        self.always.clear()
        self.asked.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, proxy: Proxy, *rest: Any) -> None:
        self.proxy = proxy
        super().__init__(*rest)

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.proxy.asked.append((self.command, name, self.headers.get("Range", "")))
        time.sleep(self.proxy.latency)
        fault = self.proxy.fault(name) if self.command == "GET" else ""
        if fault == "stall":
            time.sleep(STALL)
        if fault == "fail":
            self.send_error(503)
            return
        upstream = http.client.HTTPConnection(*self.proxy.target)
        upstream.request(self.command, self.path, headers=dict(self.headers))
        self._answer(upstream.getresponse(), fault)
        upstream.close()

    def handle(self) -> None:
        """A client that waits no longer is no error of ours."""
        with suppress(ConnectionError):
            super().handle()

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, response: http.client.HTTPResponse, fault: str) -> None:
        body = response.read()
        headers = {key.lower(): value for key, value in response.getheaders()}
        self.send_response(response.status)
        for key, value in ({"content-length": str(len(body))} | headers).items():
            if key not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(key, value)
        self.end_headers()
        if fault == "flip":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = fault == "cut"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(handler: type[BaseHTTPRequestHandler] | partial[BaseHTTPRequestHandler]) -> Iterator[tuple[str, int]]:
    """A server on a free port of this machine, in threads."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield ("127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def proxied(target: tuple[str, int]) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of a server, and its address."""
    proxy = Proxy(target)
    with served(partial(_Handler, proxy)) as (host, port):
        yield proxy, f"http://{host}:{port}"


class _Quiet(SimpleHTTPRequestHandler):
    """Files of a folder; like many a simple server it knows no ranges."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def web_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Python's own server of files."""
    with served(partial(_Quiet, directory=str(folder))) as address:
        yield address
