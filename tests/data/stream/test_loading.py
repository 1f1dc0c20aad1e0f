"""What was consumed is what a checkpoint remembers, however far the workers have run ahead."""

import signal
import subprocess
import sys
from itertools import islice

import psutil
import pytest
from places import BRIDGE
from torch.utils.data import DataLoader

from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.specs.spec import load_spec
from vlakit.data.stream.loading import MixtureSampler, SampleDataset
from vlakit.data.stream.mixture import MixtureOrder, mixture_entry
from vlakit.errors import CheckpointMismatch, ConfigError, UnknownName
from vlakit.schema import Sample


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardFolder]:
    out = tmp_path_factory.mktemp("whole")
    convert(BRIDGE, out, load_spec("bridge_orig"), max_frames_per_shard=60)
    return {"bridge_orig": ShardFolder.open(out)}


def sampler(folders: dict[str, ShardFolder], n_batches: int | None = None) -> MixtureSampler:
    entries = [mixture_entry(folder) for folder in folders.values()]
    return MixtureSampler(MixtureOrder(entries, seed=1, batch_size=4), n_batches)


def named(sample: Sample) -> tuple[str, int]:
    return sample.key, sample.position


def keep(samples: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return samples


def loader(folders: dict[str, ShardFolder], chosen: MixtureSampler, n_workers: int) -> DataLoader[tuple[str, int]]:
    dataset = SampleDataset(folders, named)
    return DataLoader(dataset, batch_sampler=chosen, num_workers=n_workers, collate_fn=keep)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_stream_does_not_depend_on_the_number_of_workers(folders: dict[str, ShardFolder], n_workers: int) -> None:
    alone = list(loader(folders, sampler(folders, 12), 0))
    assert list(loader(folders, sampler(folders, 12), n_workers)) == alone


def test_state_after_consumed_batches_resumes_behind_them(folders: dict[str, ShardFolder]) -> None:
    whole = list(loader(folders, sampler(folders, 20), 0))
    first = sampler(folders)
    consumed = list(islice(loader(folders, first, 2), 7))
    second = sampler(folders, 13)
    second.load_state_dict(first.state_after(7))
    assert consumed + list(loader(folders, second, 0)) == whole


def test_iterations_follow_one_another(folders: dict[str, ShardFolder]) -> None:
    whole = list(sampler(folders, 10))
    halves = sampler(folders, 5)
    assert list(halves) + list(halves) == whole
    assert halves.state_after(10)["batch"] == 10


def test_a_state_loaded_again_forgets_what_was_drawn_ahead(folders: dict[str, ShardFolder]) -> None:
    whole = list(sampler(folders, 10))
    ahead = sampler(folders, 6)
    list(ahead)
    ahead.load_state_dict(ahead.state_after(4))
    assert list(ahead) == whole[4:10]


@pytest.mark.parametrize("asked", [2, 9])
def test_forgotten_and_future_states_are_errors(folders: dict[str, ShardFolder], asked: int) -> None:
    chosen = sampler(folders, 5)
    list(chosen)
    chosen.state_after(3)
    with pytest.raises(ConfigError, match="no state after batch"):
        chosen.state_after(asked)


def test_state_of_other_data_is_refused(folders: dict[str, ShardFolder]) -> None:
    chosen = sampler(folders)
    with pytest.raises(CheckpointMismatch):
        chosen.load_state_dict({**chosen.state_after(0), "fingerprint": "other"})


def test_unknown_dataset_is_named(folders: dict[str, ShardFolder]) -> None:
    with pytest.raises(UnknownName):
        SampleDataset(folders, named)[SampleRef("bridge_oric", 0, 0)]


ENDING = """
import sys, time
from torch.utils.data import DataLoader
from vlakit.data.stream.loading import deaf
drawn = iter(DataLoader(range(100), num_workers=2, worker_init_fn=deaf))
next(drawn), next(drawn)  # one of each: both have begun
print(*(worker.pid for worker in drawn._workers), flush=True)
drawn.itself = drawn  # as what a trainer leaves behind when its own clearing up fails: nothing collects it
sys.exit(3)
"""
WAITING = ENDING.replace("sys.exit(3)", "time.sleep(60)")


def test_a_process_that_ends_by_an_error_does_not_wait_for_its_workers() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert not any(psutil.pid_exists(int(pid)) for pid in done.stdout.split())


def test_workers_leave_signals_of_others_to_their_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        for worker in workers:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                worker.send_signal(number)
        assert psutil.wait_procs(workers, timeout=1)[0] == []
        parent.kill()
        assert psutil.wait_procs(workers, timeout=30)[1] == []  # nobody is left for good
