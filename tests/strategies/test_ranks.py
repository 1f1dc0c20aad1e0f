"""Several processes train what one trains: DDP and FSDP2 on the CPU over gloo, started as torchrun starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import pytest
import torch
import torch.distributed as dist
from commands import LIGHT, run, train_here
from places import ROOT

from vlakit.policy import TrainedPolicy

pytestmark = pytest.mark.slow
ROWS, STEPS = 8, 3  # of all processes together
PORTS = count(20_000 + os.getpid() * 8 % 20_000)
# AdamW divides a gradient by its size: without this floor one that is zero but for rounding would move a whole rate.
WORDS = ("experiment=full", "logger=none", "+strategy.optimizer.eps=1e-3", f"validate_every={STEPS}")


@dataclass(frozen=True)
class Trained:
    """What n processes left: the checkpoint, and each one's last loss in training and over the held-out frames."""

    file: Path
    losses: list[float]
    validated: list[float]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.file, weights_only=True)["state_dict"]


def on_rank(rank: int, n: int, port: int, folder: Path, words: tuple[str, ...]) -> None:
    """One process of torchrun's."""
    from lightning.pytorch.utilities import rank_zero_only

    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "GROUP_RANK": 0}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {key: str(value) for key, value in (ranks | meeting).items()}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rank_zero_only.rank = rank  # pyright: ignore[reportFunctionMemberAccess]  read from the environment at its import
    metrics = train_here(folder, *words)
    (folder / f"{rank}.json").write_text(json.dumps(metrics))


def in_ranks(n: int, trainer: str, folder: Path, shards: Path, *more: str) -> Trained:
    """A training in n processes, `trainer` being a file of conf/trainer."""
    folder.mkdir(parents=True, exist_ok=True)
    words = (*WORDS, f"trainer={trainer}", f"batch_size={ROWS // n}", f"steps={STEPS}", f"data.root={shards.parent}")
    if trainer != "cpu":
        words = (*words, "trainer.accelerator=cpu", "trainer.precision=32-true", f"trainer.devices={n}")
    context, port = get_context("fork"), next(PORTS)
    processes = [context.Process(target=on_rank, args=(rank, n, port, folder, (*words, *more))) for rank in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * n
    metrics = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(n)]
    losses, validated = ([one[name] for one in metrics] for name in ("train/loss", "val/loss"))
    return Trained(folder / "runs/run/last.ckpt", losses, validated)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, bridge_shards: Path) -> Trained:
    """The same training in one process."""
    return in_ranks(1, "cpu", tmp_path_factory.mktemp("alone"), bridge_shards, "trainer.limit_val_batches=1.0")


def same(one: Trained, other: Trained) -> None:
    assert mean(one.losses) == pytest.approx(mean(other.losses), rel=1e-4)
    assert one.validated == pytest.approx([other.validated[0]] * len(one.validated), rel=1e-4)
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in other.weights.items():
        torch.testing.assert_close(one.weights[name], tensor, atol=2e-6, rtol=1e-4, msg=lambda s, n=name: f"{n}: {s}")


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_many_processes_train_what_one_trains(
    trainer: str, n: int, alone: Trained, tmp_path: Path, bridge_shards: Path
) -> None:
    """Losses, held-out losses and weights, which a spread network gathers into the ordinary file."""
    many = in_ranks(n, trainer, tmp_path, bridge_shards, "trainer.limit_val_batches=1.0")
    same(many, alone)
    policy = TrainedPolicy.from_checkpoint(many.file)  # whose frames are answered again as when it was saved
    assert policy.card.contract
    assert run("export", [f"ckpt={many.file}", "layout=ckpt", f"out={tmp_path / 'exported'}"]) == 0
    exported = torch.load(tmp_path / "exported/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(exported[name], tensor) for name, tensor in many.weights.items())


@pytest.mark.parametrize(("before", "behind"), [("fsdp", "cpu"), ("cpu", "fsdp")])
def test_a_training_goes_on_with_another_number_of_processes(
    before: str, behind: str, alone: Trained, tmp_path: Path, bridge_shards: Path
) -> None:
    """Spread over two and then in one, and the other way round: each batch keeps its samples."""
    numbers = {"cpu": 1, "fsdp": 2}
    whole = ("trainer.limit_val_batches=1.0", "ckpt_path=auto")
    in_ranks(numbers[before], before, tmp_path, bridge_shards, *whole, "steps=2", "validate_every=2")
    same(in_ranks(numbers[behind], behind, tmp_path, bridge_shards, *whole), alone)


def waits_with_another(rank: int, port: int) -> None:
    """Gives its own number and waits for the other one's, who is killed."""
    from vlakit.cli.errors import readable_errors

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with readable_errors():
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
        while True:
            dist.all_reduce(torch.ones(1))
            time.sleep(0.01)


def test_a_collective_that_lost_its_partner_is_one_readable_error(capfd: pytest.CaptureFixture[str]) -> None:
    context, port = get_context("fork"), next(PORTS)
    two = [context.Process(target=waits_with_another, args=(rank, port)) for rank in range(2)]
    for process in two:
        process.start()
    time.sleep(2)
    two[1].kill()
    two[0].join(30)
    said = capfd.readouterr().err
    assert (two[0].exitcode, said.count("RankLost"), "Traceback" in said) == (1, 1, False)
    assert "ckpt_path=auto" in said


def of(parent: int) -> Iterator[tuple[int, str]]:
    """Number and command line of each process that `parent` has started."""
    for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        yield int(number), Path(f"/proc/{number}/cmdline").read_text()


def begun(folder: Path, shards: Path, *launcher: str) -> subprocess.Popen[str]:
    """A training of two processes by the user's command, which would not end by itself."""
    words = ["experiment=full", "logger=none", "validate_every=2", f"data.root={shards.parent}", *LIGHT]
    words += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.devices=2"]
    own = {"VLAKIT_RUNS": str(folder), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher, "train.py", *words, "steps=1000000", f"hydra.run.dir={folder}"]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stderr=subprocess.PIPE, text=True)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.parametrize(("launcher", "killed"), [((), "further"), ((), "first"), (TORCHRUN, "further")], ids=str)
def test_a_killed_process_ends_the_training_within_a_minute_and_it_goes_on_from_its_last_checkpoint(
    launcher: tuple[str, ...], killed: str, tmp_path: Path, bridge_shards: Path
) -> None:
    whole = begun(tmp_path, bridge_shards, *launcher)
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "last.ckpt").is_file():
            assert whole.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        further = [number for number, words in of(whole.pid) if launcher or "train_ddp_process_1" in words]
        os.kill(whole.pid if killed == "first" else further[-1], signal.SIGKILL)
        _, said = whole.communicate(timeout=60)  # to the end of all processes, which share its standard error
    finally:
        whole.kill()
    assert whole.returncode == (-signal.SIGKILL if killed == "first" else 1)
    assert launcher or (said.count("RankLost"), "Traceback" in said) == (1, False), said
    step = torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"]
    further = (f"steps={step + 2}", "validate_every=2", f"data.root={bridge_shards.parent}", "logger=none")
    goes_on = ("experiment=full", "batch_size=4", "ckpt_path=auto", f"paths.output={tmp_path}", *further)
    train_here(tmp_path, *goes_on)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == step + 2
