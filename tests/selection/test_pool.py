"""A pool shows first pictures and instructions; labels are read of what was bought alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlakit.data.rlds.source import RldsSource
from vlakit.data.rlds.writer import RldsWriter
from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import ShardFolder
from vlakit.data.specs.spec import load_spec
from vlakit.errors import CorruptRecord, InvalidData, UnknownName
from vlakit.evaluation.demonstrator import encode
from vlakit.selection.pool import REASONS, LabelNotBought, Pool

SPEC = load_spec("tabletop_target")


def write_pool(folder: Path, n: int = 6, copies: bool = False) -> Path:
    with RldsWriter(folder, "tabletop_target") as writer:
        for i in range(n):
            rng = np.random.default_rng(0 if copies else i)
            steps = [
                {
                    "observation": {
                        "image": encode(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)),
                        "state": rng.normal(size=8).astype(np.float32),
                    },
                    "action": rng.uniform(-0.02, 0.02, 7).astype(np.float32),
                    "language_instruction": f"lift number {0 if copies else i}",
                }
                for _ in range(2 if copies else 2 + i % 3)
            ]
            writer.write({"steps": steps, "episode_metadata": {"task": "lift"}})
    return folder


@dataclass(frozen=True)
class Sealed:
    """A source whose actions raise but for some records: what stands for a lab that has not collected the rest."""

    source: RldsSource
    open_ids: tuple[int, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def read(self, header: Any, fields: Collection[str]) -> Mapping[str, Any]:
        if header.index not in self.open_ids and any("observation/" not in f and "language" not in f for f in fields):
            raise AssertionError(f"{fields} of demonstration {header.index} were read")
        return self.source.read(header, fields)


def test_looking_reads_no_label_and_buying_reads_those_of_what_was_bought(tmp_path: Path) -> None:
    pool = Pool(Sealed(RldsSource.open(write_pool(tmp_path / "rlds")), (1, 4)), SPEC)  # pyright: ignore
    looks = pool.first_looks(["primary"])
    assert [look.instruction for look in looks] == [f"lift number {i}" for i in range(6)]
    assert looks[0].image.shape == (64, 64, 3)
    assert looks[0].dataset == "tabletop_target"
    convert(pool.bought([4, 1]), tmp_path / "shards", SPEC, val_fraction=0.0)
    shards = ShardFolder.open(tmp_path / "shards")
    assert [row.n_frames for row in shards.episodes("train")] == [3, 3]
    assert shards.instructions() == {"lift number 1", "lift number 4"}
    with pytest.raises(AssertionError, match="demonstration 2"):
        convert(pool.bought([2]), tmp_path / "sealed", SPEC, val_fraction=0.0)


def test_what_was_not_bought_is_refused_by_the_pool_itself(tmp_path: Path) -> None:
    pool = Pool(RldsSource.open(write_pool(tmp_path)), SPEC)
    with pytest.raises(LabelNotBought, match="record 3"):
        pool.bought([0, 1]).read(pool.headers[3], ["action"])
    assert [str(one) for one in pool.bought([2, 0]).headers("train")] == [str(pool.headers[i]) for i in (0, 2)]
    with pytest.raises(UnknownName, match="0 to 5"):
        pool.bought([6])


def test_two_purchases_are_two_sources(tmp_path: Path) -> None:
    pool = Pool(RldsSource.open(write_pool(tmp_path)), SPEC)
    assert pool.bought([0, 1]).identity() == pool.bought([1, 0]).identity()
    assert pool.bought([0, 1]).identity() != pool.bought([0, 2]).identity()


def test_copies_in_a_pool_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="demonstrations 0 and 1 are the same"):
        Pool(RldsSource.open(write_pool(tmp_path, 2, copies=True)), SPEC)


def test_reasons_of_outliers_lie_beside_the_pool(tmp_path: Path) -> None:
    pool = Pool(RldsSource.open(write_pool(tmp_path)), SPEC)
    assert pool.reasons() is None
    (tmp_path / REASONS).write_text('{"2": "noise"}')
    assert pool.reasons() == {2: "noise"}
    (tmp_path / REASONS).write_text("[1]")
    with pytest.raises(CorruptRecord, match="list of outliers"):
        pool.reasons()
