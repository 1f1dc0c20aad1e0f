"""What a server costs over `act`, and what batches of many clients bring: one process, one run, ratios.

PYTHONPATH=src python experiments/speed/serving/load.py [--ckpt tiny] [--dataset tabletop_d0] [--clients 32]
PYTHONPATH=src python experiments/speed/serving/load.py --hour     memory over an hour of questions
PYTHONPATH=src python experiments/speed/serving/load.py --leaks    memory over connections, then over questions

Wants an idle machine: clients and server share its cores. The server is `vlakit serve` in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation
from vlakit.serving.remote import CLIENTS

URLS = {"openpi": "ws", "openvla": "http", "gr00t": "tcp", "vla_eval": "ws", "starvla": "ws"}
PICTURE = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)


def main() -> None:
    """Prints and writes one row a dialect, or a row a minute of an hour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", default="tiny")
    parser.add_argument("--dataset", default="tabletop_d0")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--dialects", default=",".join(URLS))
    parser.add_argument("--hour", action="store_true")
    parser.add_argument("--leaks", action="store_true")
    given = parser.parse_args()
    if given.hour or given.leaks:
        name, rows = ("memory.csv", memory(given)) if given.hour else ("leaks.csv", leaks(given))
    else:
        name, rows = "load.csv", [load(dialect, given) for dialect in given.dialects.split(",")]
    with (Path(__file__).parent / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class Server:
    """`vlakit serve` of one dialect on a free port."""

    def __init__(self, dialect: str, given: argparse.Namespace, *words: str) -> None:
        about = [f"ckpt={given.ckpt}", f"dataset={given.dataset}", f"dialect={dialect}", "port=0", *words]
        command = [sys.executable, "-m", "vlakit", "serve", *about]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline() if self.process.stdout else ""
        self.dialect, self.url = dialect, f"{URLS[dialect]}://127.0.0.1:{line.strip().rpartition(':')[2]}"

    def client(self) -> Any:
        """A connection."""
        kind: Any = CLIENTS.get(self.dialect)
        return kind(self.url, {"primary": kind.cameras["primary"]}, None, 60)

    def stop(self) -> None:
        """End it in good order."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def load(dialect: str, given: argparse.Namespace) -> dict[str, object]:
    """One client against `act` in this process, in turn; then many at once with batches and without."""
    policy = TrainedPolicy.from_checkpoint(given.ckpt)
    seen = Observation.of(PICTURE, "put the red cube on the plate", given.dataset)
    server = Server(dialect, given)
    try:
        client = server.client()
        here, there = [], []
        for _ in range(200):  # in turn, so that both meet the same disturbances
            here.append(seconds(lambda: policy.act([seen])))
            there.append(seconds(lambda: client.ask(seen)))
        client.close()
        single, _ = many(server, 1, given.seconds, seen)
    finally:
        server.stop()
    batched = Server(dialect, given, f"batch_rows={given.clients}", f"waiting={2 * given.clients}")
    try:
        times, counts = many(batched, given.clients, given.seconds, seen)
    finally:
        batched.stop()
    p50, p99 = np.percentile(np.concatenate(times), [50, 99]) * 1000
    row = {
        "dialect": dialect,
        "act_p50_ms": round(float(np.median(here)) * 1000, 2),
        "served_p50_ms": round(float(np.median(there)) * 1000, 2),
        "overhead_p50_ms": round(float(np.median(np.array(there) - np.array(here))) * 1000, 2),
        "single_a_second": round(len(single[0]) / given.seconds, 1),
        "clients": given.clients,
        "batched_a_second": round(sum(counts) / given.seconds, 1),
        "ratio": round(sum(counts) / len(single[0]), 2),
        "p50_ms": round(float(p50), 1),
        "p99_over_p50": round(float(p99 / p50), 2),
        "least_over_most": round(min(counts) / max(counts), 2),
        "load_of_machine": round(os.getloadavg()[0], 2),
    }
    print(row, flush=True)
    return row


def seconds(call: object) -> float:
    """Of one call."""
    began = time.perf_counter()
    call()  # pyright: ignore[reportCallIssue]
    return time.perf_counter() - began


def many(server: Server, n: int, duration_s: float, seen: Observation) -> tuple[list[list[float]], Sequence[int]]:
    """Seconds of each answer, and how many there were, a client."""
    clients = [server.client() for _ in range(n)]
    times: list[list[float]] = [[] for _ in clients]
    end = time.perf_counter() + duration_s

    def ask(number: int) -> None:
        while time.perf_counter() < end:
            times[number].append(seconds(lambda: clients[number].ask(seen)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(n)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for one in clients:
        one.close()
    return times, [len(one) for one in times]


def memory(given: argparse.Namespace) -> list[dict[str, object]]:
    """Resident memory of a server of openpi each minute of an hour, four clients asking all the while."""
    seen = Observation.of(PICTURE, "put the red cube on the plate", given.dataset)
    server, rows = Server("openpi", given), []
    process = psutil.Process(server.process.pid)
    try:
        for minute in range(60):
            _, counts = many(server, 4, 60, seen)
            rows.append({"minute": minute, "rss_mb": round(process.memory_info().rss / 1e6, 1), "answers": sum(counts)})
            print(rows[-1], flush=True)
    finally:
        server.stop()
    return rows


def leaks(given: argparse.Namespace) -> list[dict[str, object]]:
    """Resident memory of a server of openpi behind connections of one question, then behind questions of one."""
    seen = Observation.of(PICTURE, "put the red cube on the plate", given.dataset)
    server, rows = Server("openpi", given), []
    process = psutil.Process(server.process.pid)
    try:
        for connections, questions in [(1, 50), *[(50, 1)] * 6, *[(1, 200)] * 4]:
            for _ in range(connections):
                client = server.client()
                for _ in range(questions):
                    client.ask(seen)
                client.close()
            rss = round(process.memory_info().rss / 1e6, 2)
            rows.append({"connections": connections, "questions_each": questions, "rss_mb": rss})
            print(rows[-1], flush=True)
    finally:
        server.stop()
    return rows


if __name__ == "__main__":
    main()
