"""A passport for others: the Hub's model card, made of facts of the passport or of what the user said (`Card`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from vlakit.compare.grids import Column, grid, markdown
from vlakit.errors import ConfigError
from vlakit.evaluation.starts import title_of
from vlakit.files import disk_full_as_error, write_atomically
from vlakit.reports.page.html_page import render
from vlakit.reports.passport.passport import PASSPORT

Passport = Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """What no run knows, each None where nobody says it; see conf/passport.yaml. Raises ConfigError."""

    name: str | None = None
    license: str | None = None
    base_model: str | None = None
    benchmark: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        checks = {
            "benchmark": (r"[\w.-]+/[\w.-]+", "ORGANISATION/DATASET, as on the Hub"),
            "url": (r"https?://\S+", "a URL"),
        }
        for field, (pattern, what) in checks.items():
            value = getattr(self, field)
            if value is not None and not re.fullmatch(pattern, str(value)):
                raise ConfigError(f"card.{field}={value}", where="command line", do=f"give {what}")


def write_passport(passport: dict[str, Any], card: Card, out: Path) -> list[Path]:
    """Write the passport and its card; what cannot be said is added to the passport's unknown. Returns the files."""
    if card.license is None:
        passport["unknown"].append("license: card.license says it")
    files = {PASSPORT: json.dumps(passport, indent=1, ensure_ascii=False) + "\n", "README.md": readme(passport, card)}
    with disk_full_as_error(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(out / name, content)
    return [out / name for name in files]


def front_matter(passport: Passport, card: Card) -> str:
    """The card's metadata as YAML, results as its model-index. Source: huggingface.co/docs/hub/model-cards."""
    from huggingface_hub import EvalResult, ModelCardData

    checkpoint, evaluations = _first_checkpoint(passport), passport["evaluations"]
    results = [
        EvalResult(
            task_type="robotics",
            dataset_type=card.benchmark or evaluation["suite"],
            dataset_name=_title(evaluation),
            metric_type="success_rate",
            metric_name="success in percent",
            metric_value=_percent(evaluation["success"]["success"]),
            source_name="vlakit passport" if card.url else None,
            source_url=card.url,
        )
        for evaluation in evaluations
    ]
    about = [*filter(None, [checkpoint.get("strategy")]), *(evaluation["suite"] for evaluation in evaluations)]
    return ModelCardData(
        library_name="vlakit",
        pipeline_tag="robotics",
        license=card.license,
        base_model=card.base_model or _base(passport),
        datasets=checkpoint.get("datasets") or None,
        tags=["robotics", "vision-language-action", *about],
        model_name=card.name or passport["name"],
        eval_results=results,
    ).to_yaml()


def readme(passport: Passport, card: Card) -> str:
    """The model card: what was measured first, how it was made, how to make it again, what is not known."""
    page = render(
        "card.md.j2",
        front=front_matter(passport, card),
        name=card.name or passport["name"],
        success=_success(passport["evaluations"]),
        training=passport["training"],
        checkpoint=_first_checkpoint(passport),
        evaluations=passport["evaluations"],
        unknown=passport["unknown"],
        file=PASSPORT,
    )
    return page.rstrip() + "\n"


def _success(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """A line a suite, and a line a task where there are several."""
    lines = [
        {"suite": _title(evaluation), **row}
        for evaluation in evaluations
        for row in [evaluation["success"], *(evaluation["tasks"] if len(evaluation["tasks"]) > 1 else [])]
    ]
    columns = [
        *(Column(name, itemgetter(name)) for name in ("suite", "task", "episodes")),
        Column("success, %", lambda row: _percent(row["success"])),
        Column("95 % interval", lambda row: f"{_percent(row['low'])} to {_percent(row['high'])}"),
        Column("credit", itemgetter("credit"), "{:.3f}".format),
        Column("steps", itemgetter("steps"), "{:.1f}".format),
    ]
    return markdown(grid("", columns, lines))


def _title(evaluation: Mapping[str, Any]) -> str:
    return title_of(evaluation["suite"], evaluation["settings"].get("starts", "test"))


def _percent(fraction: float) -> float:
    return round(100 * fraction, 2)


def _first_checkpoint(passport: Passport) -> Mapping[str, Any]:
    return next((e["checkpoint"] for e in passport["evaluations"] if "checkpoint" in e), {})


def _base(passport: Passport) -> str | None:
    """The file's name, or its run's where the file is called as every run's is; None: not known."""
    weights = (passport["training"] or {}).get("weights")
    if weights is None:
        return None
    path = Path(weights["name"])
    if path.stem in {"last", "best"}:
        return None if path.parent.name.startswith("<") else path.parent.name  # a passport's word for a folder
    return path.stem if path.suffix == ".ckpt" else path.name
