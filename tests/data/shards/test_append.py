"""Episodes added later are those of a conversion of their own; what was there stays, statistics are those of all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlds_cases import SPEC, episode, write

from vlakit.data.shards import append as appending
from vlakit.data.shards.append import append
from vlakit.data.shards.convert import convert
from vlakit.data.shards.index import load_index
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.shards.statistics import NAMES, compute_statistics, load_statistics
from vlakit.data.shards.verify import verify
from vlakit.data.specs.spec import DatasetSpec
from vlakit.errors import ConfigError


def made(folder: Path, seeds: range, spec: str = SPEC) -> tuple[Path, DatasetSpec]:
    """A dataset with an episode for each seed, of differing lengths."""
    return write(folder, [episode(seed, 5 + seed % 4) for seed in seeds], spec=spec)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source, spec = made(tmp_path / "first", range(6))
    convert(source, tmp_path / "shards", spec, max_frames_per_shard=20, val_fraction=0.2)
    return tmp_path / "shards"


def frames(folder: Path, numbers: range) -> list[Any]:
    """What is read of these shards, without the episodes' names."""
    opened = ShardFolder.open(folder)
    refs = [SampleRef("toy", n, i) for n in numbers for i in range(opened.index.shards[n].nsamples)]
    read = [opened.read_sample(ref, window=2, chunk=2) for ref in refs]
    return [(one.instruction, one.images["primary"], one.actions.tolist(), one.window_mask.tolist()) for one in read]


def test_what_is_added_is_read_behind_what_was_there(folder: Path, tmp_path: Path) -> None:
    before = load_index(folder)
    tars = {shard.url: (folder / shard.url).read_bytes() for shard in before.shards}
    source, spec = made(tmp_path / "second", range(10, 17))
    index = append(source, folder, spec)
    alone = convert(source, tmp_path / "alone", spec, max_frames_per_shard=20, val_fraction=0.2)
    n_before, n_after = len(before.shards), len(index.shards)
    assert index.shards[:n_before] == before.shards
    assert tars == {url: (folder / url).read_bytes() for url in tars}
    assert frames(folder, range(n_before, n_after)) == frames(tmp_path / "alone", range(len(alone.shards)))
    assert verify(folder) == []
    assert sum(split["episodes"] for split in index.counts().values()) == 13
    ids = [name for shard in index.shards for name, _ in shard.episodes]
    assert len(set(ids)) == len(ids)
    opened = ShardFolder.open(folder)
    rows = [opened.read_sample(SampleRef("toy", n, i)).actions[0] for n in range(n_after)
            for i in range(index.shards[n].nsamples)]  # fmt: skip
    exact = compute_statistics([np.stack(rows, axis=1)], [], 13)
    written = load_statistics(folder / "statistics.json")["toy"]
    assert all(np.allclose(getattr(written, name), getattr(exact, name), rtol=1e-9, atol=1e-12) for name in NAMES)


@pytest.mark.parametrize("step", ["statistics_of", "save_statistics", "save_index", "rmtree"])
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(
    folder: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    source, spec = made(tmp_path / "second", range(10, 15))
    before = load_index(folder)
    with monkeypatch.context() as patch:
        patch.setattr(f"{appending.__name__}.{step}", kill)
        with pytest.raises(Killed):
            append(source, folder, spec)
    if step == "rmtree":  # all of it was done but the tidying
        with pytest.raises(ConfigError, match="holds that source already"):
            append(source, folder, spec)
    else:
        assert load_index(folder) == before
        append(source, folder, spec)
    assert verify(folder) == []
    assert not (folder / appending.ASIDE).exists()
    third, spec = made(tmp_path / "third", range(20, 22))
    assert len(append(third, folder, spec).plan["appended"]) == 2


def test_another_spec_and_the_same_source_are_refused(folder: Path, tmp_path: Path) -> None:
    _, spec = made(tmp_path / "again", range(6))
    with pytest.raises(ConfigError, match="holds that source already"):
        append(tmp_path / "first" / "toy" / "1.0.0", folder, spec)
    source, other = made(tmp_path / "other", range(7, 9), SPEC.replace("action}", "action, cols: [0, 7]}"))
    with pytest.raises(ConfigError, match="another spec"):
        append(source, folder, other)
