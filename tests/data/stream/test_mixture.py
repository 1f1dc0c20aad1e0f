"""The order of training is a pure function of its seed, whoever asks and whenever."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from vlakit.data.stream.later import Later
from vlakit.data.stream.mixture import MixtureEntry, MixtureOrder, SequentialOrder
from vlakit.errors import CheckpointMismatch, ConfigError, InvalidData

SMALL = MixtureEntry("small", ((0, 5), (2, 7), (3, 4)), hash="a")
LARGE = MixtureEntry("large", tuple((shard, 20 + shard) for shard in range(9)), weight=0.5, hash="b")


def order(*entries: MixtureEntry, seed: int = 3, batch_size: int = 8, **changes: int) -> MixtureOrder:
    return MixtureOrder(entries or (SMALL, LARGE), seed=seed, batch_size=batch_size, **{"shuffle_shards": 2, **changes})


def test_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    first, again, other = (list(islice(order(seed=seed), 20)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("n_batches", [0, 1, 13, 40])
def test_resumed_order_goes_on_as_the_uninterrupted_one(n_batches: int) -> None:
    whole = list(islice(order(), 60))
    stopped = order()
    list(islice(stopped, n_batches))
    resumed = order()
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert list(islice(resumed, 60 - n_batches)) == whole[n_batches:]


@pytest.mark.parametrize("shuffle_shards", [1, 2, 16])
def test_each_epoch_visits_each_frame_once_in_a_new_order(shuffle_shards: int) -> None:
    single = order(SMALL, batch_size=4, shuffle_shards=shuffle_shards)
    refs = [(ref.shard, ref.frame) for batch in islice(single, 8) for ref in batch]
    everything = {(shard, frame) for shard, n_frames in SMALL.shards for frame in range(n_frames)}
    assert set(refs[:16]) == set(refs[16:]) == everything
    assert refs[:16] != refs[16:]


def test_frames_of_one_shard_come_in_another_order_each_epoch() -> None:
    refs = [ref.frame for batch in islice(order(MixtureEntry("one", ((0, 20),)), batch_size=20), 2) for ref in batch]
    assert refs[:20] != refs[20:]


def test_frames_are_mixed_only_within_a_group_of_shards() -> None:
    refs = [ref for batch in islice(order(LARGE, batch_size=1), LARGE.n_frames) for ref in batch]
    shards = [ref.shard for ref in refs]
    spans = {shard: (shards.index(shard), len(shards) - shards[::-1].index(shard)) for shard in set(shards)}
    open_at_once = [sum(first <= at < end for first, end in spans.values()) for at in range(len(shards))]
    assert max(open_at_once) == 2


def test_shares_follow_weight_times_transitions() -> None:
    mixed = order(batch_size=64)
    assert mixed.probabilities.tolist() == pytest.approx([16 / 124, 108 / 124])
    counts = Counter(ref.dataset for batch in islice(mixed, 200) for ref in batch)
    share, n = counts["small"] / 12_800, 12_800
    assert abs(share - 16 / 124) < 4 * np.sqrt(share * (1 - share) / n)


def test_ranks_together_see_the_batch_of_one_process() -> None:
    whole = list(islice(order(), 30))
    parts = [list(islice(order(rank=rank, world_size=4), 30)) for rank in range(4)]
    assert [[ref for part in parts for ref in part[batch]] for batch in range(30)] == whole


def test_state_is_the_same_on_every_rank() -> None:
    states = []
    for rank in range(2):
        part = order(rank=rank, world_size=2)
        list(islice(part, 5))
        states.append(part.state_dict())
    assert states[0] == states[1]
    assert states[0]["cursors"].keys() == {"small", "large"}


def test_positions_count_the_stream() -> None:
    assert [ref.position for batch in islice(order(), 5) for ref in batch] == list(range(40))


@pytest.mark.parametrize(
    "other",
    [
        order(seed=4),
        order(batch_size=4),
        order(shuffle_shards=3),
        order(SMALL),
        order(SMALL, MixtureEntry("large", LARGE.shards, 0.6, "b")),
        order(SMALL, MixtureEntry("large", LARGE.shards, 0.5, "c")),
    ],
    ids=["seed", "batch size", "shuffle", "datasets", "weight", "data"],
)
def test_state_of_another_mixture_is_refused(other: MixtureOrder) -> None:
    with pytest.raises(CheckpointMismatch):
        order().load_state_dict(other.state_dict())


def test_dataset_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="small named twice"):
        order(SMALL, LARGE, SMALL)


@pytest.mark.parametrize("kind", [order, lambda *entries: SequentialOrder(entries, batch_size=2)])
def test_empty_split_is_invalid_data(kind: type[MixtureOrder]) -> None:
    with pytest.raises(InvalidData, match="empty split"):
        kind(MixtureEntry("small", ()))


@pytest.mark.parametrize("changes", [{"batch_size": 0}, {"shuffle_shards": 0}, {"world_size": 3}])
def test_unusable_sizes_are_config_errors(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        order(**changes)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_unusable_weight_is_a_config_error(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight"):
        order(MixtureEntry("small", SMALL.shards, weight))


@pytest.mark.parametrize("world_size", [1, 3])
def test_sequential_order_visits_each_frame_once_in_order(world_size: int) -> None:
    refs = []
    for rank in range(world_size):
        sequential = SequentialOrder([SMALL, LARGE], batch_size=10, rank=rank, world_size=world_size)
        batches = list(sequential)
        assert len(batches) == len(sequential)
        refs += [ref for batch in batches for ref in batch]
    refs.sort(key=lambda ref: ref.position)
    expected = [(e.dataset, s, f) for e in (SMALL, LARGE) for s, n_frames in e.shards for f in range(n_frames)]
    assert [ref[:3] for ref in refs] == expected


def staged(first: int = 20, **options: int) -> MixtureOrder:
    """`small` leaves at batch `first`."""
    settings = {"seed": 3, "batch_size": 8, "shuffle_shards": 2, **options}
    return MixtureOrder([SMALL, LARGE], **settings, later=Later(first, {"large": 1.0}))


def test_until_the_change_the_order_is_that_without_one_and_then_a_dataset_that_left_comes_no_more() -> None:
    plain, changed = list(islice(order(), 40)), list(islice(staged(), 40))
    assert changed[:20] == plain[:20]
    assert {ref.dataset for batch in plain[20:] for ref in batch} == {"small", "large"}
    assert {ref.dataset for batch in changed[20:] for ref in batch} == {"large"}
    frames = [(ref.shard, ref.frame) for batch in changed for ref in batch if ref.dataset == "large"]
    assert len(set(frames[: LARGE.n_frames])) == min(len(frames), LARGE.n_frames)  # it went on where it was


@pytest.mark.parametrize("stop", [7, 19, 20, 21, 33])
def test_a_run_resumes_exactly_on_either_side_of_the_change(stop: int) -> None:
    whole = list(islice(staged(), 40))
    begun, again = staged(), staged()
    list(islice(begun, stop))
    again.load_state_dict(begun.state_dict())
    assert list(islice(again, 40 - stop)) == whole[stop:]


def test_a_change_that_comes_at_another_batch_or_not_at_all_is_another_mixture() -> None:
    for other in (staged(21), order()):
        with pytest.raises(CheckpointMismatch):
            staged().load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("later", "said"),
    [(Later(5, {"lage": 1.0}), "'lage'"), (Later(0, {"large": 1.0}), "batch 0"), (Later(5, {"large": -1.0}), "-1.0")],
    ids=["unknown", "at once", "negative"],
)
def test_a_change_that_cannot_be_is_refused(later: Later, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MixtureOrder([SMALL, LARGE], seed=3, batch_size=8, later=later)
