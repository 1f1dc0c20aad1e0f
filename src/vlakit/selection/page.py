"""The page of a selection: the dataset map as a scatter with thumbnails, and learning curves; it loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vlakit.compare.grids import Grid
from vlakit.errors import InvalidData
from vlakit.files import write_atomically
from vlakit.reports.page.html_page import Scale, jpeg_base64, render, scale_of
from vlakit.reports.page.html_table import Chart, Line, slot
from vlakit.schema import UInt8
from vlakit.selection.curves import Runs, leads, mean_points, metric_of, points
from vlakit.selection.maps import BUCKETS, DatasetMap, auroc, rank_of
from vlakit.selection.pool import Pool

SIDE = 64  # pixels of a thumbnail
COLOURS = {name: slot(place) for place, name in enumerate([*(name for name, _ in BUCKETS), "unknown"])}
QUALITY = 80


@dataclass(frozen=True)
class Dot:
    """A demonstration on the map: place in per cent, class of its bucket, whether it is an outlier, what it is."""

    x: float
    y: float
    kind: str
    outlier: bool
    says: str


@dataclass(frozen=True)
class Picture:
    """A first look as base64 JPEG, and what it is."""

    content: str
    caption: str
    kind: str


def write_page(
    file: Path,
    runs: Runs,
    known: DatasetMap | None = None,
    reasons: Mapping[int, str] | None = None,
    pool: Pool | None = None,
    *,
    n_pictures: int = 24,
) -> Path:
    """runs: acquisition -> its runs, one a seed. known: the map, with reasons of outliers and pictures of the pool."""
    axes = None if known is None else (scale_of([0.0, max(0.05, float(known.variability.max()))]), scale_of([0.0, 1.0]))
    dots = [] if known is None or axes is None else _dots(known, reasons or {}, *axes)
    pictures = [] if known is None or pool is None else _pictures(known, reasons or {}, pool, n_pictures)
    charts, slots = _charts(runs)
    text = render(
        "selection.html.j2",
        dots=dots,
        axes=axes,
        colours=COLOURS,
        pictures=pictures,
        charts=charts,
        slots=slots,
        grids=[_rounds_grid(runs), *_leads_grids(runs), *_auroc_grids(known, reasons)],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text)
    return file


def _dots(known: DatasetMap, reasons: Mapping[int, str], x: Scale, y: Scale) -> list[Dot]:
    """Outliers last, so that they lie on top."""
    order = sorted(range(len(known.ids)), key=lambda i: int(known.ids[i]) in reasons)
    dots = []
    for i in order:
        one, why = int(known.ids[i]), reasons.get(int(known.ids[i]))
        says = f"{_says(known, i)}{f', outlier: {why}' if why else ''}"
        place = x.at(float(known.variability[i])), 100 - y.at(float(known.confidence[i]))
        dots.append(Dot(*place, COLOURS[known.buckets[i]], one in reasons, says))
    return dots


def _says(known: DatasetMap, i: int) -> str:
    numbers = known.confidence[i], known.variability[i], known.correctness[i]
    return f"demonstration {known.ids[i]}: confidence %.2f, variability %.2f, correctness %.2f" % numbers


def _pictures(known: DatasetMap, reasons: Mapping[int, str], pool: Pool, n: int) -> list[Picture]:
    """Evenly over the order by confidence times variability: what is dropped first comes first."""
    order = np.argsort(rank_of(known, "conf_x_var"), kind="stable")
    chosen = [int(i) for i in order[np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).astype(int))]]
    camera = next(name for name, key in pool.spec.images.items() if key)
    looks = pool.first_looks([camera], [int(known.ids[i]) for i in chosen])
    pictures = []
    for i, look in zip(chosen, looks, strict=True):
        why = reasons.get(int(known.ids[i]))
        caption = f"{known.ids[i]}: {look.instruction}{f' ({why})' if why else ''}"
        pictures.append(Picture(_jpeg(look.image), caption, COLOURS[known.buckets[i]]))
    return pictures


def _jpeg(image: UInt8) -> str:
    return jpeg_base64(np.asarray(Image.fromarray(image).resize((SIDE, SIDE))), QUALITY)


def _charts(runs: Runs) -> tuple[list[Chart], dict[str, str]]:
    slots = {name: slot(place) for place, name in enumerate(runs)}
    try:
        metric = metric_of(runs)
    except InvalidData:
        return [], slots
    curves = {name: [points(run, metric) for run in several] for name, several in runs.items()}
    everything = [point for several in curves.values() for curve in several for point in curve]
    x, y = scale_of([0, *(n for n, _ in everything)], whole=True), scale_of([value for _, value in everything])
    lines = [_line(name, f"seed {i}", curve, x, y) for name, all_ in curves.items() for i, curve in enumerate(all_)]
    means = {name: mean_points(several, metric) for name, several in runs.items() if len(several) > 1}
    lines += [_line(name, "mean", curve, x, y, mean=True) for name, curve in means.items() if curve]
    return [Chart(f"{metric} over demonstrations", x, y, lines)], slots


def _line(name: str, which: str, curve: Sequence[tuple[int, float]], x: Scale, y: Scale, mean: bool = False) -> Line:
    places = [f"{10 * x.at(n):.0f} {1000 - 10 * y.at(value):.0f}" for n, value in curve]
    label = f"{name}, {which}: {curve[-1][1]:.4g} at {curve[-1][0]:,} demonstrations"
    return Line(name, label, f"M{'L'.join(places)}", "".join(f"M{place}h0" for place in places), mean)


def _rounds_grid(runs: Runs) -> Grid:
    rows = []
    for name, several in runs.items():
        for seed, run in enumerate(several):
            for one in run:
                share = "-" if one.outlier_share is None else f"{100 * one.outlier_share:.0f} %"
                success = one.metrics.get("eval/success")
                cells = [f"{len(one.labelled)}", share, "-" if success is None else f"{success:.3f}", f"{one.tied}"]
                rows.append([name, f"{seed}", *cells])
    return Grid("rounds", ["acquisition", "run", "labelled", "outliers", "success", "repeated features"], rows)


def _leads_grids(runs: Runs) -> list[Grid]:
    """Against random, where it ran with the same seeds, two or more."""
    others = [name for name in runs if name != "random" and len(runs[name]) == len(runs.get("random", ())) > 1]
    if not others:
        return []
    metric = metric_of(runs)
    rows = [
        [name, f"{lead.n}", f"{lead.mean:+.3f}", f"{lead.low:+.3f} to {lead.high:+.3f}"]
        for name in others
        for lead in leads(runs, name, metric)
    ]
    return [Grid(f"{metric} minus random's, seeds paired", ["acquisition", "labelled", "mean", "95 % band"], rows)]


def _auroc_grids(known: DatasetMap | None, reasons: Mapping[int, str] | None) -> list[Grid]:
    flags = [] if known is None or reasons is None else [int(one) in reasons for one in known.ids]
    if known is None or len(set(flags)) < 2:
        return []
    ranks = ["variability", "conf_x_var", "confidence"]
    ranks += [] if np.isnan(known.correctness).any() else ["correctness"]
    rows = [[f"low {by}", f"{auroc(-rank_of(known, by), flags):.3f}"] for by in ranks]
    return [Grid("does the map find the outliers", ["rank", "AUROC"], rows)]
