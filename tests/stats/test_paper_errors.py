"""The +- of the OpenVLA paper, from its counts: every table that prints one and whose counts suffice."""

from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pytest
import yaml

from vlakit.errors import InvalidData
from vlakit.stats.intervals import half_credits_behind, standard_error, standard_error_of_sum


@cache
def paper() -> dict[str, Any]:
    return yaml.safe_load(resources.files("vlakit").joinpath("assets/paper_tables.yaml").read_text(encoding="utf-8"))


def rows_of_ten(table: str, columns: list[str], printed: dict[str, Any]) -> list[tuple[str, float, int, float, float]]:
    """(name, sum of credits, rollouts, printed percent, printed error) of a table of successes of 10."""
    counts = np.array(paper()[table]["rows"], float)
    return [(f"{table} {c}", counts[:, i].sum(), 10 * len(counts), *printed[c]) for i, c in enumerate(columns)]


def rows() -> list[tuple[str, float, int, float, float]]:
    found = []
    for table in ("table1", "table2"):
        found += [
            (f"{table} {n}", r["success"], r["trials"], r["printed"], r["se"])
            for n, r in paper()[table]["rows"].items()
        ]
    found += rows_of_ten("table11", ["bf16", "int8", "int4"], paper()["table11"]["printed"])
    found += rows_of_ten("table9", paper()["table9"]["methods"], paper()["table9"]["printed"])
    for table, each in (("table4", 10), ("table6", 5)):
        counts = np.array(list(paper()[table]["rows"].values()), float)
        for i, method in enumerate(paper()[table]["methods"]):
            found.append(
                (f"{table} {method}", counts[:, i].sum(), each * len(counts), *paper()[table]["printed"][method])
            )
    return found + table7()


def table7() -> list[tuple[str, float, int, float, float]]:
    table, found = paper()["table7"], []
    every = {**table["rows"], "wipe_id": table["wipe_id"], "wipe_ood": table["wipe_ood"]}
    for i, method in enumerate(table["methods"]):
        for name, wipe in (("printed_tabletop", False), ("printed_wipe", True)):
            cells = [cell for key, cell in every.items() if key.startswith("wipe") == wipe]
            total = sum(round(2 * cell["trials"] * cell["percent"][i] / 100) / 2 for cell in cells)
            shown = table[name]
            found.append((f"{name} {method}", total, shown["trials"], shown["mean"][i], shown["se"][i]))
    return found


@pytest.mark.parametrize(
    ("name", "success", "n", "percent", "error"), rows(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_the_sample_standard_error_repeats_the_printed_one(
    name: str, success: float, n: int, percent: float, error: float
) -> None:
    assert 100 * success / n == pytest.approx(percent, abs=0.0501)
    assert half_credits_behind(success, n, error), "no number of half credits gives the printed error"


def test_without_half_credits_a_binomial_error_would_be_larger_than_the_papers() -> None:
    row = paper()["table1"]["rows"]["full"]
    assert 100 * standard_error_of_sum(row["success"], row["trials"]) == pytest.approx(8.1, abs=0.05)
    assert row["se"] == 7.2


@pytest.mark.parametrize("row", ["diffusion_policy", "octo", "openvla_lora_r32"])
def test_liberos_error_is_binomial_over_all_rollouts_pooled(row: str) -> None:
    table = paper()["table12"]
    n = table["rollouts_per_suite"]
    for mean, error in zip(table["rows"][row]["mean"], table["rows"][row]["se"], strict=True):
        found = 100 * standard_error_of_sum(round(n * mean / 100), n)
        assert found == pytest.approx(error, abs=0.055)  # Octo's 1.053 is printed as 1.0


def test_the_error_of_a_sum_is_that_of_the_credits() -> None:
    credits_ = [1, 1, 1, 0.5, 0.5, 0, 0]
    assert standard_error_of_sum(4, 7, 2) == pytest.approx(standard_error(credits_))
    for success, n, halves in ((4, 7, 1), (1, 1, 2), (0.5, 7, 2), (7, 7, -2)):
        with pytest.raises(InvalidData):
            standard_error_of_sum(success, n, halves)


def test_no_half_credits_explain_an_impossible_error() -> None:
    assert half_credits_behind(23, 33, 9.5) == []
    assert half_credits_behind(23, 33, 8.1) == [0]
