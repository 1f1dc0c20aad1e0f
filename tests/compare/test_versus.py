"""Who is better, and whether one may say so: pairing, methods, corrections and words."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from evaluations import VERSIONS, foundry, lerobot, outcomes, vla_eval, write_own
from places import FIXTURES
from statsmodels.stats.contingency_tables import mcnemar

from vlakit.compare.gather import gather
from vlakit.compare.pairs import Settings
from vlakit.compare.versus import Comparison, compare_arms
from vlakit.errors import ConfigError, InvalidData, UnknownName
from vlakit.stats.intervals import newcombe

RELEASED = FIXTURES / "tri_rollouts"


def versus(*runs: Path, margin: float = 0.05, **options: object) -> Comparison:
    return compare_arms(gather([str(run) for run in runs]), Settings(margin=margin), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All 15,200 released rollouts in the layout they were published in."""
    folder = tmp_path_factory.mktemp("tri")
    models: dict[str, dict[str, str]] = {}
    with (RELEASED / "outcomes.csv").open() as stream:
        for row in csv.DictReader(stream):
            models.setdefault(row["model"], {})[row["task"]] = row["successes"]
    return [foundry(folder, "CS", model, tasks) for model, tasks in models.items()]


def test_the_released_rollouts_compare_task_by_task_and_pooled(released: list[Path]) -> None:
    found = versus(*released)
    assert [(r.name.removeprefix("Foundry-"), r.n, round(100 * r.rate, 1)) for r in found.rates] == [
        ("Qwen3VLA-2.1B", 3800, 72.2),
        ("VLA-1.7B-FT", 3800, 60.0),
        ("VLA-1.7B-full", 3800, 46.2),
        ("VLA-1.7B-sim", 3800, 52.1),
    ]
    assert [r.letters for r in found.rates] == ["a", "b", "c", "d"]  # all told apart
    first = found.pairs[0].finding
    assert (first.n, first.only_a, first.only_b) == (3800, 997, 533)
    assert [j.winner for j in found.pairs] == [*(j.a for j in found.pairs[:5]), found.pairs[5].b]
    assert [j.verdict for j in found.pairs] == [f"{j.winner} better" for j in found.pairs]
    assert len(found.tasks) == 6 * 19
    for judged in found.tasks[::9]:
        f = judged.finding
        exact = mcnemar([[0, f.only_a], [f.only_b, 0]], exact=True).pvalue
        assert f.p is not None
        assert f.p <= exact + 1e-12  # mid-p is the smaller
        assert judged.p_holm is not None
        assert judged.p_holm >= f.p


def test_two_all_but_hopeless_models_are_not_told_apart_by_a_task(released: list[Path]) -> None:
    found = versus(released[2], released[3], margin=0.05)
    mug = next(j for j in found.tasks if j.scope == "PutMugInCenterOfTable").finding
    assert (mug.only_a, mug.only_b, mug.p) == (2, 2, 1)
    assert mug.interval is not None
    assert -0.05 < mug.interval[0] < 0 < mug.interval[1] < 0.05


def test_other_initial_states_are_not_paired_but_may_be_compared_unpaired(tmp_path: Path) -> None:
    a = write_own(tmp_path / "a", outcomes(40, 0.9, 0))
    b = write_own(tmp_path / "b", outcomes(60, 0.2, 1))
    with pytest.raises(InvalidData, match="40 shared, 0 and 20 alone") as caught:
        versus(a, b)
    assert "paired=false" in caught.value.do
    found = versus(a, b, paired="false")
    assert not found.paired
    f = found.pairs[0].finding
    assert (f.only_a, f.only_b) == (None, None)
    assert found.pairs[0].winner == "a"
    counts = [round(r.rate * r.n) for r in found.rates]
    assert f.interval == pytest.approx(newcombe(counts[0], 40, counts[1], 60))
    common = versus(a, b, paired="common")
    assert common.pairs[0].finding.n == 40
    assert any("20 episodes" in note for note in common.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "libero"}, "other suites: tabletop and libero"),
        ({"versions": {**VERSIONS, "mujoco": "3.4.0"}}, "other versions: mujoco 3.3.2 and 3.4.0"),
        ({"initial_state": "elsewhere"}, "none is shared|more than once"),
    ],
)
def test_other_suites_and_versions_are_not_paired(tmp_path: Path, change: dict[str, object], message: str) -> None:
    a, b = write_own(tmp_path / "a", [1, 0]), write_own(tmp_path / "b", [1, 0], **change)
    with pytest.raises(InvalidData, match=message):
        versus(a, b)


def test_states_that_share_their_names_alone_are_not_paired(tmp_path: Path) -> None:
    a, b = write_own(tmp_path / "a", [1, 0], states="1f"), write_own(tmp_path / "b", [1, 0], states="2a")
    with pytest.raises(InvalidData, match="of other content"):
        versus(a, b)


def test_an_easier_mix_of_tasks_is_no_better_policy(tmp_path: Path) -> None:
    a = write_own(tmp_path / "a", [1, 0, 1, 0], tasks=["lift", "push"])
    b = write_own(tmp_path / "b", [1, 0, 1, 1], tasks=["lift", "push", "lift", "lift"])
    with pytest.raises(ConfigError, match="other proportions, such as lift"):
        versus(a, b, paired="false")


def test_another_vlakit_alone_is_a_note(tmp_path: Path) -> None:
    a, b = write_own(tmp_path / "a", [1, 0]), write_own(tmp_path / "b", [0, 1], versions={**VERSIONS, "vlakit": "0.2"})
    assert "evaluated with vlakit 0.1, 0.2" in versus(a, b).notes


def test_doubtful_starts_pair_only_on_the_users_word(tmp_path: Path) -> None:
    a, b = (lerobot(tmp_path / n, {("goal", 0): [v == 1 for v in outcomes(30, 0.5, i)]}) for i, n in enumerate("ab"))
    with pytest.raises(InvalidData, match="not known to be paired"):
        versus(a, b)
    assert versus(a, b, paired="true").pairs[0].finding.n == 30
    seeds = [vla_eval(tmp_path / f"v{seed}.json", {"open": [True, False]}, seed=seed) for seed in (1, 2)]
    with pytest.raises(InvalidData, match="seed of the benchmark 1 and 2"):
        versus(*seeds, paired="true")


@pytest.mark.parametrize("value", [0, 1])
def test_without_discordant_pairs_p_is_one_and_the_interval_has_width(tmp_path: Path, value: int) -> None:
    runs = [write_own(tmp_path / name, [value] * 30) for name in "ab"]
    found = versus(*runs)
    judged = found.pairs[0]
    assert judged.finding.p == 1
    assert judged.finding.interval is not None
    assert judged.finding.interval[1] > 0.05
    assert judged.verdict.startswith("cannot tell (")
    assert any("very same bytes" in note for note in found.notes)


def test_enough_agreement_is_equivalence_within_the_margin(tmp_path: Path) -> None:
    runs = [write_own(tmp_path / name, [1, 0] * 200) for name in "ab"]
    assert versus(*runs).pairs[0].verdict == "equivalent within 5 points"
    assert versus(*runs, margin=0.001).pairs[0].verdict.startswith("cannot tell")


def test_as_many_more_rollouts_as_said_do_decide(tmp_path: Path) -> None:
    a, b = [1, 1, 1, 0, 0, 1, 1, 0] * 5, [1, 0, 1, 0, 1, 1, 0, 0] * 5
    judged = versus(write_own(tmp_path / "a", a), write_own(tmp_path / "b", b), margin=0.01).pairs[0]
    assert judged.verdict == f"cannot tell ({judged.more:,.0f} more rollouts would)"
    times = int(np.ceil(judged.rollouts / 40))
    again = versus(write_own(tmp_path / "c", a * times), write_own(tmp_path / "d", b * times))
    assert again.pairs[0].winner == "c"


def test_half_credits_count_when_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = write_own(tmp_path / "a", list(rng.choice([0.5, 1], 80)))
    b = write_own(tmp_path / "b", list(rng.choice([0, 0.5], 80)))
    found = versus(a, b, score="credit")
    assert found.pairs[0].finding.method.startswith("sign flips")
    assert found.pairs[0].winner == "a"
    assert found.rates[0].rate == pytest.approx(0.75, abs=0.1)
    assert versus(a, b, score="credit", paired="false").pairs[0].finding.method.startswith("Welch")


def seeds(folder: Path, name: str, rates: Sequence[float], start: int) -> list[Path]:
    return [
        write_own(folder / f"{name}[seed={i}]", outcomes(60, rate, start + i), steps=2 + i)
        for i, rate in enumerate(rates)
    ]


def test_trainings_that_differ_in_the_seed_are_one_strategy_and_errors_are_kept_apart(tmp_path: Path) -> None:
    runs = [*seeds(tmp_path, "lora", [0.9, 0.5, 0.7], 0), *seeds(tmp_path, "full", [0.6, 0.7, 0.8], 9)]
    found = versus(*runs)
    f = found.pairs[0].finding
    assert (found.pairs[0].a, found.pairs[0].b, f.seeds, f.n) == ("lora", "full", (3, 3), 60)
    assert f.seed_se is not None
    assert f.episode_se is not None
    assert f.seed_se > f.episode_se > 0
    assert "trainings of each" in found.pairs[0].verdict
    assert not any("one training each" in note for note in found.notes)


def test_trainings_that_all_end_alike_give_no_p_value(tmp_path: Path) -> None:
    runs = [*seeds(tmp_path, "lora", [1.1, 1.1], 0), *seeds(tmp_path, "full", [-1, -1], 9)]
    judged = versus(*runs).pairs[0]
    assert (judged.finding.p, judged.p_holm, judged.finding.interval) == (None, None, None)
    assert judged.verdict.startswith("cannot tell (no outcome varies")
    assert judged.finding.difference == 1


def test_one_training_against_several_and_several_unpaired_are_refused(tmp_path: Path) -> None:
    lora, full = seeds(tmp_path, "lora", [0.9, 0.5], 0), seeds(tmp_path, "full", [0.6], 9)
    with pytest.raises(InvalidData, match="2 and 1 trainings do not compare"):
        versus(*lora, *full)
    with pytest.raises(ConfigError, match="several trainings"):
        versus(*lora, *full, paired="false")


def test_runs_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    a, b = write_own(tmp_path / "1" / "lora", [1, 0]), write_own(tmp_path / "2" / "lora", [0, 1])
    with pytest.raises(ConfigError, match="2 evaluations are called lora"):
        versus(a, b)
    with pytest.raises(ConfigError, match="compared with itself"):
        versus(a, a)
    with pytest.raises(ConfigError, match="one run makes no pair"):
        versus(a)
    named = gather({"first": str(a), "second": [str(b)]})
    assert [arm.name for arm in named] == ["first", "second"]
    with pytest.raises(ConfigError, match="all of them are trainings of lora"):
        gather({"lora": [str(a), str(b)]})


def test_a_reference_is_compared_with_each_and_stands_second(tmp_path: Path) -> None:
    runs = [write_own(tmp_path / name, outcomes(20, 0.5, i)) for i, name in enumerate("abc")]
    assert [(j.a, j.b) for j in versus(*runs, reference="a").pairs] == [("b", "a"), ("c", "a")]
    with pytest.raises(UnknownName, match="no run called 'd'"):
        versus(*runs, reference="d")


def test_common_states_of_other_content_are_not_paired_either(tmp_path: Path) -> None:
    none, a, b = (
        write_own(tmp_path / (s or "none"), outcomes(20, 0.5, i), states=s) for i, s in enumerate(["", "1f", "2a"])
    )
    for paired in ("common", "true"):
        with pytest.raises(InvalidData, match="of other content"):
            versus(none, a, b, paired=paired)
    more = write_own(tmp_path / "more", outcomes(30, 0.5, 3), states="3c")
    found = versus(a, more, paired="common")
    assert found.pairs[0].finding.n == 20
    assert any("matched by name" in note for note in found.notes)
    assert not any("matched by name" in note for note in versus(none, a).notes)


def test_a_copy_is_no_second_training(tmp_path: Path) -> None:
    a, b = write_own(tmp_path / "a", [1, 0, 1]), write_own(tmp_path / "b", [0, 0, 1])
    copy = write_own(tmp_path / "copy", [1, 0, 1])
    with pytest.raises(ConfigError, match="the very same bytes"):
        gather({"A": [str(a), str(copy)], "B": str(b)})
    assert len(gather({"A": str(a), "B": str(copy)})) == 2
