"""10,000 questions without an answer for each dialect of a running `vlakit serve`: no crash, no leak, no action.

PYTHONPATH=src python experiments/reliability/serving/fuzz.py [--n 10000] [--dialects openpi,gr00t/n1.7]
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
from mutants import CAMERAS, RECORDED, Visitor, mutants, question

LEAK_MB = 64  # by which a server may grow while it refuses: heaps of threads and allocators, once


def main() -> int:
    """One row a dialect; 1 where one of them broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--dialects", default=",".join(RECORDED))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("fuzz.csv"))
    parser.add_argument("--ckpt", default="tiny")
    parser.add_argument("--dataset", default="tabletop_d0")
    given = parser.parse_args()
    rows = [fuzz(dialect, given) for dialect in given.dialects.split(",")]
    with given.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return int(any(row["verdict"] != "ok" for row in rows))


def fuzz(dialect: str, given: argparse.Namespace) -> dict[str, object]:
    """A server, its first answer, n questions without one, the same answer again, and its end by SIGTERM."""
    name = dialect.partition("/")[0]
    words = [f"ckpt={given.ckpt}", f"dataset={given.dataset}", f"dialect={name}", "port=0"]
    cameras = [f"cameras={{{', '.join(f'{k}: {v}' for k, v in CAMERAS[name].items())}}}"] if name in CAMERAS else []
    command = [sys.executable, "-m", "vlakit", "serve", *words, *cameras]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = int(server.stdout.readline().rpartition(":")[2]) if server.stdout else 0
        row = conversation(dialect, port, psutil.Process(server.pid), given)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    row["exit"] = code
    good = row["actions"] == 0 and row["same_answer"] and row["grown_mb"] < LEAK_MB and code == 0 and row["open"] == 0
    row["verdict"] = "ok" if good else "FAIL"
    print(json.dumps(row), flush=True)
    return row


def conversation(dialect: str, port: int, process: psutil.Process, given: argparse.Namespace) -> dict[str, object]:
    """What the server did, in numbers."""
    n, right = given.n, question(dialect, given.dataset)
    visitor, made = Visitor(dialect, port), mutants(dialect, given.dataset)
    first = visitor.ask(right)
    for _ in range(min(n // 10, 500)):  # whatever is allocated once
        visitor.ask(next(made)[1])
    before, began = process.memory_info().rss, time.perf_counter()
    kinds: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for _ in range(n):
        what, data = next(made)
        acted, _ = visitor.ask(data)
        kinds[what] += 1
        wrong[what] += acted
    seconds, grown = time.perf_counter() - began, (process.memory_info().rss - before) / 1e6
    again = visitor.ask(right)
    visitor.close()
    return {
        "dialect": dialect,
        "questions": n,
        "kinds": len(kinds),
        "actions": sum(wrong.values()),
        "which": "; ".join(what for what, count in wrong.items() if count),
        "same_answer": first[0] and again[0] and numbers(first[1], dialect) == numbers(again[1], dialect),
        "grown_mb": round(grown, 1),
        "open": left_open(dialect, port),
        "a_second": round(n / seconds),
    }


def numbers(said: bytes, dialect: str) -> object:
    """The actions of an answer, without clocks and numbers of messages."""
    import msgpack

    if dialect == "openvla":
        return said
    value = msgpack.unpackb(said, raw=False)
    if isinstance(value, list):
        return str(value[0])
    return str({"openpi": value.get("actions"), "starvla": value.get("data")}.get(dialect, value.get("payload")))


def left_open(dialect: str, port: int) -> int:
    """Connections that the server still counts, where it has a page to say so."""
    if dialect.startswith("gr00t"):
        return 0
    time.sleep(0.5)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/live", timeout=30) as reply:
        return int(json.loads(reply.read())["clients"])


if __name__ == "__main__":
    sys.exit(main())
