"""Shares of a mixture before training: by recorded counts or shards, as the paper prints them, and as drawn."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import complaint, report, says

from vlakit.data.specs.spec import load_mixture
from vlakit.data.stream.mixture import MixtureEntry, MixtureOrder
from vlakit.data.stream.shares import Shares, shares
from vlakit.reports.mixtures import printed, recounted

Capture = pytest.CaptureFixture[str]
PLUS, MINUS = "oxe_magic_soup_plus", "oxe_magic_soup_plus_minus"
DRAWS, BATCH = 100_000, 1_000
NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def minus() -> Shares:
    return shares(load_mixture(MINUS), NOWHERE, {})


def test_an_epoch_of_openvlas_last_third_is_the_one_its_code_counts(minus: Shares) -> None:
    """14,772,277 samples, and Bridge's share of them 14.46 %: facts of the released code and statistics."""
    assert round(minus.epoch) == 14_772_277
    found = {row.dataset: minus.share(row) for row in minus.rows}
    assert sum(share or 0 for share in found.values()) == pytest.approx(1)
    assert found["bridge_orig"] == pytest.approx(0.1446, abs=5e-5)
    assert found["fractal20220817_data"] == pytest.approx(0.2563, abs=5e-5)


def test_in_an_epoch_a_dataset_comes_as_often_as_its_weight_and_in_more_samples_in_proportion(minus: Shares) -> None:
    assert [minus.epochs(row) for row in minus.rows] == [pytest.approx(row.weight) for row in minus.rows]
    thrice = Shares(minus.rows, round(3 * minus.epoch))
    assert [thrice.epochs(row) for row in thrice.rows] == [pytest.approx(3 * row.weight) for row in thrice.rows]
    assert sum(thrice.expected(row) or 0 for row in thrice.rows) == pytest.approx(thrice.drawn)


def test_recorded_counts_and_weights_give_the_shares_that_table_3_prints() -> None:
    again = recounted()
    assert again.keys() == printed().keys() - {"droid", "language_table"}
    for name, percent in again.items():
        text = printed()[name]
        assert percent < 0.1 if text.startswith("<") else percent == pytest.approx(float(text), abs=0.1), name


def test_what_nobody_counted_is_named_and_a_given_count_brings_it_in(capsys: Capture) -> None:
    found = report(capsys, "data", f"mixture={PLUS}", "root=nowhere")
    assert found["uncounted"] == ["language_table", "droid"]
    assert found["datasets"]["droid"]["share"] is None
    assert any("droid" in note for note in found["notes"])
    given = report(capsys, "data", f"mixture={PLUS}", "counts={droid: 27000000, language_table: 7000000}")
    assert given["uncounted"] == []
    assert sum(one["share"] for one in given["datasets"].values()) == pytest.approx(1)
    assert given["datasets"]["droid"]["hours"] == pytest.approx(27_000_000 / 15 / 3600)
    assert given["datasets"]["droid"]["table3_percent"] == "10.0"


def test_shards_that_are_there_are_counted(bridge_shards: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(bridge_shards, tmp_path / "bridge_orig")
    found = report(capsys, "data", "mixture=bridge_rt_1", f"root={tmp_path}")["datasets"]
    counted = {name: found["bridge_orig"][name] for name in ("source", "transitions", "episodes", "instructions")}
    assert counted == {"source": "shards", "transitions": 160, "episodes": 20, "instructions": 4}
    assert found["bridge_orig"]["hours"] == pytest.approx(160 / 5 / 3600)
    assert (found["fractal20220817_data"]["source"], found["fractal20220817_data"]["transitions"]) == (
        "spec",
        3_786_400,
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["mixture={bridge_orgi: 1}"], ["bridge_orgi", "did you mean bridge_orig?"]),
        (["mixture={bridge_orig: -1}"], ["bridge_orig", "above 0"]),
        (["mixture=oxe_magic_soup_pluss"], ["did you mean oxe_magic_soup_plus"]),
        (["mixture=bridge", "counts={kuka: 3}"], ["no dataset 'kuka'", "bridge_orig"]),
        (["mixture=droid"], ["no dataset of the mixture has been counted", "counts={NAME"]),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(words: list[str], parts: list[str], capsys: Capture) -> None:
    says(complaint(capsys, "data", *words, "root=nowhere"), *parts)


@pytest.mark.parametrize("seed", [0, 7])
def test_in_100_000_draws_every_share_comes_out_within_three_sigma(minus: Shares, seed: int) -> None:
    entries = [MixtureEntry(row.dataset, ((0, row.transitions or 0),), row.weight) for row in minus.rows]
    order = MixtureOrder(entries, seed=seed, batch_size=BATCH)
    chosen = np.concatenate([order.choices(batch) for batch in range(DRAWS // BATCH)])
    counts = np.bincount(chosen, minlength=len(entries))
    expected = np.array([minus.share(row) for row in minus.rows])
    sigma = np.sqrt(expected * (1 - expected) / DRAWS)
    assert counts.sum() == DRAWS
    assert (np.abs(counts / DRAWS - expected) <= 3 * sigma).all()


def test_the_draws_are_those_of_the_batches_that_training_reads() -> None:
    entries = [MixtureEntry("a", ((0, 30), (1, 10)), 1.0), MixtureEntry("b", ((0, 50),), 2.0)]
    order = MixtureOrder(entries, seed=7, batch_size=500)
    refs = [ref.dataset for batch in range(20) for ref in order.next_batch()]
    again = [entries[chosen].dataset for batch in range(20) for chosen in order.choices(batch).tolist()]
    assert refs == again
    share = refs.count("b") / len(refs)
    assert abs(share - 100 / 140) <= 3 * np.sqrt(100 / 140 * 40 / 140 / len(refs))
