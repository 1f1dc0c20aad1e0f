"""Shards behind s3:// and http:// are read as if they lay here, whatever a network does; else one clear error."""

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from buckets import KEYS, STALL, Proxy, proxied, web_server
from places import BRIDGE

from vlakit.data.shards import cache as caching
from vlakit.data.shards import remote as reading
from vlakit.data.shards.cache import CacheOptions
from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.shards.verify import verify
from vlakit.data.specs.spec import load_spec
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.errors import ConfigError, CorruptRecord, InvalidData, NotAShardFolder, Unreachable
from vlakit.processing.tokens import TokenProcessor

pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
NAME, URL = "bridge_orig", "s3://bucket/data/bridge_orig"
FIRST = "train-000000.tar"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen shards or so, as they lie on a disk."""
    folder = tmp_path_factory.mktemp("local") / NAME
    convert(BRIDGE, folder, load_spec(NAME), max_frames_per_shard=24, image_size=64, val_fraction=0.2)
    return folder


@pytest.fixture(scope="module")
def store(local: Path) -> Iterator[Proxy]:
    """A real S3 server with those shards in a bucket, reached through a proxy."""
    import fsspec

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch, proxied(server.get_host_and_port()) as (proxy, address):
        for key, value in (KEYS | {"AWS_ENDPOINT_URL": address, "AWS_EC2_METADATA_DISABLED": "true"}).items():
            patch.setenv(key, value)
        patch.delenv("AWS_PROFILE", raising=False)
        direct = "http://{}:{}".format(*server.get_host_and_port())
        system = fsspec.filesystem("s3", endpoint_url=direct, skip_instance_cache=True)
        system.mkdir("bucket")
        for file in sorted(local.iterdir()):
            if file.is_file():
                system.put_file(str(file), f"{URL}/{file.name}")
        yield proxy
    server.stop()


@pytest.fixture
def bucket(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The same without faults; shards come in several reads, failed ones are tried again soon."""
    store.calm()
    monkeypatch.setattr(caching, "BLOCK", 16 << 10)
    monkeypatch.setattr(reading, "FIRST_WAIT", 0.01)
    return store


def options(cache: Path, gb: float = 1.0, fault: str = "") -> CacheOptions:
    """Patient but where a server is to stall."""
    return CacheOptions(str(cache), gb, attempts=3, timeout_s=STALL / 2 if fault == "stall" else 30)


def samples(folder: ShardFolder, shard: int = 0) -> list[Any]:
    n_frames = folder.index.shards[shard].nsamples
    return [folder.read_sample(SampleRef(NAME, shard, frame), window=2, chunk=3) for frame in range(0, n_frames, 7)]


def same(one: list[Any], other: list[Any]) -> bool:
    """Equal in every byte."""
    return pickle.dumps(one) == pickle.dumps(other)


def test_every_sample_of_a_bucket_is_that_of_the_disk_and_comes_in_ranges(
    local: Path, bucket: Proxy, tmp_path: Path
) -> None:
    here, there = ShardFolder.open(local), ShardFolder.open(URL, remote=options(tmp_path))
    assert (there.content_hash, there.place) == (here.content_hash, URL)
    assert there.instructions() == here.instructions()
    assert not [name for name in bucket.gets() if name.endswith(".tar")]  # the words lie in the columns
    there.check()
    for shard in range(len(here.index.shards)):
        assert same(samples(here, shard), samples(there, shard))
    ranges = [span for _, name, span in bucket.asked if name == FIRST and span]
    assert len(ranges) == -(-here.index.shards[0].filesize // (16 << 10)) > 1


def batches(root: str, processor: TokenProcessor, n: int, state: dict[str, Any] | None = None, **more: Any) -> Any:
    data = VLADataModule(processor, {NAME: 1}, root, batch_size=8, seed=3, shuffle_shards=2, augment=True, **more)
    if state is not None:
        data.load_state_dict(state)
    found = list(islice(data.train_dataloader(), n))
    assert data._sampler is not None
    return found, data._sampler.state_after(3)


def equal(one: Any, other: Any) -> bool:
    return all(
        a.keys == b.keys
        and all(torch.equal(a.pixels[camera], b.pixels[camera]) for camera in a.pixels)
        and torch.equal(a.actions, b.actions)
        for a, b in zip(one, other, strict=True)
    )


def test_order_and_resume_are_those_of_the_disk_though_shards_come_and_go(
    local: Path, bucket: Proxy, tmp_path: Path, tiny_processor: TokenProcessor
) -> None:
    sizes = sorted(entry.filesize for entry in ShardFolder.open(local).index.shards)
    limit = (sum(sizes[-3:]) + 9) / 1e9
    remote = {"cache": str(tmp_path), "cache_gb": limit, "attempts": 2, "timeout_s": 60}
    here, state = batches(str(local.parent), tiny_processor, 90)
    there, same_state = batches("s3://bucket/data", tiny_processor, 90, remote=remote)
    assert equal(here, there)
    assert state == same_state
    assert max(bucket.gets()[entry.url] for entry in ShardFolder.open(local).index.shards) > 8  # fetched again
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*.tar*")) <= limit * 1e9
    resumed, _ = batches("s3://bucket/data", tiny_processor, 5, state, remote=remote)
    assert equal(here[3:8], resumed)


@pytest.mark.slow
def test_workers_read_a_bucket_in_the_same_order(
    local: Path, bucket: Proxy, tmp_path: Path, tiny_processor: TokenProcessor
) -> None:
    remote = {"cache": str(tmp_path), "attempts": 3, "timeout_s": 30}
    here, _ = batches(str(local.parent), tiny_processor, 12)
    there, _ = batches("s3://bucket/data", tiny_processor, 12, remote=remote, num_workers=2)
    assert equal(here, there)


@pytest.mark.parametrize("fault", ["fail", "stall", "cut", "flip"])
def test_what_goes_wrong_once_or_twice_is_read_again(local: Path, bucket: Proxy, tmp_path: Path, fault: str) -> None:
    bucket.faults[FIRST].extend([fault] * (1 if fault in ("flip", "stall") else 2))
    assert same(samples(ShardFolder.open(local)), samples(ShardFolder.open(URL, remote=options(tmp_path, fault=fault))))
    assert not bucket.faults[FIRST]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("fail", Unreachable, "not read in 3 attempts"),
        ("stall", Unreachable, "not read in 3 attempts"),
        ("cut", Unreachable, "not read in 3 attempts"),
        ("flip", CorruptRecord, "its sha256 is not that of the index, twice"),
    ],
)
def test_what_goes_wrong_each_time_ends_in_one_error_that_names_the_file(
    bucket: Proxy, tmp_path: Path, fault: str, kind: type[Exception], message: str
) -> None:
    bucket.always[FIRST] = fault
    folder = ShardFolder.open(URL, remote=options(tmp_path, fault=fault))
    with pytest.raises(kind, match=message) as caught:
        samples(folder)
    assert f"{URL}/{FIRST}" in str(caught.value)
    assert not [file for file in tmp_path.glob("*/*.tar*") if file.suffix != ".lock"]  # nothing half is left
    bucket.calm()
    assert len(samples(folder))


def test_a_bucket_that_does_not_exist_and_a_folder_that_holds_nothing_are_told_apart(
    bucket: Proxy, tmp_path: Path
) -> None:
    for url, message in (("s3://elsewhere/data", "no such bucket"), ("s3://bucket/x", "no such shardindex.json")):
        with pytest.raises(NotAShardFolder, match=message) as caught:
            ShardFolder.open(url, remote=options(tmp_path))
        assert url in str(caught.value)


def test_absent_keys_are_said_at_once(bucket: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Unreachable, match="not given to us") as caught:
        ShardFolder.open(URL, remote=options(tmp_path))
    assert "AWS_PROFILE" in caught.value.do
    assert not bucket.asked


def test_a_shard_that_is_missing_there_or_of_another_size_is_known_before_training(
    local: Path, bucket: Proxy, tmp_path: Path
) -> None:
    import fsspec

    direct = "http://{}:{}".format(*bucket.target)
    system = fsspec.filesystem("s3", endpoint_url=direct, skip_instance_cache=True, use_listings_cache=False)
    try:
        for content, message in ((b"short", "has 5 bytes, the index says"), (None, "is not there")):
            system.rm_file(f"{URL}/{FIRST}") if content is None else system.pipe_file(f"{URL}/{FIRST}", content)
            folder = ShardFolder.open(URL, remote=options(tmp_path))
            with pytest.raises(CorruptRecord, match=message):
                folder.check()
        with pytest.raises(CorruptRecord, match="is not there"):
            samples(folder)
    finally:
        system.put_file(str(local / FIRST), f"{URL}/{FIRST}")


def test_the_copy_used_longest_ago_makes_room_and_one_in_use_does_not(bucket: Proxy, tmp_path: Path) -> None:
    probe = ShardFolder.open(URL, remote=options(tmp_path / "probe"))
    shards = probe.index.shards
    limit = 3 * max(entry.filesize for entry in shards)
    folder = ShardFolder.open(URL, remote=options(tmp_path / "cache", limit / 1e9), open_shards=1)
    lease = folder.home.bring(shards[0])
    for shard in (1, 2, 3, 4):
        samples(folder, shard)
    kept = {file.name for file in (tmp_path / "cache").glob("*/*.tar")}
    assert {shards[0].url, shards[4].url} <= kept
    assert shards[1].url not in kept
    lease.close()
    samples(folder, 5)
    assert not (folder.path / shards[0].url).exists()
    with pytest.raises(ConfigError, match="4 shards are open at a time"):
        folder.home.check_room(shards, 4)


def test_a_copy_that_was_spoilt_is_fetched_again(local: Path, bucket: Proxy, tmp_path: Path) -> None:
    whole = samples(ShardFolder.open(URL, remote=options(tmp_path)))
    file = next(tmp_path.glob(f"*/{FIRST}"))
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    assert same(whole, samples(ShardFolder.open(URL, remote=options(tmp_path))))
    assert file.read_bytes() == (local / FIRST).read_bytes()


def _bring(folder: ShardFolder) -> None:
    folder.home.bring(folder.index.shards[0]).close()


def test_processes_that_want_one_shard_fetch_it_once(bucket: Proxy, tmp_path: Path) -> None:
    folder = ShardFolder.open(URL, remote=options(tmp_path))
    bucket.calm()
    bucket.latency = 0.05
    try:
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=_bring, args=(folder,)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
    finally:
        bucket.latency = 0.0
    assert bucket.gets()[FIRST] == -(-folder.index.shards[0].filesize // (16 << 10))


@pytest.mark.parametrize("change", [{"url": "../../outside.tar"}, {"url": "/etc/x.tar"}, {"sha256": "../../x"}])
def test_an_index_that_leads_out_of_the_cache_is_refused(local: Path, tmp_path: Path, change: dict[str, str]) -> None:
    site = shutil.copytree(local, tmp_path / "site" / NAME)
    index = json.loads((site / "shardindex.json").read_text())
    index["shardlist"][0] |= change
    (site / "shardindex.json").write_text(json.dumps(index))
    with web_server(site.parent) as (host, port), pytest.raises(InvalidData, match="a shard"):
        ShardFolder.open(f"http://{host}:{port}/{NAME}", remote=options(tmp_path / "cache"))
    assert {file.name for file in tmp_path.rglob("*.tar")} == {file.name for file in local.glob("*.tar")}


@pytest.mark.parametrize("fault", ["", "fail", "stall", "cut", "flip"])
def test_a_web_server_without_ranges_will_do(
    local: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(caching, "BLOCK", 16 << 10)
    with web_server(local.parent) as address, proxied(address) as (proxy, url):
        proxy.faults[FIRST].extend([fault] if fault else [])
        folder = ShardFolder.open(f"{url}/{NAME}", remote=options(tmp_path, fault=fault))
        folder.check()
        assert same(samples(ShardFolder.open(local)), samples(folder))
        assert proxy.gets()[FIRST] == (2 if fault else 1)
        with pytest.raises(NotAShardFolder, match=r"no such shardindex\.json"):
            ShardFolder.open(f"{url}/other", remote=options(tmp_path))


def test_columns_that_are_not_there_are_made_of_the_tars(local: Path, tmp_path: Path) -> None:
    site = shutil.copytree(local, tmp_path / "site" / NAME, ignore=shutil.ignore_patterns("*.npy*"))
    with web_server(site.parent) as (host, port):
        folder = ShardFolder.open(f"http://{host}:{port}/{NAME}", remote=options(tmp_path / "cache"))
        here = ShardFolder.open(local)
        assert folder.instructions() == here.instructions()
        assert same(samples(here), samples(folder))


def test_verification_reads_a_url_and_names_what_changed_there(
    local: Path, bucket: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert verify(Path(URL)) == []
    shutil.rmtree(tmp_path / ".cache")
    bucket.always[FIRST] = "flip"
    assert verify(Path(URL)) == [f"{FIRST}: its sha256 is not that of the index, twice: a byte changed there"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("gs://bucket/x", "no place that shards are read from"),
        ("s3://", "no place"),
        ("https://someone:secret@host/x", "keys in a URL"),
        ("https://host/x?X-Amz-Signature=secret", "keys in a URL"),
    ],
)
def test_urls_that_cannot_be_read_or_should_not_be_written_down_are_refused(place: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ShardFolder.open(place)
    assert "secret" not in str(caught.value)


def test_a_path_of_this_machine_is_read_without_any_of_it(local: Path) -> None:
    code = f"""
import sys
from vlakit.data.shards.reader import ShardFolder
ShardFolder.open({str(local)!r}).instructions()
print(sorted(set(sys.modules) & {{"s3fs", "aiohttp", "aiobotocore", "botocore", "fsspec.implementations.http"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
