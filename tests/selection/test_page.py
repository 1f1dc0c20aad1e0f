"""The page holds all it shows: the map, thumbnails, curves, leads over random."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from selection.test_pool import SPEC, write_pool

from vlakit.data.rlds.source import RldsSource
from vlakit.errors import InvalidData
from vlakit.selection.curves import leads, mean_points, n_to_reach
from vlakit.selection.maps import DatasetMap
from vlakit.selection.page import write_page
from vlakit.selection.pool import Pool
from vlakit.selection.rounds import Round


def run_of(values: list[float], first: int = 0) -> list[Round]:
    rounds = []
    for number, value in enumerate(values):
        rounds.append(Round(number, list(range(first, first + 4 * (number + 1))), {"eval/success": value}, [], 0, 0.25))
    return rounds


RUNS = {
    "random": [run_of([0.1, 0.3, 0.4]), run_of([0.2, 0.3, 0.5], 1)],
    "bald": [run_of([0.1, 0.5, 0.6]), run_of([0.2, 0.4, 0.7], 1)],
}


def test_it_loads_nothing_and_shows_every_demonstration(tmp_path: Path) -> None:
    pool = Pool(RldsSource.open(write_pool(tmp_path / "pool")), SPEC)
    rng = np.random.default_rng(0)
    known = DatasetMap(np.arange(6), *rng.random((3, 6)))
    file = write_page(tmp_path / "page.html", RUNS, known, {2: "noise <b>"}, pool, n_pictures=4)
    text = file.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "<script" not in text
    assert text.count("<title>demonstration") == 6
    assert text.count("data:image/jpeg;base64") == 4
    assert "noise &lt;b&gt;" in text
    assert "AUROC" in text
    assert "bald, mean" in text
    assert "all labels" in text


def test_without_a_map_or_evaluations_there_is_still_a_page(tmp_path: Path) -> None:
    bare = {"random": [[Round(0, [1, 2], {}, [])]]}
    text = write_page(tmp_path / "page.html", bare).read_text()
    assert "Dataset map" not in text
    assert "Learning curves" not in text
    assert "rounds" in text


def test_the_lead_over_random_is_that_of_paired_seeds() -> None:
    found = leads(RUNS, "bald", "eval/success")
    assert [(lead.n, round(lead.mean, 6)) for lead in found] == [(4, 0.0), (8, 0.15), (12, 0.2)]
    assert all(lead.low <= lead.mean <= lead.high for lead in found)
    with pytest.raises(InvalidData, match="pair the seeds"):
        leads({"random": RUNS["random"], "bald": RUNS["bald"][::-1]}, "bald", "eval/success")
    with pytest.raises(InvalidData, match="1 seeds of bald"):
        leads({"random": RUNS["random"], "bald": RUNS["bald"][:1]}, "bald", "eval/success")


def test_demonstrations_needed_are_read_between_rounds() -> None:
    curve = mean_points(RUNS["random"], "eval/success")
    assert curve == [(4, pytest.approx(0.15)), (8, pytest.approx(0.3)), (12, pytest.approx(0.45))]
    assert n_to_reach(curve, 0.375) == pytest.approx(10)
    assert n_to_reach(curve, 0.1) == 4
    assert n_to_reach(curve, 0.9) is None
