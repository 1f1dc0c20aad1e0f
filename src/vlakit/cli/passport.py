"""`vlakit passport run=RUN`: a finished run as files that others can list, read and make again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_format, emit
from vlakit.errors import InvalidData, UnknownName


def main(overrides: Sequence[str]) -> None:
    """Gather, check, write; prints the files and what is not known."""
    cfg = verb_config("passport", overrides)
    check_format(cfg["format"])
    from vlakit.checkpoints.formats import LoadOptions
    from vlakit.reports.passport.files import Card, write_passport
    from vlakit.reports.passport.passport import describe

    card = Card(**cfg["card"])
    place = _located(cfg)
    out = check_writable(cfg["out"] or place / "passport")
    passport = describe(place, LoadOptions(base=cfg["base"], trusted=tuple(cfg["trusted"])), verify=cfg["verify"])
    files = write_passport(passport, card, out)
    rows = [e["success"] for e in passport["evaluations"]]
    report = {
        "name": passport["name"],
        "episodes": sum(row["episodes"] for row in rows),
        "success": {e["suite"]: e["success"]["success"] for e in passport["evaluations"]},
        "unknown": passport["unknown"],
        "files": [str(file) for file in files],
    }
    lines = [f"{e['suite']}: success {e['success']['success']:.3f}" for e in passport["evaluations"]]
    lines += [f"not known: {line}" for line in passport["unknown"]]
    emit(report, "\n".join([*lines, *(f"wrote {file}" for file in files)]), cfg["format"])


def _located(cfg: dict[str, Any]) -> Path:
    """The folder that run= means. Raises UnknownName, InvalidData."""
    from vlakit.cli.sweep import FINISHED, read_note
    from vlakit.reports.passport.passport import check_finished, recorded

    word = str(cfg["run"])
    place = Path(word).expanduser()
    if not place.exists():
        rows = recorded(cfg["tracking_uri"], word, cfg["experiment"])
        if not rows:
            remedy = "vlakit compare lists the recorded runs"
            raise UnknownName(f"no folder and no recorded run is called {word!r}", where=cfg["tracking_uri"], do=remedy)
        place = Path(check_finished(rows[-1]).tags.get("vlakit.output", "-"))
    if not place.is_dir():
        raise InvalidData("the run's folder is not here", where=str(place), do="run=FOLDER says where it is")
    status = read_note(place).get("status", FINISHED)
    if status != FINISHED:
        raise InvalidData(f"the run is {status}, not finished", where=word, do="finish it: train.py -m continue=SWEEP")
    return place.resolve()
