"""The budgets of the house, and that whoever exceeds one is noticed."""

import ast

import house
import pytest

COUNTED = {count.budget: count for count in house.counted()}


@pytest.mark.parametrize("budget", COUNTED)
def test_a_budget_is_kept_or_comes_no_further_away(budget: str) -> None:
    count, bound = COUNTED[budget], max(house.BUDGETS[budget], house.RATCHET.get(budget, 0))
    assert count.value <= bound, f"{budget}: {count.value} > {bound}  {count.where}"


def test_what_is_reached_needs_no_ratchet() -> None:
    assert [budget for budget in house.RATCHET if COUNTED[budget].holds] == []


def test_every_budget_is_counted_or_measured() -> None:
    assert {*COUNTED, *house.MEASURED.values(), house.TESTED} == set(house.BUDGETS)


def test_the_table_shows_every_budget_what_exceeds_it_and_what_was_not_measured() -> None:
    text = house.table([house.Count("lines of src", 10**6, "here"), house.Count("files of the spine", 3)])
    assert [budget for budget in house.BUDGETS if budget not in text] == []
    assert "1,000,000 ! here" in text
    assert text.count("!") == 1
    assert text.count("not measured") == len(house.BUDGETS) - 2


def test_a_circle_is_found_with_all_that_lie_in_it() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str](), "e": {"d"}}
    assert house.circles(graph) == [["a", "b", "c"]]
    assert house.circles({"a": {"b"}, "b": set()}) == []


def test_packages_that_need_each_other_are_a_circle_even_where_no_two_modules_are() -> None:
    graph = {"vlakit.stats.a": {"vlakit.cli.a"}, "vlakit.cli.b": {"vlakit.stats.b"}}
    graph |= {"vlakit.cli.a": set(), "vlakit.stats.b": set()}
    assert house.circles(graph) == []
    assert house.circles(house.between_packages(graph)) == [["vlakit.cli", "vlakit.stats"]]


def test_an_import_counts_in_a_function_too_but_not_for_a_type_checker_alone() -> None:
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from vlakit.a import unseen
else:
    import vlakit.c
from vlakit import b, __version__
def late():
    from vlakit.d import name
"""
    modules = {"vlakit", "vlakit.a", "vlakit.b", "vlakit.c", "vlakit.d", "vlakit.e"}
    assert house.imported(ast.parse(source), modules) == modules - {"vlakit.a", "vlakit.e"}


def test_the_way_to_the_loss_goes_from_the_command_line_to_the_network() -> None:
    way = house.hops()
    assert (way[0], way[-1]) == ("train.main", "vla.forward")
    assert "base.training_step" in way
