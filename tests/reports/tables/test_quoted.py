"""The paper's own tables analysed again: every +- that can be reproduced is, and Holm leaves what it leaves."""

from math import sqrt

import pytest

from vlakit.compare.pairs import Settings
from vlakit.compare.versus import ALL
from vlakit.errors import UnknownName
from vlakit.reports.tables.paper import paper_pairs, paper_rows
from vlakit.reports.tables.quoted import judge_quoted, quoted
from vlakit.stats.intervals import wilson


@pytest.mark.parametrize("table", ["table1", "table2", "table4", "table6", "table7", "table9", "table11"])
def test_the_sample_standard_error_gives_every_printed_one_on_real_robots(table: str) -> None:
    rows = [row for scope in quoted([table]).values() for row in scope.values()]
    assert len(rows) >= 3
    assert all(row.reproduced for row in rows)
    assert all(row.interval[0] < row.rate < row.interval[1] for row in rows)


def test_liberos_errors_are_binomial_and_its_averages_are_not() -> None:
    scopes = quoted(["table12"])
    spatial = scopes["libero_spatial"]["openvla_lora_r32"]
    assert spatial.se == pytest.approx(sqrt(0.847 * 0.153 / 1500))
    parts = [row.reproduced for name, scope in scopes.items() if name != ALL for row in scope.values()]
    assert (len(parts), parts.count(True)) == (12, 11)  # Octo on Spatial: 1.05, printed 1.0
    assert [row.reproduced for row in scopes[ALL].values()] == [False] * 3


def test_of_table_1_only_the_last_layer_is_told_apart() -> None:
    pairs, scopes = judge_quoted(quoted(["table1"]), Settings())
    assert (len(pairs), scopes) == (15, [])
    better = {(j.b, j.a) if j.winner == j.b else (j.a, j.b) for j in pairs if j.winner}
    assert better == {(row, "last_layer") for row in ("full", "sandwich", "lora_r32", "lora_r64")}
    assert all(j.verdict.startswith("cannot tell (") for j in pairs if "last_layer" not in (j.a, j.b))


def test_p_values_are_those_that_compare_puts_beside_runs() -> None:
    beside = paper_pairs(paper_rows("table1"))
    for judged in judge_quoted(quoted(["table1"]), Settings())[0]:
        assert judged.finding.p == pytest.approx(beside[judged.a, judged.b].p, rel=0.01)  # rates as printed
        assert judged.p_holm == pytest.approx(beside[judged.a, judged.b].p_holm, rel=0.01)


def test_table_12_is_corrected_over_suites_and_over_averages_apart() -> None:
    pairs, suites = judge_quoted(quoted(["table12"]), Settings())
    assert (len(pairs), len(suites)) == (3, 12)
    best = next(j for j in suites if j.scope == "libero_object" and (j.a, j.b) == ("diffusion_policy", "octo"))
    assert best.verdict == "diffusion_policy better"
    assert next(j for j in pairs if (j.a, j.b) == ("octo", "openvla_lora_r32")).p_holm == pytest.approx(0.099, abs=1e-3)


def test_further_tables_are_scopes() -> None:
    scopes = quoted(["table2", "table11"])
    assert scopes["table11"]["int8"].rate == pytest.approx(0.744, abs=5e-4)
    assert {row.scope for row in scopes["table11"].values()} == {"table11"}


def test_a_table_without_rates_is_refused() -> None:
    with pytest.raises(UnknownName, match="no table of rates 'table3'"):
        quoted(["table3"])


def test_intervals_have_the_confidence_that_is_asked_for() -> None:
    for table in ("table1", "table12"):
        wide, narrow = ([r for rows in quoted([table], c).values() for r in rows.values()] for c in (0.95, 0.5))
        for one, other in zip(wide, narrow, strict=True):
            assert one.interval[0] < other.interval[0] < other.rate < other.interval[1] < one.interval[1]
    row = quoted(["table12"], 0.5)["libero_spatial"]["openvla_lora_r32"]
    assert row.interval == wilson(round(0.847 * row.n), row.n, 0.5)
