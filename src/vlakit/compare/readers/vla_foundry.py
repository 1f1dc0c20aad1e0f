"""TRI's vla_foundry: SETTING/MODEL/TASK/rollouts/TIME/results.json; equal scenario_index, equal initial state.

Source: github.com/TRI-ML/vla_foundry, commit 515b045 (released rollouts).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlakit.compare.episodes import Episodes, Outcome, Start, columns, digest_of, outcome_of
from vlakit.compare.foreign import field_of, list_of, load_json, starts_with_keys, whole_of
from vlakit.compare.readers import Reader
from vlakit.errors import InvalidData

NAME = "results.json"
PATTERNS = (NAME, f"rollouts/*/{NAME}", f"*/rollouts/*/{NAME}")


def find(path: Path) -> list[Path]:
    """results.json of a model's folder, of one task's, or the file itself."""
    if path.name == NAME:
        return [path] if starts_with_keys(path, "evaluations") else []
    files = [file for pattern in PATTERNS for file in sorted(path.glob(pattern))]
    return files if files and starts_with_keys(files[0], "evaluations") else []


def read(path: Path, files: list[Path]) -> Episodes:
    """All tasks of one model. Raises InvalidData for pending rollouts and another layout, CorruptRecord."""
    contents = [file.read_bytes() for file in files]
    outcomes = [_outcome(r, f) for f, c in zip(files, contents, strict=True) for r in _evaluations(f, c)]
    starts, success, credit = columns(outcomes)
    model = _model_folder(files[0].resolve())
    return Episodes(model.name, path, starts, success, credit, digest_of(contents))


def _evaluations(file: Path, content: bytes) -> list[Any]:
    records = list_of(load_json(file, content), "evaluations", file)
    pending = sum(bool(field_of(record, "is_pending", file)) for record in records)
    if pending:
        raise InvalidData(
            f"{pending} of {len(records)} rollouts are pending", where=str(file), do="let them finish first"
        )
    return records


def _outcome(record: Any, file: Path) -> Outcome:
    success = outcome_of(field_of(record, "is_success", file), str(file))
    setting = _model_folder(file.resolve()).parent.name
    unit = f"scenario {whole_of(record, 'scenario_index', file):05d}"
    return Outcome(Start(setting, str(field_of(record, "skill_type", file)), unit), success, float(success))


def _model_folder(file: Path) -> Path:
    """MODEL of .../SETTING/MODEL/TASK/rollouts/TIME/results.json."""
    return file.parents[3] if file.parents[1].name == "rollouts" else file.parent


READER = Reader("vla_foundry", f"MODEL/TASK/rollouts/TIME/{NAME}", find, read)
