"""Conversion on a Ray cluster: the bytes of the serial one, though a node is lost with a shard half made."""

import os
import sys
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from places import BRIDGE

from vlakit.data.shards import on_ray
from vlakit.data.shards.convert import convert
from vlakit.data.shards.index import ShardIndex
from vlakit.data.shards.pool import mapping
from vlakit.data.source import Source, open_source
from vlakit.data.specs.spec import load_spec
from vlakit.errors import CorruptRecord, PartMissing, Unreachable, VlakitError

SPEC = load_spec("bridge_orig")


def run(source: Source | Path, out: Path, **changes: Any) -> ShardIndex:
    return convert(source, out, SPEC, max_frames_per_shard=16, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_without_ray_the_extra_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PartMissing, match="ray is not installed") as caught:
        run(BRIDGE, tmp_path / "out", workers="ray")
    assert "vlakit[ray]" in caught.value.do
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class Losing:
    """The Bridge sample on two nodes: `doomed` never ends its first read of a shard, the other one waits for that."""

    source: Any
    out: Path
    notes: Path
    doomed: str
    broken: bool = False

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def splits(self) -> Any:
        return self.source.splits

    def identity(self) -> Any:
        return self.source.identity()

    def survey(self) -> Any:
        return self.source.survey()

    def headers(self, split: str) -> Any:
        return self.source.headers(split)

    def same(self, header: Any, other: Any) -> bool:
        return self.source.same(header, other)

    def read(self, header: Any, fields: Collection[str]) -> Any:
        import ray

        planned, lost = self.out / ".conversion" / "val.sizes.npy", self.notes / "lost"
        if planned.is_file():
            if self.broken:
                raise CorruptRecord("a flipped byte", where="the source", do="fetch it again")
            node = ray.get_runtime_context().get_node_id()
            with (self.notes / node).open("a") as stream:
                stream.write(f"{header}\n")
            if node == self.doomed:
                lost.touch()
                time.sleep(3600)
            wait_for(lost)
        return self.source.read(header, fields)


def wait_for(file: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)


CORE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node with one core, which RAY_ADDRESS names."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers know its classes without this file
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args=CORE)
        patch.setenv("RAY_ADDRESS", str(cluster.address))
        yield cluster
        cluster.shutdown()


def lose(cluster: Any, node: Any, signal: Path) -> None:
    wait_for(signal)
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_node_that_is_lost_with_a_shard_half_made_changes_no_byte(tmp_path: Path, cluster: Any) -> None:
    index = run(BRIDGE, tmp_path / "serial")
    assert len(index.shards) > 10
    out, notes, second = tmp_path / "cluster", tmp_path / "notes", cluster.add_node(**CORE)
    notes.mkdir()
    killer = threading.Thread(target=lose, args=(cluster, second, notes / "lost"))
    killer.start()
    run(Losing(open_source(BRIDGE), out, notes, second.node_id), out, workers="ray")
    killer.join()
    [lost] = (notes / second.node_id).read_text().splitlines()
    [other] = [file for file in notes.iterdir() if file.name not in ("lost", second.node_id)]
    assert lost in other.read_text().splitlines()  # begun again on the node that lives
    assert contents(out) == contents(tmp_path / "serial")


@pytest.mark.slow
@pytest.mark.enable_socket
def test_an_error_on_a_worker_is_the_error_of_one_process(tmp_path: Path, cluster: Any) -> None:
    source = Losing(open_source(BRIDGE), tmp_path / "out", tmp_path, "", broken=True)
    with pytest.raises(CorruptRecord, match="a flipped byte") as caught:
        run(source, tmp_path / "out", workers="ray")
    assert (type(caught.value), caught.value.where) == (CorruptRecord, "the source")


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_task_that_kills_each_worker_is_given_up(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "RETRIES", 1)
    with pytest.raises(VlakitError, match="died 2 times over the same task"), mapping("ray") as run_all:
        list(run_all(os._exit, [1]))


@pytest.mark.slow
@pytest.mark.enable_socket
def test_who_is_connected_already_stays_so_and_paths_are_his(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.chdir(tmp_path)
    ray.init()
    with mapping("ray") as run_all:
        assert list(run_all(Path.absolute, [Path("a"), Path("b")])) == [tmp_path / "a", tmp_path / "b"]
    assert ray.is_initialized()
    ray.shutdown()


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_does_not_answer_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(Unreachable, match="no Ray cluster") as caught, mapping("ray"):
        pass
    assert caught.value.where == address
