"""A passport for others: the Hub's model card and .eval_results, and a row of vla-eval's leaderboard.

Every sentence is made of facts of the passport or of what the user said of the model (`Card`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from vlakit.errors import ConfigError
from vlakit.files import disk_full_as_error, write_atomically
from vlakit.reports.passport.passport import PASSPORT

REGISTERED = {"libero": ("libero_spatial", "libero_object", "libero_goal", "libero_10")}  # whose mean is ranked
SIZES = ((1e9, "B"), (1e6, "M"), (1e3, "K"))
Passport = Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """What no run knows, each None where nobody says it; see conf/passport.yaml. Raises ConfigError."""

    name: str | None = None
    license: str | None = None
    base_model: str | None = None
    benchmark: str | None = None
    url: str | None = None
    key: str | None = None
    curator: str = "human"
    paper: str | None = None
    weight_type: str | None = None

    def __post_init__(self) -> None:
        checks = {
            "curator": (r"@[\w-]+|human", "@handle, or human"),
            "benchmark": (r"[\w.-]+/[\w.-]+", "ORGANISATION/DATASET, as on the Hub"),
            "weight_type": ("shared|finetuned", "shared or finetuned"),
            "url": (r"https?://\S+", "a URL"),
            "paper": (r"https?://\S+", "a URL"),
        }
        for field, (pattern, what) in checks.items():
            value = getattr(self, field)
            if value is not None and not re.fullmatch(pattern, str(value)):
                raise ConfigError(f"card.{field}={value}", where="command line", do=f"give {what}")


def write_passport(passport: dict[str, Any], card: Card, out: Path) -> list[Path]:
    """Write all files; what cannot be said is added to the passport's unknown. Returns the files."""
    rows = leaderboard_rows(passport, card, date.today())
    subjects = [e for e in passport["evaluations"] if "checkpoint" in e]
    if not subjects:
        passport["unknown"].append("leaderboards: a scripted control is no model, so that it has no place in them")
    elif not rows:
        passport["unknown"].append("leaderboard: what the policy was trained on is not known; card.weight_type says it")
    if card.license is None:
        passport["unknown"].append("license: card.license says it")
    files = {PASSPORT: json.dumps(passport, indent=1, ensure_ascii=False) + "\n", "README.md": readme(passport, card)}
    for evaluation in subjects:
        files[f".eval_results/{evaluation['suite']}.yaml"] = _yaml(eval_results(evaluation, card))
    if rows:
        board = {"last_updated": rows[0]["date_added"], "results": rows}
        files["leaderboard.json"] = json.dumps(board, indent=2, ensure_ascii=False) + "\n"
    with disk_full_as_error(out):
        for name, content in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out / name, content)
    return [out / name for name in files]


def eval_results(evaluation: Mapping[str, Any], card: Card) -> list[dict[str, Any]]:
    """Entries of a .eval_results/*.yaml: success in percent, pooled and task by task.

    dataset.id must be a Hub dataset that is registered as a benchmark before the Hub lists them; without
    card.benchmark it is the suite's own name. Source: huggingface.co/docs/hub/eval-results.
    """
    pooled, tasks = evaluation["success"], evaluation["tasks"]
    rows = [(evaluation["suite"], pooled), *((row["task"], row) for row in tasks if len(tasks) > 1)]
    entries: list[dict[str, Any]] = []
    for task, row in rows:
        entry: dict[str, Any] = {
            "dataset": {"id": card.benchmark or evaluation["suite"], "task_id": task},
            "value": _percent(row["success"]),
            "notes": f"success in percent, {_said(row)}; initial states {evaluation['settings']['states']}",
        }
        entries.append(entry | ({"source": {"url": card.url, "name": "vlakit passport"}} if card.url else {}))
    return entries


def leaderboard_rows(passport: Passport, card: Card, today: date) -> list[dict[str, Any]]:
    """One row a benchmark; none for controls, and none where it is not known what the policy was trained on.

    overall_score stays null unless all suites that the leaderboard averages are there. Source:
    github.com/allenai/vla-evaluation-harness @ e1ee9ad, leaderboard/data/leaderboard.schema.json and benchmarks.json.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for evaluation in passport["evaluations"]:
        if "checkpoint" in evaluation:
            known = next((name for name, suites in REGISTERED.items() if evaluation["suite"] in suites), None)
            groups.setdefault(known or evaluation["suite"], []).append(evaluation)
    rows = [_row(name, groups[name], passport, card) for name in sorted(groups)]
    return [{**row, "date_added": today.isoformat()} for row in rows if row["weight_type"] is not None]


def _row(benchmark: str, group: Sequence[Mapping[str, Any]], passport: Passport, card: Card) -> dict[str, Any]:
    name, checkpoint = card.name or passport["name"], group[0]["checkpoint"]
    scores = {e["suite"]: round(100 * e["success"]["success"], 1) for e in group}
    wanted = REGISTERED.get(benchmark, ())
    whole = wanted and set(wanted) <= scores.keys()
    notes = [f"{e['suite']}: {_said(e['success'])}" for e in group]
    if not wanted:
        notes.append("no benchmark of the leaderboard's registry")
    trained, seen = set(checkpoint.get("datasets", ())), {e["settings"]["dataset"] for e in group}
    return {
        "model": card.key or re.sub(r"[^\w]+", "-", name).strip("-"),
        "display_name": name,
        "name_in_paper": None,
        "benchmark": benchmark,
        "overall_score": round(sum(scores[suite] for suite in wanted) / len(wanted), 1) if whole else None,
        "suite_scores": scores,
        "task_scores": {} if wanted else {r["task"]: round(100 * r["success"], 1) for e in group for r in e["tasks"]},
        "reported_paper": None,
        "reported_table": None,
        "curated_by": card.curator,
        "notes": "; ".join(notes),
        "params": _size(checkpoint.get("parameters")),
        "model_paper": card.paper,
        "weight_type": card.weight_type or _weight_type(trained, seen),
    }


def _weight_type(trained: set[str], seen: set[str]) -> str | None:
    """What was trained on this benchmark's data alone is fine-tuned to it; None where the training is not known."""
    if not trained:
        return None
    return "finetuned" if trained <= seen else "shared"


def front_matter(passport: Passport, card: Card) -> dict[str, Any]:
    """The card's metadata. Source: huggingface.co/docs/hub/model-cards, with results as its model-index."""
    checkpoint = _first_checkpoint(passport)
    results = [
        {
            "task": {"type": "robotics"},
            "dataset": {"type": card.benchmark or e["suite"], "name": e["suite"]},
            "metrics": [
                {"type": "success_rate", "name": "success in percent", "value": _percent(e["success"]["success"])}
            ],
        }
        for e in passport["evaluations"]
    ]
    name = card.name or passport["name"]
    suites = [e["suite"] for e in passport["evaluations"]]
    found = {
        "library_name": "vlakit",
        "pipeline_tag": "robotics",
        "license": card.license,
        "base_model": card.base_model or _base(passport),
        "datasets": checkpoint.get("datasets"),
        "tags": ["robotics", "vision-language-action", *filter(None, [checkpoint.get("strategy")]), *suites],
        "model-index": [{"name": name, "results": results}],
    }
    return {key: value for key, value in found.items() if value}


def readme(passport: Passport, card: Card) -> str:
    """The model card: what was measured first, how it was made, how to make it again, what is not known."""
    training, checkpoint = passport["training"], _first_checkpoint(passport)
    parts = [f"---\n{_yaml(front_matter(passport, card))}---\n\n# {card.name or passport['name']}", _success(passport)]
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
        "| suite | task | episodes | success, % | 95 % interval | credit | steps |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for evaluation in passport["evaluations"]:
        tasks = evaluation["tasks"] if len(evaluation["tasks"]) > 1 else []
        for row in [evaluation["success"], *tasks]:
            lines.append(
                f"| {evaluation['suite']} | {row['task']} | {row['episodes']} | {_percent(row['success'])} | "
                f"{_percent(row['low'])} to {_percent(row['high'])} | {row['credit']:.3f} | {row['steps']:.1f} |"
            )
    return "## Success\n\n" + "\n".join(lines) + "\n\nIntervals are Wilson's."


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


def _said(row: Mapping[str, Any]) -> str:
    return f"n = {row['episodes']}, 95 % Wilson interval {_percent(row['low'])} to {_percent(row['high'])}"


def _percent(fraction: float) -> float:
    return round(100 * fraction, 2)


def _size(parameters: int | None) -> str | None:
    if parameters is None:
        return None
    return next((f"{parameters / size:.3g}{unit}" for size, unit in SIZES if parameters >= size), str(parameters))


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


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
