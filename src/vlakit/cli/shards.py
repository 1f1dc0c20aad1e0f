"""`vlakit shards dataset=bridge_orig source=DIR out=DIR`, or append=DIR; `vlakit shards verify=DIR`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_format, emit
from vlakit.cli.progress import progress_bar
from vlakit.errors import ConfigError

OPTIONS = ("val_fraction", "image_size", "max_frames_per_shard", "max_bytes_per_shard", "on_error", "max_errors")
log = logging.getLogger(__name__)


def main(overrides: Sequence[str]) -> None:
    """Convert, or verify; verification that finds something exits with 1."""
    cfg = verb_config("shards", overrides)
    check_format(cfg["format"])
    if cfg["verify"] is not None:
        verify_shards(Path(cfg["verify"]), cfg["format"])
        return
    if cfg["dataset"] is None or cfg["source"] is None:
        raise ConfigError(
            "dataset and source must be given",
            where="command line",
            do="vlakit shards dataset=bridge_orig source=DIR out=DIR",
        )
    from vlakit.data.shards.append import append
    from vlakit.data.shards.convert import convert
    from vlakit.data.shards.reader import ShardFolder
    from vlakit.data.source import source_folder
    from vlakit.data.specs.spec import load_spec
    from vlakit.processing.text import words

    spec = load_spec(cfg["dataset"])
    out = check_writable(cfg["append"] or cfg["out"] or Path("data") / spec.name)
    source, options = source_folder(cfg["source"]), {name: cfg[name] for name in OPTIONS}
    with progress_bar("episodes") as progress:
        if cfg["append"] is not None:
            _check_alone(overrides)
            index = append(source, out, spec, workers=cfg["workers"], progress=progress)
        else:
            cameras = tuple(cfg["cameras"])
            index = convert(source, out, spec, cameras=cameras, workers=cfg["workers"], progress=progress, **options)
    unknown = sorted({word for text in ShardFolder.open(out).instructions() for word in words().unknown(text)})
    if unknown:
        log.warning("words that the tokenizer words (model=tiny) does not know: %s", ", ".join(unknown[:20]))
    counts = index.counts()
    report = {"out": str(out), "dataset": spec.name, "splits": counts, "skipped": dict(index.skipped)}
    report["notes"] = list(index.notes)
    lines = [
        f"{split}: {c['episodes']:,} episodes, {c['frames']:,} frames in {c['shards']:,} shards"
        for split, c in counts.items()
    ]
    lines += [f"skipped: {n:,} episodes ({why})" for why, n in index.skipped.items()]
    lines += [f"note: {note}" for note in index.notes]
    emit(report, "\n".join([*lines, f"shards and statistics in {out}"]), cfg["format"])


def _check_alone(overrides: Sequence[str]) -> None:
    """Raise ConfigError for words that append= decides."""
    decided = [word for word in overrides if word.partition("=")[0] in ("out", "cameras", *OPTIONS)]
    if decided:
        what = f"{decided[0]} beside append="
        raise ConfigError(what, where="command line", do="leave it out: shards are added as the folder was made")


def verify_shards(folder: Path, output_format: str) -> None:
    """Print what is wrong with which file; exit 1 when anything is."""
    from vlakit.data.shards.verify import verify

    problems = verify(folder)
    verdict = f"{folder}: {len(problems)} problems" if problems else f"{folder}: no problem found"
    emit({"folder": str(folder), "problems": problems}, "\n".join([*problems, verdict]), output_format)
    if problems:
        sys.exit(1)
