"""The record's database in the middle of a training: locked, moved away, read-only, of another version, overwritten."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos import Work
from trying import RECORDED, TRAINING, Here, Row, fine, in_words


def store_faults(here: Here) -> Iterator[Row]:
    """A row a fault."""
    for name in BROKEN:
        yield store_fault(name, here)


def store_fault(name: str, here: Here) -> Row:
    """The training ends well; a new one meanwhile is told; when the store is back it gets every point."""
    row, store = (
        Row(f"MLflow store {name} in the middle of a training"),
        here.folder / f"store_{name.replace(' ', '_')}",
    )
    place, file = Here(here.folder, here.more | {"store": str(store)}), store / "mlflow.db"
    words = (*RECORDED, *TRAINING)
    long, short = Work("long", "train", (*words, "steps=60"), ()), Work("next", "train", (*words, "steps=5"), ())
    process = place.begin(long, store / "long", impatient)
    while process.is_alive() and not (store / "long" / "last.ckpt").exists():
        time.sleep(0.05)
    with BROKEN[name](file):
        ended = in_words(*place.ended(process))
        meanwhile = in_words(*place.told(short, store / "meanwhile", impatient))
    after = in_words(*place.told(short, store / "after"))
    with sqlite3.connect(file) as found:
        steps = {step for (step,) in found.execute("SELECT step FROM metrics WHERE key = 'train/loss'")}
    missing = len(set(range(60)) - steps)
    good = ended == "done" and fine(meanwhile) and after == "done" and not missing
    row.add(good, f"training {ended}, a new one meanwhile {meanwhile}, behind it {after}, {missing} points missing")
    return row


def impatient() -> None:
    """A store that is away when training ends is waited for five seconds in place of sixty."""
    import vlakit.tracking.loggers as loggers
    import vlakit.tracking.store as store

    loggers.PATIENCE_S = store.PATIENCE_S = 5


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    holder = sqlite3.connect(file, isolation_level=None, timeout=60)
    holder.execute("BEGIN EXCLUSIVE")
    yield
    holder.close()


@contextmanager
def _gone(file: Path) -> Iterator[None]:
    file.rename(file.with_name("away"))
    yield
    file.unlink(missing_ok=True)  # a new one that a command made meanwhile
    file.with_name("away").rename(file)


@contextmanager
def _read_only(file: Path) -> Iterator[None]:
    subprocess.run(["chattr", "+i", str(file), str(file.parent)], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(file), str(file.parent)], check=True)


@contextmanager
def _of_another_version(file: Path) -> Iterator[None]:
    with sqlite3.connect(file, timeout=60) as store:
        ((version,),) = store.execute("SELECT version_num FROM alembic_version").fetchall()
        store.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    yield
    with sqlite3.connect(file, timeout=60) as store:
        store.execute("UPDATE alembic_version SET version_num = ?", (version,))


@contextmanager
def _overwritten(file: Path) -> Iterator[None]:
    kept = file.read_bytes()
    with file.open("r+b") as stream:
        stream.write(b"no database " * 1000)
    yield
    file.write_bytes(kept)


BROKEN = {
    "locked": _locked,
    "gone": _gone,
    "read-only": _read_only,
    "of another version": _of_another_version,
    "overwritten": _overwritten,
}
