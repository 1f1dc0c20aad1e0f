"""Dataset maps: hand sums, ranks, files, AUROC."""

from pathlib import Path

import numpy as np
import pytest

from vlakit.errors import ConfigError, CorruptRecord, InvalidData
from vlakit.selection.maps import DatasetMap, auroc
from vlakit.selection.training_map import Visits


def scripted() -> Visits:
    """Two demonstrations of 2 and 1 frames, a held-out row between them, three epochs."""
    visits = Visits(np.array([0, 0, -1, 1]))
    log = [[(0, 0.2, 0), (3, 0.9, 1), (1, 0.4, 0.5)], [(1, 0.6, 1), (0, 0.4, 0), (3, 0.9, 1)]]
    for epoch in [*log, [(3, 0.9, 0), (0, 0.6, 1), (1, 0.8, 1)]]:
        for row, p_label, hit in epoch:
            visits.add(row, p_label, hit)
    return visits


def test_the_statistics_are_the_hand_sums_of_a_scripted_log() -> None:
    known = scripted().known()
    assert known.confidence == pytest.approx([(0.3 + 0.5 + 0.7) / 3, 0.9])
    assert known.variability == pytest.approx([np.sqrt((0.04 + 0 + 0.04) / 3), 0])  # of the population
    assert known.correctness == pytest.approx([(0.25 + 0.5 + 1) / 3, 2 / 3])
    assert known.buckets == ["medium", "medium"]


def test_an_epoch_counts_when_every_frame_was_met_in_it() -> None:
    visits = scripted()
    before = visits.known()
    visits.add(0, 0.0, 0)
    assert visits.epochs == 3
    assert np.array_equal(visits.known().confidence, before.confidence)
    with pytest.raises(InvalidData, match="whole epoch"):
        Visits(np.array([0, 1])).known()


@pytest.mark.parametrize("row", [-1, 2, 4])
def test_a_row_that_is_no_training_frame_is_refused(row: int) -> None:
    with pytest.raises(InvalidData, match="no training frame"):
        scripted().add(row, 0.5, 1)


def test_a_map_goes_on_where_its_checkpoint_was_written() -> None:
    visits = scripted()
    other = Visits(np.array([0, 0, -1, 1]))
    other.restore(visits.state())
    for one in (visits, other):
        for row in (0, 1, 3):
            one.add(row, 0.1, 0)
    assert np.array_equal(visits.known().variability, other.known().variability)
    with pytest.raises(InvalidData, match="another dataset"):
        Visits(np.array([0])).restore(visits.state())


def test_buckets_begin_at_their_bounds() -> None:
    edges = np.array([0.75, 0.7499, 0.5, 0.25, 0.2499, 0, np.nan])
    known = DatasetMap(np.arange(7), edges, edges, edges)
    assert known.buckets == ["easy", "medium", "medium", "hard", "impossible", "impossible", "unknown"]


def test_ties_are_ranked_by_id_and_the_lowest_share_is_dropped() -> None:
    known = DatasetMap(np.array([7, 3, 5, 1]), np.full(4, 0.5), np.array([0.1, 0.4, 0.1, 0.2]), np.array([1, 0, 1, 1]))
    assert known.ranked("correctness").tolist() == [1, 5, 7, 3]
    assert known.dropped(0.25, "correctness").tolist() == [3]
    assert known.dropped(0.5).tolist() == [5, 7]  # by confidence times variability
    assert known.dropped(0.49).tolist() == [7]
    assert known.dropped(0).tolist() == []


def test_a_rank_that_is_unknown_or_was_not_measured_is_refused() -> None:
    nothing = DatasetMap(np.arange(2), np.ones(2), np.ones(2), np.full(2, np.nan))
    with pytest.raises(ConfigError, match="conf_x_var"):
        nothing.ranked("conf_var")
    with pytest.raises(InvalidData, match="correctness"):
        nothing.ranked("correctness")


def test_a_map_reads_back_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    known = DatasetMap(rng.permutation(9), *rng.random((3, 9)))
    known.save(tmp_path / "map.csv")
    again = DatasetMap.load(tmp_path / "map.csv")
    assert all(np.array_equal(getattr(known, name), getattr(again, name)) for name in vars(known))
    (tmp_path / "map.csv").write_text("id,confidence\n1,2\n")
    with pytest.raises(CorruptRecord, match="variability"):
        DatasetMap.load(tmp_path / "map.csv")


def test_auroc_is_the_share_of_pairs_in_order_and_a_half_for_flags_by_chance() -> None:
    rng = np.random.default_rng(0)
    scores, flags = rng.integers(0, 5, 30).astype(float), rng.random(30) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[flags] for b in scores[~flags]]
    assert auroc(scores, flags) == pytest.approx(np.mean(pairs))
    draws = [auroc(rng.random(2000), rng.random(2000) < 0.35) for _ in range(5)]
    assert np.abs(np.array(draws) - 0.5).max() < 0.05
    assert abs(np.mean(draws) - 0.5) < 0.03
    with pytest.raises(InvalidData, match="needs both"):
        auroc(scores, [False] * 30)
