"""MLflow's sqlite file: made once, whole or not at all, however many trainings begin at the same moment.

MLflow makes its tables in forty migrations. Two at once, or a kill among them, leave a file that nothing opens again.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from shutil import rmtree
from urllib.parse import quote

from vlakit.files import locked, publish

SQLITE = "sqlite:///"
PATIENCE_S = 30  # for another program that holds the file alone
REMEDY = "check tracking_uri; train.py runs without a record too: logger=none"
REMEDIES = {  # words of the answer -> what to do
    "already exists|duplicate column|no such (table|column)|not a database|malformed": "it is damaged, or was left half"
    " made: mv '{file}' '{file}.broken', and repeat; checkpoints and config.yaml lie in the runs' own folders",
    "out-of-date|an't locate revision": "another version of MLflow wrote it: copy it, then mlflow db upgrade '{uri}'",
    "is locked": "another program holds it: close that, or wait; train.py runs without a record too: logger=none",
}


def ready(tracking_uri: str) -> str:
    """See that a store in a file is there and can be read, and make it where it is not; its address for MLflow.

    Raises OSError, DatabaseError.
    """
    if not tracking_uri.startswith(SQLITE):
        return tracking_uri
    file = Path(tracking_uri.removeprefix(SQLITE))
    file.parent.mkdir(parents=True, exist_ok=True)
    if not _made(file):
        place = file.with_name(f"{file.name}.making")
        with locked(place, wait=True):  # whoever waited finds the store made
            if not _made(file):
                _make(place / "new.db", file)
            with suppress(OSError):  # another one that waited has done so
                place.rmdir()
    # MLflow itself would try ten times over a hundred seconds.
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=PATIENCE_S)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master")
    return _opened(file)


def _opened(file: Path) -> str:
    """The address of a file, as SQLAlchemy reads it: since 2.1 it decodes %20, which may be the folder's own name.

    The engine is put where MLflow looks for one: with its own it makes a folder called %2520, and waits long.
    """
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.engine import make_url

    spelled = [f"{SQLITE}{file}", f"{SQLITE}{str(file).replace('%', '%25')}"]
    uri = next((uri for uri in spelled if make_url(uri).database == str(file)), spelled[0])
    if uri not in SqlAlchemyStore._engine_map:
        SqlAlchemyStore._engine_map[uri] = create_sqlalchemy_engine(uri)
    return uri


def _made(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _make(new: Path, file: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for left in new.parent.iterdir():  # of one that was killed
        rmtree(left) if left.is_dir() else left.unlink()
    SqlAlchemyStore(_opened(new), str(file.parent / "mlflow_artifacts")).engine.dispose()
    publish(new, file)
