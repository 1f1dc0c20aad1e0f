"""What is measured of a 7B model, one function a step; each runs in a process of its own: see run.py.

A step takes its settings, calls `measured` around what counts, and returns what else there is to say.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from vlakit.accounting.dry_step import Workload, set_checkpointing
from vlakit.accounting.inference import inference
from vlakit.accounting.memory import Setup, estimate
from vlakit.accounting.meta import prepared
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.evaluation.actors import Turn
from vlakit.evaluation.suite import InitialState
from vlakit.models.adapters import LoraNumbers, every_layer, inject_lora
from vlakit.models.cpu import use_onednn
from vlakit.models.network import Graphed, build_network, capability
from vlakit.models.openvla.decoding import after_prompts
from vlakit.policy import TrainedPolicy
from vlakit.processing.processor import Processor, build_processor
from vlakit.schema import Observation
from vlakit.serving.remote import remote_actor
from vlakit.strategies.lora import Lora
from vlakit.strategies.optim import constant

RANK = 32
CALLS = {"cpu": (0, 1), "cuda": (4, 20)}  # answers that do not count, behind the first, and those that do
PICTURE = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
ASKED = "put the carrot on the plate"
DATASET = "tabletop_d0"  # whose statistics turn answers into actions
NO_WORLDS: Any = None
Facts = dict[str, Any]
STEPS: dict[str, Callable[[argparse.Namespace], Facts]] = {}


def step(run: Callable[[argparse.Namespace], Facts]) -> Callable[[argparse.Namespace], Facts]:
    """File a step under its name."""
    STEPS[run.__name__.rstrip("_")] = run
    return run


@contextmanager
def measured(given: argparse.Namespace, facts: Facts) -> Iterator[None]:
    """Seconds and peak bytes of the block: on a GPU torch's, on a CPU what is resident beyond what was before.

    Weights that are read as they are stay mapped from their file: resident, and in peak_bytes, but not in
    peak_own_bytes, and the kernel may drop them.
    """
    cuda = given.device.startswith("cuda")
    before, own = status_bytes("VmRSS"), status_bytes("RssAnon")  # Python and its libraries
    ended, peaks = threading.Event(), [0]
    watching = threading.Thread(target=watch, args=(ended, peaks), daemon=True)
    watching.start()
    if cuda:
        torch.zeros(1, device=given.device)
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    yield
    if cuda:
        torch.cuda.synchronize()
    ended.set()
    watching.join()
    facts["measured_s"] = time.perf_counter() - began
    facts |= {"before_bytes": before, "peak_own_bytes": peaks[0] - own}
    facts["peak_bytes"] = torch.cuda.max_memory_allocated() if cuda else status_bytes("VmHWM") - before


def status_bytes(what: str, process: str = "self") -> int:
    """VmRSS, VmHWM (its most) or RssAnon of a process. (ru_maxrss would be that of the process before, too.)"""
    return int(Path(f"/proc/{process}/status").read_text().partition(f"{what}:")[2].split()[0]) * 1024


def card_bytes() -> int:
    """In use on the GPU, by whomever."""
    free, size = torch.cuda.mem_get_info()
    return size - free


def watch(ended: threading.Event, peaks: list[int], process: str = "self") -> None:
    """Keep the most of what is no file's."""
    while not ended.wait(0.02):
        peaks[0] = max(peaks[0], status_bytes("RssAnon", process))


def policy_of(given: argparse.Namespace, scheme: str) -> TrainedPolicy:
    """The folder's policy."""
    options = LoadOptions(quantize=scheme)
    return TrainedPolicy.from_checkpoint(given.folder, device=given.device, options=options)


def planned(given: argparse.Namespace, scheme: str = "none") -> int:
    """Bytes that the plan foresees for one answer."""
    network, processor = empty(given)
    return inference(network, processor, torch.bfloat16, scheme).at(1)


def empty(given: argparse.Namespace) -> tuple[Any, Processor]:
    """The folder's network on the meta device, and its processor."""
    config = json.loads((Path(given.folder) / "config.json").read_text())["vlakit"]
    processor = build_processor({"kind": "tokens", **config["processor"]})
    return build_network({"kind": "openvla", **config["model"]}, processor, device="meta"), processor


def answered(
    given: argparse.Namespace,
    scheme: str,
    change: Callable[[TrainedPolicy], Facts | None] = lambda _: None,
    then: Callable[[TrainedPolicy], Facts] = lambda _: {},
) -> Facts:
    """Loading, and the first and a later answer, by any variant of the policy; then what else there is to measure."""
    facts: Facts = {"plan_bytes": planned(given, scheme)}
    with measured(given, facts):
        began = time.perf_counter()
        policy = policy_of(given, scheme)
        facts["load_s"] = time.perf_counter() - began
        facts |= change(policy) or {}
        facts |= times(policy)
    return facts | then(policy)


def times(policy: TrainedPolicy) -> Facts:
    """Seconds of the first answer, and the median of later ones."""
    shown = [Observation.of(PICTURE, ASKED, DATASET)]
    first = seconds_of(lambda: policy.act(shown))
    unseen, counted = CALLS[policy.device.type]
    for _ in range(unseen):
        policy.act(shown)
    usual = median(seconds_of(lambda: policy.act(shown)) for _ in range(counted))
    return {"first_s": first, "act_s": usual, "actions_per_s": policy.processor.settings.chunk / usual}


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes, until a GPU has ended."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


@torch.inference_mode()
def parts(policy: TrainedPolicy) -> Facts:
    """Seconds of the towers with the projector, and of the prompt behind them; the rest of an answer decodes."""
    network: Any = policy.network
    inputs = policy.observed([Observation.of(PICTURE, ASKED, DATASET)])
    prompts = inputs.text.prompts() if inputs.text else []
    unseen, counted = CALLS[policy.device.type]
    found: Facts = {}
    patches = network.context(inputs)
    works = {"towers_s": lambda: network.context(inputs), "prompt_s": lambda: after_prompts(network, patches, prompts)}
    for name, work in works.items():
        found[name] = median([seconds_of(work) for _ in range(unseen + counted)][unseen:])
    return found


@step
def load_(given: argparse.Namespace) -> Facts:
    """Nothing but reading the weights."""
    facts: Facts = {"plan_bytes": inference(*empty(given), torch.bfloat16).weights}
    with measured(given, facts):
        network = load(given.folder).network.to(given.device)
        all(bool(tensor.view(torch.int16).amax()) for tensor in network.state_dict().values())  # every page is read
    return facts


@step
def act(given: argparse.Namespace) -> Facts:
    """As it is stored, in bfloat16."""
    return answered(given, "none", then=parts)


@step
def int8(given: argparse.Namespace) -> Facts:
    """Quantised while it is loaded."""
    return answered(given, "int8")


@step
def int4(given: argparse.Namespace) -> Facts:
    """The same in 4 bits."""
    return answered(given, "int4")


@step
def compile_(given: argparse.Namespace) -> Facts:
    """The language model compiled; lengths differ from token to token."""
    return answered(given, "none", compiled)


@step
def graph(given: argparse.Namespace) -> Facts:
    """The whole answer as one CUDA graph."""
    return answered(given, "none", graphed, then=as_eager)


@step
def int4_graph(given: argparse.Namespace) -> Facts:
    """The same in 4 bits."""
    return answered(given, "int4", graphed, then=as_eager)


def graphed(policy: TrainedPolicy) -> None:
    """Record what answers."""
    capability(policy.network, Graphed, purpose="this step").record()


def as_eager(policy: TrainedPolicy) -> Facts:
    """Whether other pictures get the same actions without the graph."""
    network: Any = policy.network
    noise = np.random.default_rng(1).integers(0, 256, (8, *PICTURE.shape), dtype=np.uint8)
    shown = [[Observation.of(picture, ASKED, DATASET)] for picture in noise]
    replayed = [policy.act(one) for one in shown]
    network.graphs = None
    return {"same_as_eager": sum(bool((policy.act(o) == r).all()) for o, r in zip(shown, replayed, strict=True))}


def compiled(policy: TrainedPolicy) -> None:
    """Let torch compile the language model at its first answer."""
    network: Any = policy.network
    network.language_model.model.forward = torch.compile(network.language_model.model.forward, dynamic=True)


@step
def oft(given: argparse.Namespace) -> Facts:
    """A chunk of eight by the L1 head, in one pass, with random weights made where they run."""
    config = json.loads((Path(given.folder) / "config.json").read_text())["vlakit"]
    whole = load(given.folder)
    processor = build_processor({"kind": "tokens", **config["processor"], "chunk": 8}, whole.processor.statistics)
    del whole
    described = {"kind": "openvla", **config["model"], "head": "l1", "head_options": {"action_size": 7}}
    network = build_network(described, processor, device="meta")
    facts: Facts = {"plan_bytes": inference(network, processor, torch.bfloat16).at(1)}
    with measured(given, facts):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        network = build_network(described, processor, device=given.device)
        torch.set_default_dtype(before)
        facts |= times(TrainedPolicy(network.to(torch.bfloat16), processor))
    return facts


@step
def score(given: argparse.Namespace) -> Facts:
    """One teacher-forced frame, as `vlakit score` answers them."""
    facts: Facts = {"plan_bytes": planned(given)}
    with measured(given, facts), torch.inference_mode():
        policy = policy_of(given, "none")
        batch = policy.processor.blank(1).to(torch.device(given.device))
        batch = replace(batch, pixels={name: torch.zeros_like(frames) for name, frames in batch.pixels.items()})
        facts["first_s"] = seconds_of(lambda: policy.network(batch).loss)
        facts["act_s"] = median(seconds_of(lambda: policy.network(batch).loss) for _ in range(3))
    return facts


@step
def lora(given: argparse.Namespace) -> Facts:
    """One step at batch 1: forward, backward with checkpointing, AdamW over the adapters; all in bfloat16."""
    _, processor = empty(given)
    config = json.loads((Path(given.folder) / "config.json").read_text())["vlakit"]
    network = {"kind": "openvla", **config["model"]}
    optimizer = partial(torch.optim.AdamW, lr=5e-4)
    module = Lora(network, processor, optimizer=optimizer, scheduler=constant, rank=RANK)
    workload = Workload(checkpointing=True)
    plan = estimate(prepared(module), processor, Setup.of("bf16-true"), workload).at(1)
    facts: Facts = {"plan_bytes": plan.peak}
    with measured(given, facts):
        model = load(given.folder).network.to(given.device).train()
        use_onednn(model)  # as a strategy does
        inject_lora(model, LoraNumbers(RANK, 16, 0.0, every_layer(model)))
        model.to(torch.bfloat16)
        set_checkpointing(model)
        moved = optimizer([p for p in model.parameters() if p.requires_grad])
        batch = workload.batch(processor, 1, given.device).to(torch.device(given.device))
        batch = replace(batch, pixels={name: torch.zeros_like(frames) for name, frames in batch.pixels.items()})
        began = time.perf_counter()
        loss = model(batch).loss
        loss.backward()
        moved.step()
        facts |= {"act_s": time.perf_counter() - began, "loss": float(loss.detach())}
    return facts


@step
def serve(given: argparse.Namespace) -> Facts:
    """`vlakit serve` in a process of its own, whose peak counts, and one question."""
    facts: Facts = {"plan_bytes": planned(given)}
    words = [f"ckpt={given.folder}", "dialect=openvla", "port=0", f"device={given.device}", "timeout_s=3600"]
    words += ["cuda_graphs=true"] if given.device.startswith("cuda") else []
    cuda = given.device.startswith("cuda")
    used = card_bytes() if cuda else 0
    began = time.perf_counter()
    facts["before_bytes"] = status_bytes("VmRSS")  # this process has imported what a server imports
    server = subprocess.Popen([sys.executable, "-m", "vlakit", "serve", *words], stdout=subprocess.PIPE, text=True)
    ended, peaks = threading.Event(), [0]
    watching = threading.Thread(target=watch, args=(ended, peaks, str(server.pid)), daemon=True)
    watching.start()
    line = server.stdout.readline().strip() if server.stdout else ""
    facts["load_s"] = time.perf_counter() - began
    actor = remote_actor(f"http://127.0.0.1:{line.rpartition(':')[2]}", "openvla", timeout_s=3600)
    turns = {0: Turn(InitialState("", "", 0, ASKED), 0, Observation.of(PICTURE, ASKED, DATASET))}
    facts["first_s"] = seconds_of(lambda: actor.act(turns, NO_WORLDS))
    facts["act_s"] = median(seconds_of(lambda: actor.act(turns, NO_WORLDS)) for _ in range(10 if cuda else 1))
    actor.close()
    ended.set()
    watching.join()
    facts["peak_own_bytes"] = peaks[0]
    resident = status_bytes("VmHWM", str(server.pid)) - facts["before_bytes"]
    facts["peak_bytes"] = card_bytes() - used if cuda else resident  # of a card: with CUDA's own, and what torch caches
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    return facts
