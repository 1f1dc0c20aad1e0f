"""`vlakit data init SOURCE`, `vlakit data show SHARDS`, `vlakit data mixture=NAME`: looks at data, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlakit.cli.configuration import compose_config, to_plain, verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_format, emit
from vlakit.errors import ConfigError

PAGE = "data.html"
LOOKS = "vlakit data init SOURCE, vlakit data show SHARDS, or vlakit data mixture=NAME"


def main(overrides: Sequence[str]) -> None:
    """One of the three looks."""
    inner = [word for word in overrides if word.lstrip("+~").startswith("model.")]
    cfg = verb_config("data", [word for word in overrides if word not in inner])
    check_format(cfg["format"])
    looks = {"init": init, "show": show, "mixture": mixture}
    asked = [name for name in looks if cfg[name] is not None]
    if len(asked) != 1:
        what = f"{' and '.join(asked)} at once" if asked else "nothing to look at"
        raise ConfigError(what, where="command line", do=LOOKS)
    looks[asked[0]]({**cfg, "words": inner})


def init(cfg: Mapping[str, Any]) -> None:
    """Print what a dataset holds, and draft its spec."""
    from vlakit.data.drafting.draft import draft
    from vlakit.data.source import open_source, source_folder
    from vlakit.files import write_atomically

    out = None if cfg["out"] is None else Path(cfg["out"]).expanduser()
    if out is not None:
        _check_new(out)
    drafted = draft(open_source(source_folder(cfg["init"])), cfg["episodes"])
    undecided = [one.word for one in drafted.decisions]
    lines = drafted.lines()
    if out is None:
        lines += ["", drafted.yaml.rstrip()]
    else:
        write_atomically(out, drafted.yaml)
        lines += ["", f"drafted {out}: decide {', '.join(undecided)} there, then vlakit shards dataset={out}"]
    report = {
        "source": cfg["init"],
        **asdict(drafted.survey),
        "columns": [asdict(one) for one in drafted.columns],
        "motions": [{**asdict(one), "kind": one.kind} for one in drafted.motions],
        "problems": drafted.sampled.problems,
        "undecided": [asdict(one) for one in drafted.decisions],
        "draft": drafted.yaml,
        "out": None if out is None else str(out),
    }
    emit(report, "\n".join(lines), cfg["format"])


def show(cfg: Mapping[str, Any]) -> None:
    """Write the page of a shard folder, as the processor of a model sees it."""
    model = to_plain(compose_config("explain", [f"model={cfg['model']}", *cfg["words"]]).model)
    from vlakit.data.shards.reader import ShardFolder
    from vlakit.processing.augment import augmentation
    from vlakit.processing.processor import build_processor
    from vlakit.reports.page.data_page import write_data_page

    folder, out = ShardFolder.open(Path(cfg["show"]).expanduser()), Path(cfg["out"] or PAGE).expanduser()
    check_writable(out.parent).mkdir(parents=True, exist_ok=True)
    options = {"model": cfg["model"], "n_frames": cfg["frames"]}
    page = write_data_page(out, folder, build_processor(model["processor"]), augmentation(cfg["augment"]), **options)
    found = page.summary
    report = {
        "out": str(out),
        "dataset": folder.dataset,
        "frames": found.n_frames,
        "episodes": len(found.lengths),
        "instructions": len(found.instructions),
        "clipped": found.outside.tolist(),
        "furthest_lost": found.lost.tolist(),
        "mean_error": found.error.tolist(),
        "near_duplicates": [asdict(pair) for pair in page.duplicates],
    }
    clipped = ", ".join(f"{100 * share:.2f}" for share in found.outside)
    lines = [
        f"{folder.dataset}: {len(found.lengths):,} episodes, {found.n_frames:,} frames",
        f"clipped, per cent of each column: {clipped}",
        f"{len(found.instructions):,} instructions, {len(page.duplicates):,} pairs of them nearly alike",
        f"page: {out}",
    ]
    emit(report, "\n".join(lines), cfg["format"])


def mixture(cfg: Mapping[str, Any]) -> None:
    """Print the share of each dataset, and what follows from it."""
    from vlakit.compare.grids import Report
    from vlakit.compare.grids import text as text_of
    from vlakit.data.specs.spec import Mixture, load_mixture
    from vlakit.data.stream.shares import shares
    from vlakit.reports.mixtures import mixture_grid, mixture_notes, mixture_report

    asked = cfg["mixture"]
    chosen = load_mixture(asked) if isinstance(asked, str) else Mixture("of the command line", asked)
    found = shares(chosen, Path(cfg["root"]).expanduser(), cfg["counts"] or {}, cfg["samples"])
    notes = mixture_notes(chosen.name, found)
    text = text_of(Report([mixture_grid(chosen.name, found)], [], {}, notes))
    emit(mixture_report(chosen.name, found), text, cfg["format"])


def _check_new(out: Path) -> None:
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError("the spec is a YAML file", where=f"out={out}", do="out=my_robot.yaml")
    if out.exists():
        raise ConfigError("the file is there already", where=f"out={out}", do="name another file, or remove it")
    check_writable(out.parent).mkdir(parents=True, exist_ok=True)
