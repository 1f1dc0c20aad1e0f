"""vlakit's own evaluations: episodes.jsonl beside evaluation.json, there or in one folder below."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vlakit.compare.episodes import Episodes, Outcome, Start, columns, digest_of, outcome_of
from vlakit.compare.readers import Reader
from vlakit.compare.records import EPISODES, HEADER, read_header
from vlakit.errors import CorruptRecord, InvalidData

PICKED = {"experiment", "debug", "hparams_search", "ckpt_path", "name", "seed"}  # words that name no other training
ASIDE = ("paths.", "logger", "callbacks", "evaluate.", "trainer.enable", "hydra.", "data.root", "model.processor.token")
NEEDED = ("suite", "task", "initial_state", "seed", "success", "credit")


def find(path: Path) -> list[Path]:
    """The evaluation at a folder, or those below a run's folder."""
    for file in (path / EPISODES, path / HEADER):
        if file.is_file():
            return [path / EPISODES]
    return sorted(path.rglob(EPISODES)) if path.is_dir() else []


def read(path: Path, files: list[Path]) -> Episodes:
    """Its episodes. Raises InvalidData where a run has several evaluations or none finished, CorruptRecord."""
    if len(files) > 1:
        folders = ", ".join(str(file.parent.relative_to(path)) for file in files[:6])
        raise InvalidData(f"{len(files)} evaluations in this run", where=str(path), do=f"name one of: {folders}")
    file = files[0]
    header = read_header(file.parent)
    content = file.read_bytes() if file.is_file() else b""
    records = [_record(line, i, file) for i, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1)]
    starts, success, credit = columns(_outcome(record, file) for record in records)
    name, seed = _training(path.resolve())
    n_errors = sum(record.get("error") is not None for record in records)
    notes = (
        [f"{n_errors} of {len(records)} episodes of {name} ended in an error and count as failed"] if n_errors else []
    )
    if "starts" in header["settings"]:
        notes.append(f"{name}: from {header['settings']['starts']} starts, not those that the suite's numbers are of")
    if "summary" not in header:
        notes.append(f"{name}: the evaluation did not end, {len(records)} episodes are there")
    return Episodes(
        run=name,
        source=path,
        starts=starts,
        success=success,
        credit=credit,
        digest=digest_of([content]),
        seed=seed,
        versions=_versions(records, file),
        states=str(header["settings"].get("states", "")),
        notes=notes,
    )


def _record(line: bytes, number: int, file: Path) -> dict[str, Any]:
    """One record without its actions, which are most of the text and decide nothing here."""
    begin = line.find(b'"actions": [[')
    end = line.find(b"]]", begin)
    if begin >= 0 and end >= 0:
        line = line[:begin] + b'"actions": []' + line[end + 2 :]
    try:
        record = json.loads(line)
        missing = [key for key in NEEDED if key not in record]
        if not missing and isinstance(record["credit"], int | float) and isinstance(record.get("versions", {}), dict):
            return record
        why = f"no {', '.join(missing)}" if missing else "a credit or versions of another kind"
    except (ValueError, TypeError) as error:
        why = str(error)
    raise CorruptRecord(f"line {number} is no episode: {why}", where=str(file), do="evaluate that episode again")


def _outcome(record: dict[str, Any], file: Path) -> Outcome:
    start = Start(str(record["suite"]), str(record["task"]), f"{record['initial_state']} seed {record['seed']}")
    return Outcome(start, outcome_of(record["success"], str(file)), float(record["credit"]))


def _versions(records: list[dict[str, Any]], file: Path) -> dict[str, str]:
    sets = {json.dumps(record.get("versions", {}), sort_keys=True) for record in records}
    if len(sets) > 1:
        raise InvalidData(
            f"episodes of {len(sets)} sets of versions in one evaluation",
            where=str(file),
            do="evaluate anew: a renderer or physics engine changed under way",
        )
    return {key: str(value) for key, value in json.loads(sets.pop() if sets else "{}").items()}


def _training(path: Path) -> tuple[str, str | None]:
    """Name and seed of the training that RUN/evaluation/SUITE belongs to; else the run's folder, or this one."""
    for folder in (path, *list(path.parents)[:3]):
        config = folder / ".hydra" / "config.yaml"
        if config.is_file():
            top = dict(re.findall(r"^(name|seed): *(\S+)", config.read_text(encoding="utf-8"), re.MULTILINE))
            return _named(top.get("name", folder.name), folder), top.get("seed")
    run = path.parents[1] if path.parent.name == "evaluation" else path.parent if path.name == "evaluation" else path
    seed = re.search(r"[\[,]seed=(\d+)", run.name)
    return run.name, seed.group(1) if seed else None


def _named(name: str, folder: Path) -> str:
    """With what was changed on the command line, so that repetitions alone share a name; of weights the last part."""
    file = folder / ".hydra" / "overrides.yaml"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    words = [line.removeprefix("- ").strip("'\"").lstrip("+~") for line in lines if line.startswith("- ")]
    chosen = [word for word in words if word.partition("=")[0] not in PICKED and not word.startswith(ASIDE)]
    changed = [f"model.weights={Path(w).name}" if w.startswith("model.weights=") else w for w in chosen]
    return f"{name}[{','.join(changed)}]" if changed else name


READER = Reader("vlakit", f"{EPISODES} and {HEADER}", find, read)
