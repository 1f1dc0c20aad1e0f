"""A passport for others: the Hub's model card, made of facts of the passport or of what the user said (`Card`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlakit.compare.grids import Column, grid, markdown
from vlakit.errors import ConfigError
from vlakit.files import disk_full_as_error, write_atomically
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
            dataset_name=evaluation["suite"],
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
    training, checkpoint = passport["training"], _first_checkpoint(passport)
    parts = [f"---\n{front_matter(passport, card)}\n---\n\n# {card.name or passport['name']}", _success(passport)]
    if training:
        parts.append(_made(training))
    if checkpoint:
        parts.append(_chosen(checkpoint))
    parts.append(_evaluated(passport["evaluations"]))
    parts.append(
        f"## Make it again\n\n```bash\nvlakit reproduce passport={PASSPORT}\n```\n\nThe hashes of the data are "
        "compared first, then success from the same initial states, episode by episode."
    )
    if passport["unknown"]:
        parts.append("## What is not known\n\n" + "\n".join(f"- {line}" for line in passport["unknown"]))
    return "\n\n".join(parts) + "\n"


def _success(passport: Passport) -> str:
    lines = [
        {"suite": evaluation["suite"], **row}
        for evaluation in passport["evaluations"]
        for row in [evaluation["success"], *(evaluation["tasks"] if len(evaluation["tasks"]) > 1 else [])]
    ]
    columns = [
        Column("suite", lambda row: row["suite"]),
        Column("task", lambda row: row["task"]),
        Column("episodes", lambda row: row["episodes"]),
        Column("success, %", lambda row: _percent(row["success"])),
        Column("95 % interval", lambda row: f"{_percent(row['low'])} to {_percent(row['high'])}"),
        Column("credit", lambda row: f"{row['credit']:.3f}"),
        Column("steps", lambda row: f"{row['steps']:.1f}"),
    ]
    return f"## Success\n\n{markdown(grid('', columns, lines))}\n\nIntervals are Wilson's."


def _made(training: Mapping[str, Any]) -> str:
    config, weights, record = training["config"], training["weights"], training["record"]
    facts = {
        "experiment": training["name"],
        "strategy": config["strategy"]["_target_"],
        "started from": f"{weights['name']} (sha256 {weights['sha256'] or 'not known'})"
        if weights
        else "random weights",
        "datasets": ", ".join(f"{name} (shards {digest})" for name, digest in training["shards"].items()),
        "steps": config["trainer"]["max_steps"],
        "batch size": config["data"].get("batch_size"),
        "seed": training["seed"],
        "overrides": " ".join(f"`{word}`" for word in training["overrides"] or ()),
        "commit of vlakit": record.get("commit", "")
        + (", with uncommitted changes" if record.get("dirty") == "true" else ""),
        "MLflow run": training["mlflow_run_id"],
    }
    return "## How it was made\n\n" + _list(facts)


def _chosen(checkpoint: Mapping[str, Any]) -> str:
    rule = checkpoint.get("rule")
    chosen = "the state after the last step; no score chose it" if rule else ""
    if rule and rule["monitor"]:
        best = "highest" if rule["mode"] == "max" else "lowest"
        held_out = ", ".join(f"{key} {value}" for key, value in rule["held_out"].items() if value is not None)
        chosen = f"{best} {rule['monitor']} on held-out demonstrations ({held_out}); no evaluation episode chose it"
    facts = {
        "file": f"{checkpoint['name']} (sha256 {checkpoint['sha256']})",
        "step": checkpoint.get("step"),
        "chosen as": chosen,
        "parameters": f"{checkpoint['parameters']:,}" if "parameters" in checkpoint else None,
        "libraries": _versions(checkpoint.get("versions", {})),
    }
    return "## The checkpoint\n\n" + _list(facts)


def _evaluated(evaluations: Sequence[Mapping[str, Any]]) -> str:
    lines: list[str] = []
    for evaluation in evaluations:
        settings, gate = evaluation["settings"], evaluation["gate"] or {}
        passed = f"{gate['successes']} of {gate['tried']} replayed" if "successes" in gate else gate.get("skipped")
        facts = {
            "initial states": settings["states"],
            "control": ", ".join(f"{key} {value}" for key, value in settings["control"].items()),
            "rows of a batch": settings["slots"],
            "device": settings["policy"].get("device"),
            "replay gate": passed,
            "overridden": ", ".join(settings["policy"].get("overridden", ())),
            "versions": _versions(settings["versions"]),
        }
        lines.append(f"**{evaluation['suite']}**\n\n{_list(facts)}")
    return "## How it was evaluated\n\n" + "\n\n".join(lines)


def _list(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value not in (None, ""))


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


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
