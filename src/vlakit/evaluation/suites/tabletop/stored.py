"""The tabletop's test starts as files: they stay what they are, whatever becomes of the code that drew them."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from vlakit.errors import CorruptRecord
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.embodiment import Embodiment
from vlakit.evaluation.suites.tabletop.states import Start
from vlakit.files import ASSETS, write_atomically

log = logging.getLogger(__name__)
FOLDER = ASSETS / "tabletop"


def stored_states(embodiment: Embodiment, axis: str, task: str, folder: Path = FOLDER) -> list[InitialState]:
    """The test starts of a task (as the suite calls it) that are on file, in order; none for an embodiment without
    files, or one that is no longer what they were drawn for. Raises CorruptRecord.
    """
    drawn_for, tasks = _content(state_file(embodiment.name, axis, folder))
    if drawn_for not in (None, fingerprint(embodiment)):
        log.warning("embodiment %s is not what its stored starts were drawn for: drawing others", embodiment.name)
        return []
    return list(tasks.get(task, ()))


def store_states(embodiment: Embodiment, axis: str, states: Sequence[InitialState], folder: Path = FOLDER) -> Path:
    """Write the test starts of one axis; the same starts give the same bytes."""
    content = {"embodiment": fingerprint(embodiment), "axis": axis, "states": [asdict(state) for state in states]}
    path = state_file(embodiment.name, axis, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(content, separators=(",", ":")).encode()
    write_atomically(path, gzip.compress(plain, 9, mtime=0))
    return path


def state_file(embodiment: str, axis: str, folder: Path = FOLDER) -> Path:
    """Where the starts of an axis are."""
    return folder / f"{embodiment}.{axis}.json.gz"


def fingerprint(embodiment: Embodiment) -> str:
    """sha256 (hex, 16 digits) of the set-up's own numbers."""
    return sha256(json.dumps(asdict(embodiment), sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=16)
def _content(path: Path) -> tuple[str | None, dict[str, list[InitialState]]]:
    if not path.is_file():
        return None, {}
    tasks: dict[str, list[InitialState]] = {}
    try:
        content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        for values in content["states"]:
            state = _state(values)
            tasks.setdefault(state.task, []).append(state)
        return str(content["embodiment"]), tasks
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise CorruptRecord(
            f"the stored starts cannot be read: {error}", where=str(path), do="install vlakit again"
        ) from error


def _state(values: dict[str, Any]) -> InitialState:
    content = values["content"]
    whole = {**asdict(Start.from_dict(content)), "variant": content["variant"]}  # tuples again, as drawn
    return InitialState(**{**values, "content": whole})
