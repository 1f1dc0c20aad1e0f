"""What the pages take from the repository when they are built: the committed results, and each verb's keys."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from vlakit.cli.app import VERBS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments/table1_finetuning"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill `<!-- leaderboard -->` and `<!-- verbs -->`; a page without them stays as it is."""
    for mark, section in {"<!-- leaderboard -->": leaderboard, "<!-- verbs -->": verbs}.items():
        if mark in markdown:
            markdown = markdown.replace(mark, section())
    return markdown


def leaderboard() -> str:
    """Table 1 in miniature, best first, from the committed results and runs."""
    commits: dict[str, set[str]] = {}
    for run in _rows(RESULTS / "runs/runs.csv"):
        commits.setdefault(run["experiment"], set()).add(f"`{run['commit'][:7]}`")
    lines = [
        "| strategy | success (95 %) | trainings x starts | trained | peak memory | commit |",
        "|---|---|--:|--:|--:|---|",
    ]
    for row in sorted(_rows(RESULTS / "results.csv"), key=lambda row: -float(row["success_fraction"])):
        success, low, high = (float(row[f"success_{end}fraction"]) for end in ("", "low_", "high_"))
        trainings = int(row["seeds"])
        lines.append(
            f"| {row['row'].replace('_', ' ')} | **{success:.3f}** ({low:.3f} to {high:.3f}) "
            f"| {trainings} x {int(row['n_episodes']) // trainings} | {float(row['params/trainable_M']):.2f} M "
            f"| {float(row['memory/peak_GB']):.2f} GB | {', '.join(sorted(commits[row['row']]))} |"
        )
    return "\n".join(lines)


def verbs() -> str:
    """Heading, sentence and commented keys of every verb, as its file in conf/ says them."""
    keys = {verb: (ROOT / f"conf/{verb}.yaml").read_text(encoding="utf-8").strip() for verb in VERBS}
    says = {verb: f"{what[:1].upper()}{what[1:]}." for verb, what in VERBS.items()}
    return "\n\n".join(f"## {verb}\n\n{says[verb]}\n\n```yaml\n{keys[verb]}\n```" for verb in VERBS)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
