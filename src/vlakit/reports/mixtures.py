"""A mixture's shares as a table, beside those that the OpenVLA paper prints of its own (Table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlakit.compare.grids import Column, Grid, grid
from vlakit.data.specs.spec import load_mixture, load_spec
from vlakit.data.stream.shares import Counted, Shares
from vlakit.reports.tables.paper import tables

PRINTED_OF = "oxe_magic_soup_plus"  # the first two thirds of OpenVLA's pretraining
LATER = "oxe_magic_soup_plus_minus"


def printed() -> dict[str, str]:
    """Dataset -> per cent, as Table 3 prints it."""
    return {name: str(value) for name, value in tables()["table3"].items()}


def recounted() -> dict[str, float]:
    """Dataset -> per cent by weight times recorded transitions, over the total that fits the printed shares best.

    The printed ones add up to 94.9, so that their total is not the sum over the datasets that are listed.
    """
    shares = {name: float(value) for name, value in printed().items() if not value.startswith("<")}
    sizes = {
        name: weight * n_transitions
        for name, weight in load_mixture(PRINTED_OF).datasets.items()
        if (n_transitions := load_spec(name).published.num_transitions)
    }
    both = [name for name in sizes if name in shares]
    scale = sum(sizes[name] * shares[name] for name in both) / sum(sizes[name] ** 2 for name in both)
    return {name: scale * size for name, size in sizes.items()}


def mixture_grid(name: str, found: Shares) -> Grid:
    """A row a dataset."""
    paper = _of_paper(found)
    columns = [
        Column("name", lambda row: row.dataset),
        Column("weight", lambda row: row.weight, "{:.4g}".format),
        Column("steps", lambda row: row.transitions, "{:,}".format),
        Column("share %", _percent(found), "{:.2f}".format),
        Column("samples", found.expected, "{:,.0f}".format),
        Column("epochs", found.epochs, "{:.3f}".format),
        Column("hours", lambda row: row.hours, "{:,.1f}".format),
        Column("instructions", lambda row: row.instructions, "{:,}".format),
    ]
    if paper:
        columns += [
            Column("Table 3", lambda row: paper[row.dataset][0], quoted=True),
            Column("recounted", lambda row: paper[row.dataset][1], "{:.2f}".format),
        ]
    return grid(f"mixture {name}: {found.drawn:,.0f} samples", columns, found.rows)


def mixture_notes(name: str, found: Shares) -> list[str]:
    """What a reader of the table must know."""
    notes = ["instructions are counted where shards are; epochs: how often each transition comes"]
    if found.samples is None:
        notes.append("one epoch: the sum of weight times transitions, in which a dataset of weight 1 comes once")
    if found.uncounted:
        missing = ", ".join(found.uncounted)
        notes.append(f"nobody recorded how many transitions {missing} have: shares are of the others; give counts=")
    if _of_paper(found):
        notes.append(
            f"Table 3 prints the shares of {PRINTED_OF}, which add up to 94.9 %; recounted: by its weights and the"
            " recorded transitions, over the total that fits them best"
        )
    if name in (PRINTED_OF, LATER):
        gone = sorted(load_mixture(PRINTED_OF).datasets.keys() - load_mixture(LATER).datasets.keys())
        notes.append(
            f"OpenVLA trained two thirds on {PRINTED_OF}, then, without {' and '.join(gone)}, on {LATER}:"
            f" data.mixture={PRINTED_OF} data.later={{mixture: {LATER}, step: N}}"
        )
    return notes


def mixture_report(name: str, found: Shares) -> dict[str, Any]:
    """Plain values; shares as fractions."""
    paper = _of_paper(found)
    return {
        "mixture": name,
        "samples": found.drawn,
        "epoch": found.epoch,
        "uncounted": found.uncounted,
        "datasets": {row.dataset: _plain(row, found, paper) for row in found.rows},
        "notes": mixture_notes(name, found),
    }


def _plain(row: Counted, found: Shares, paper: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in ("weight", "transitions", "episodes", "instructions", "source")}
    own |= {"share": found.share(row), "samples": found.expected(row), "epochs": found.epochs(row), "hours": row.hours}
    if row.dataset in paper:
        own |= dict(zip(("table3_percent", "recounted_percent"), paper[row.dataset], strict=True))
    return own


def _percent(found: Shares) -> Any:
    def of(row: Counted) -> float | None:
        share = found.share(row)
        return None if share is None else 100 * share

    return of


def _of_paper(found: Shares) -> dict[str, tuple[str, float | None]]:
    """(printed, recounted) of each dataset, where the mixture is one of Table 3's datasets, most of them."""
    shares = printed()
    names = [row.dataset for row in found.rows]
    if not all(name in shares for name in names) or 2 * len(names) <= len(shares):
        return {}
    again = recounted()
    return {name: (shares[name], again.get(name)) for name in names}
