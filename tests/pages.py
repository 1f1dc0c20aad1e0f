"""A filled table with learning curves, videos and records, and a headless Chromium to look at its page with."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from table_fills import filled

from vlakit.compare.grids import html_text
from vlakit.compare.pairs import Settings
from vlakit.reports.rendering import report_of as formatted
from vlakit.reports.tables.runs import Filled, TableRun
from vlakit.reports.tables.spec import load_table
from vlakit.reports.tables.table import TableReport, from_runs

RATES = {"full": 0.8, "last_layer": 0.4, "lora_r32": 0.78, "lora_r64": 0.76}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60  # seconds


def whole_fill(folder: Path, videos: dict[str, bytes] | None = None) -> Filled:
    """Four rows of table 1, three seeds each, with all that a page shows; `videos` lie beside each run's episodes."""
    return Filled([_whole(run, folder, videos or {}) for run in filled(RATES, n=60).runs], [])


def _whole(run: TableRun, folder: Path, videos: dict[str, bytes]) -> TableRun:
    place = folder / run.run
    (place / "videos").mkdir(parents=True)
    for name, content in videos.items():
        (place / "videos" / name).write_bytes(content)
    speed = 1 + int(run.seed) + len(run.row)
    train = [(step, 5 / (1 + step * speed / 900)) for step in range(9, 2000, 10)]
    record = {
        "id": run.run,
        "name": f"{run.row}[seed={run.seed}]",
        "started": f"2026-11-0{1 + int(run.seed)} 10:00 UTC",
        "shards.toy": "f00d" * 16,
    }
    record |= {"vlakit": "0.1.0", "dirty": "true", "checkpoint": "last.ckpt"}
    curves = {"train/loss": train, "val/loss": [(step, value + 0.2) for step, value in train[::25]]}
    episodes = replace(run.episodes, source=place) if run.episodes else None
    return replace(run, episodes=episodes, record=record, curves=curves, commit="0123456789abcdef")


def report_of(fill: Filled, source: str = "sqlite:///runs/mlflow.db") -> TableReport:
    """Table 1 of these runs."""
    command = "vlakit table name=table1 format=html"
    return replace(from_runs(load_table("table1"), fill, Settings(margin=0.2), source), command=command)


def page_of(fill: Filled, source: str = "sqlite:///runs/mlflow.db") -> str:
    """Its page."""
    return html_text(formatted(report_of(fill, source)))


@dataclass
class Browser:
    """A Chromium driven over a pipe (DevTools protocol). complaints: errors in its console; asked: what it loaded."""

    to: int
    back: int
    session: str = ""
    complaints: list[str] = field(default_factory=list[str])
    asked: list[str] = field(default_factory=list[str])
    _number: int = 0
    _rest: bytes = b""
    _loaded: bool = False

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command; events that come before it are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        os.write(
            self.to, json.dumps({**message, **({"sessionId": self.session} if self.session else {})}).encode() + b"\0"
        )
        while True:
            said = self._read()
            if said.get("id") == self._number:
                assert "error" not in said, said
                return said["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self.back], [], [], PATIENCE)[0], f"Chromium is silent for {PATIENCE} s"
            chunk = os.read(self.back, 1 << 16)
            assert chunk, "Chromium ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        said = json.loads(line)
        self._note(said.get("method", ""), said.get("params", {}))
        return said

    def _note(self, event: str, params: dict[str, Any]) -> None:
        self._loaded |= event == "Page.loadEventFired"
        if event == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        entry = params.get("entry", {})
        thrown = event == "Runtime.exceptionThrown" or params.get("type") in {"error", "warning"}
        if thrown or entry.get("level") in {"error", "warning"}:
            self.complaints.append(str(entry.get("text") or params))

    def open(self, file: Path | str, width: int, height: int = 844, scheme: str = "light") -> None:
        """Show a file, or an address, in a window of this size, and wait until it is loaded."""
        self.complaints, self.asked, self._loaded = [], [], False
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=file if isinstance(file, str) else file.absolute().as_uri())
        while not self._loaded:
            self._read()

    def value(self, script: str) -> Any:
        """What a piece of JavaScript gives; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A running browser with one empty tab."""
    (theirs_in, to), (back, theirs_out) = os.pipe(), os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]

    switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
    words = [str(CHROMIUM), *switches, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    wired = f'exec "$@" 3<&{high[0]} 4>&{high[1]}'  # Chromium reads commands from 3 and writes answers to 4
    shell = ["bash", "-c", wired, "bash", *words]
    process = subprocess.Popen(shell, pass_fds=high, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for end in (theirs_in, theirs_out, *high):
        os.close(end)
    try:
        browser = Browser(to, back)
        tab = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")
        yield browser
    finally:
        process.terminate()
        process.wait(20)
        os.close(to)
        os.close(back)
