"""Processes of one training end together: with processes that do nothing in place of those that train."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch.distributed as dist

from vlakit.cli.errors import as_vlakit_error, readable_errors
from vlakit.cli.ranks import _FIRST, end_together
from vlakit.errors import RankLost

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def first(started: list[Any], fails: bool) -> None:
    """The first of three processes, once it has started the others."""
    two = [subprocess.Popen(SLEEP) for _ in range(2)]
    launcher = SimpleNamespace(procs=two)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher), world_size=3)
    started += [process.pid for process in two]
    with readable_errors(), end_together(trainer):
        while fails and two[0].poll() is None:
            time.sleep(0.001)
        if fails:
            raise RuntimeError("[x/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")
        time.sleep(30)


@pytest.mark.parametrize("fails", [False, True], ids=["it waits", "its own collective fails"])
def test_where_one_is_killed_the_first_ends_the_others_and_says_so_once(
    fails: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    context = get_context("fork")
    with context.Manager() as manager:
        started = manager.list()
        process = context.Process(target=first, args=(started, fails))
        process.start()
        while len(started) < 2:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(started[0], signal.SIGKILL)
        process.join(20)
        assert process.exitcode == 1
        psutil.wait_procs([psutil.Process(pid) for pid in started if psutil.pid_exists(pid)], 10)
        assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in started)
    said = capfd.readouterr().err
    assert said.count("RankLost") == said.count("\n  do: ") == 1, said
    assert "process 1 of this training was ended by SIGKILL" in said


def further(above: int) -> None:
    """A process that another one has started."""
    os.environ[_FIRST] = str(above)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=None), world_size=2)
    with end_together(trainer):
        time.sleep(30)


def test_where_the_first_is_gone_the_others_end(capfd: pytest.CaptureFixture[str]) -> None:
    process: BaseProcess = get_context("fork").Process(target=further, args=(os.getpid() + 1,))
    process.start()
    process.join(20)
    assert process.exitcode == 1
    assert "the first process of this training is gone" in capfd.readouterr().err


def test_a_training_that_ends_well_leaves_no_mark_in_the_environment() -> None:
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=None), world_size=1)
    with end_together(trainer):
        assert os.environ[_FIRST] == str(os.getpid())
    assert _FIRST not in os.environ


def test_what_a_collective_says_is_an_error_to_act_on() -> None:
    for error in (dist.DistBackendError("NCCL timed out"), RuntimeError("[a/gloo/b.cc:1] Connection closed by peer")):
        assert isinstance(as_vlakit_error(error), RankLost)
    assert as_vlakit_error(RuntimeError("shapes do not match")) is None
