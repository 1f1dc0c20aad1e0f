"""The wheel as a new user has it: an empty environment for each Python, an empty folder, no network behind installing.

    python experiments/reliability/wheel.py [--pythons 3.11,3.12,3.13] [--keep DIR]     # writes wheel.csv

Needs `uv` on PATH (pip install uv), which builds the sdist, the wheel out of it, and the environments, and Linux's
`unshare -rn` and `ip`: each command runs in a network namespace that has its loopback alone. An environment takes 6 GB.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT_S = 900
EPISODES = ROOT / "tests" / "fixtures" / "vla_eval_records"
NO_NETWORK = """
import socket
try:
    socket.create_connection(("1.1.1.1", 53), 5)
except OSError as error:
    print("no network:", error.strerror)
else:
    raise SystemExit("there is a network")
"""
ASK = """
import re, signal, subprocess, sys
import numpy as np
from vlakit.schema import Observation
from vlakit.serving.clients.openvla import OpenVLAClient
words = ["ckpt=tiny", "dataset=tabletop_d0", "dialect=openvla", "port=0"]
server = subprocess.Popen(["vlakit", "serve", *words], stdout=subprocess.PIPE, text=True)
port = int(server.stdout.readline().rpartition(":")[2])
client = OpenVLAClient(f"http://127.0.0.1:{port}/act", {"primary": "image"}, None, 120)
picture = np.zeros((64, 64, 3), np.uint8)
print("answer", client.ask(Observation.of(picture, "lift the red cube", "tabletop_d0")).shape)
server.send_signal(signal.SIGTERM)
sys.exit(server.wait(300))
"""
COMMANDS = (
    ("python", "-c", NO_NETWORK),
    ("vlakit", "doctor"),
    ("vlakit", "table", "name=table1"),
    ("vlakit", "compare", "runs=[policy_a,policy_b]"),
    ("vlakit", "explain", "model=openvla_7b", "strategy=lora"),
    ("python", "-c", ASK),
    ("vlakit", "demonstrate", "suite=tabletop_target", "episodes=1"),
)
NAMES = {NO_NETWORK: "a connection to elsewhere", ASK: "vlakit serve, and one question over the loopback"}


@dataclass
class Row:
    """A command in an environment."""

    python: str
    command: str
    status: int
    seconds: float
    last_line: str


def main() -> None:
    """Write the table; exit status 1 where a command failed."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--pythons", default="3.11,3.12,3.13", help="versions, or paths of interpreters")
    asked.add_argument("--keep", type=Path, help="a folder in which the environments are kept")
    asked.add_argument("--out", type=Path, default=HERE / "wheel.csv")
    words = asked.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        place = words.keep or Path(folder)
        built = place / "dist"
        subprocess.run(["uv", "build", "--quiet", "--out-dir", built, ROOT], check=True)
        (wheel,) = built.glob("*.whl")
        for python in words.pythons.split(","):
            rows += tried(python, wheel, place / f"python_{Path(python).parts[-1]}", keep=words.keep is not None)
            write(words.out, rows)
    sys.exit(any(row.status for row in rows))


def tried(python: str, wheel: Path, home: Path, *, keep: bool) -> Iterator[Row]:
    """Install into an empty environment, run every command in an empty folder, remove it all."""
    environment = home / "environment"
    began = time.monotonic()
    if not environment.exists():
        subprocess.run(["uv", "venv", "--quiet", "--python", python, environment], check=True)
    target = ["--python", environment / "bin" / "python", "--reinstall-package", "vlakit", f"{wheel}[sim,serve]"]
    subprocess.run(["uv", "pip", "install", "--quiet", *target], check=True)
    version = subprocess.run([environment / "bin/python", "-V"], check=True, capture_output=True, text=True).stdout
    yield Row(version.split()[1], f"install {wheel.name}[sim,serve]", 0, round(time.monotonic() - began, 1), "")
    empty = home / "empty"
    shutil.copytree(EPISODES, empty, dirs_exist_ok=True)
    for words in COMMANDS:
        row = ran(words, environment, empty, version.split()[1])
        print(f"{row.python}: {row.command}: status {row.status}, {row.seconds} s, {row.last_line}", flush=True)
        yield row
    if not keep:
        shutil.rmtree(home)


def ran(words: tuple[str, ...], environment: Path, folder: Path, python: str) -> Row:
    """A command without network, without this machine's settings."""
    alone = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    own = {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "VIRTUAL_ENV": str(environment)}
    began = time.monotonic()
    done = subprocess.run(
        [*alone, *words], cwd=folder, env=own, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    lines = [line for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines() if line.strip()]
    said = NAMES.get(words[-1], " ".join(words))
    return Row(python, said, done.returncode, round(time.monotonic() - began, 1), (lines or [""])[-1].strip()[:200])


def write(file: Path, rows: list[Row]) -> None:
    """All rows so far."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(asdict(rows[0])), lineterminator="\n")
        table.writeheader()
        table.writerows(map(asdict, rows))


if __name__ == "__main__":
    main()
