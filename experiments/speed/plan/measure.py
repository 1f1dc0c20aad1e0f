"""Training steps of the 7B model on this machine's GPU, beside the plan: memory, and samples a second.

PYTHONPATH=src python experiments/speed/plan/measure.py                     all of it, to measured.csv
PYTHONPATH=src python experiments/speed/plan/measure.py vlakit:lora_r32     one strategy, as vlakit trains it
PYTHONPATH=src python experiments/speed/plan/measure.py original:sandwich   the same row as the released code trains it
PYTHONPATH=src python experiments/speed/plan/measure.py plan                no GPU: results.csv, the plan's columns anew

Random weights and pictures. vlakit: bf16-true at batch 1 and 16, without and with checkpointing. original: openvla.md
3.1 and 3.5; LoRA on a bf16 base under autocast, the others float32 under FSDP (torch's first, which shards nothing on
one GPU) with checkpointing, at the paper's batch on each GPU.
"""

from __future__ import annotations

import csv
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlakit.accounting.dry_step import Workload, set_checkpointing
from vlakit.accounting.memory import Estimate, Setup, estimate, measured_peak
from vlakit.accounting.meta import prepared
from vlakit.cli.configuration import compose_config
from vlakit.cli.plan import PAPER_BATCH, ROWS, against_table1, original
from vlakit.cli.policies import policy_of
from vlakit.models.network import Output
from vlakit.models.openvla.vla import text_of
from vlakit.schema import Batch
from vlakit.strategies.base import PolicyModule
from vlakit.strategies.optim import parameter_groups

HERE = Path(__file__).resolve().parent
OUT = HERE / "measured.csv"
GPUS = {"full": 2, "frozen_vision": 2}  # of the paper's rows; one elsewhere
COLUMNS = (
    *("setting", "strategy", "batch_size", "checkpointing", "device", "torch", "peak_bytes", "plan_bytes"),
    *(
        "peak_over_plan",
        "reserved_bytes",
        "used_bytes",
        "plan_total_bytes",
        "used_over_plan",
        "step_s",
        "samples_per_s",
        "tflops",
    ),
    "error",
)
Row = dict[str, Any]


def main(asked: list[str]) -> None:
    """Each strategy in a process of its own; a line of the table as soon as it is known."""
    if asked == ["plan"]:
        planned_again()
        return
    if not asked:
        OUT.unlink(missing_ok=True)
    names = asked or [f"{setting}:{name}" for setting in ("vlakit", "original") for name in ROWS]
    for name in names:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"setting"')]
        if done.returncode:
            setting, _, strategy = name.partition(":")
            last = (done.stderr.strip() or "no output").splitlines()[-1]
            rows.append({"setting": setting, "strategy": strategy, "error": f"exit {done.returncode}: {last[:200]}"})
        for row in rows:
            put(row)


def planned_again() -> None:
    """The plan beside the paper, and beside what was measured, by this version of the plan."""
    config = compose_config("plan", ["against=table1"])
    report, text = against_table1(config, ["against=table1"])
    print(text)
    rows = [flat(row) for row in report["rows"]]
    write(HERE / "results.csv", list(rows[0]), rows)
    with OUT.open(newline="") as stream:
        known: list[Row] = list(csv.DictReader(stream))
    for row in (row for row in known if row["peak_bytes"]):
        workload = Workload(checkpointing=row["checkpointing"] == "True")
        setup = Setup.of("bf16-true")
        if row["setting"] == "original":
            setup, workload = original(row["strategy"], 1)
        memory = plan_of(row["strategy"], setup, workload).at(int(row["batch_size"]))
        row |= {"plan_bytes": memory.peak, "plan_total_bytes": memory.total}
        row["peak_over_plan"] = round(int(row["peak_bytes"]) / memory.peak, 3)
        row["used_over_plan"] = round(int(row["used_bytes"]) / memory.total, 3)
        print(
            *(row[key] for key in ("setting", "strategy", "batch_size", "checkpointing", "peak_over_plan")), flush=True
        )
    write(OUT, COLUMNS, known)


@cache
def plan_of(strategy: str, setup: Setup, workload: Workload) -> Estimate:
    """The estimate at every batch size."""
    return planned(policy_of(compose_config("plan", list(ROWS[strategy]))), setup, workload)


def flat(row: Row) -> Row:
    """A row of the paper's table with the parts of the estimate, GB a GPU."""
    memory: Row = row["memory_bytes"]
    parts = {"weights": memory["weights"], "gradients": memory["gradients"], "moments": memory["optimizer"]}
    parts |= {"activations": sum(memory["activations"].values())}
    parts |= {"gathered": memory["unsharded"], "overhead": memory["overhead"]}
    told = {key: value for key, value in row.items() if key != "memory_bytes"}
    told["batch_per_gpu"] = memory["batch_size"]
    return {
        **told,
        **{f"{name}_gb": round(size / 1e9, 2) for name, size in parts.items()},
        "peak_in": memory["peak_in"],
    }


def write(file: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """A whole table."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def put(row: Row) -> None:
    """One more line of the table, and on the screen."""
    new = not OUT.is_file()
    with OUT.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({key: f"{v:.4g}" if isinstance(v := row.get(key, ""), float) else v for key in COLUMNS})
    print({key: value for key, value in row.items() if value not in (None, "")}, flush=True)


def one(name: str) -> None:
    """What one strategy takes, a line a batch size."""
    setting, _, strategy = name.partition(":")
    for row in {"vlakit": by_vlakit, "original": by_original}[setting](strategy):
        facts = {"setting": setting, "strategy": strategy, "device": torch.cuda.get_device_name()}
        print(json.dumps({**facts, "torch": torch.__version__, **row}), flush=True)


def by_vlakit(strategy: str) -> Iterator[Row]:
    """As `vlakit plan measure=true` does."""
    policy = policy_of(compose_config("plan", list(ROWS[strategy])))
    setup = Setup.of("bf16-true")
    plans = {ckpt: planned(policy, setup, Workload(checkpointing=ckpt)) for ckpt in (False, True)}
    model = on_gpu(policy, torch.bfloat16).to(torch.bfloat16).train()
    optimizer = policy.build_optimizer(parameter_groups(model, decay_norms_and_biases=policy.decay_norms_and_biases))
    for rows, checkpointing in ((1, False), (16, False), (16, True)):
        if checkpointing:
            set_checkpointing(model)
        batch = filled(Workload().batch(policy.processor, rows, "cuda").to("cuda"), torch.bfloat16)
        yield stepped(model, optimizer, batch, plans[checkpointing], autocast=False) | {"checkpointing": checkpointing}


def by_original(strategy: str) -> Iterator[Row]:
    """As the released code; one GPU has a row's batch for one GPU."""
    setup, workload = original(strategy, 1)
    rows = PAPER_BATCH // GPUS.get(strategy, 1)
    policy = policy_of(compose_config("plan", list(ROWS[strategy])))
    plan = planned(policy, setup, workload)
    stored = setup.numerics.stored
    model = on_gpu(policy, stored).to(stored).train()
    if setup.half_frozen_vision and not any(p.requires_grad for p in model.vision_backbone.parameters()):
        model.vision_backbone.to(torch.bfloat16)
    if workload.checkpointing:
        set_checkpointing(model)
    batch = filled(workload.batch(policy.processor, rows, "cuda").to("cuda"), stored)
    whole: Any = AllLogits(model)
    if setup.fsdp:
        whole = fsdp(whole)
    optimizer = torch.optim.AdamW([p for p in whole.parameters() if p.requires_grad], lr=2e-5)
    yield stepped(whole, optimizer, batch, plan, autocast=True) | {"checkpointing": workload.checkpointing}


def fsdp(model: nn.Module) -> nn.Module:
    """Layer by layer, bf16 at work over float32 weights, as the released code wraps it."""
    from timm.models.vision_transformer import Block, VisionTransformer
    from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    from vlakit.models.openvla.projector import Projector

    half = torch.bfloat16
    torch.distributed.init_process_group("nccl", init_method="tcp://127.0.0.1:29511", rank=0, world_size=1)
    return FullyShardedDataParallel(
        model,
        auto_wrap_policy=ModuleWrapPolicy({Block, VisionTransformer, LlamaDecoderLayer, Projector}),
        mixed_precision=MixedPrecision(param_dtype=half, reduce_dtype=half, buffer_dtype=half),
        device_id=0,
        limit_all_gathers=True,
        use_orig_params=True,
    )


class AllLogits(nn.Module):
    """A network whose loss asks for the logits of every position."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> Output:
        """Cross-entropy over the labels."""
        text = text_of(batch)
        logits = self.network.all_logits(self.network.pixels(batch), text.ids, text.mask).float()
        labels = nn.functional.pad(text.labels[:, 1:], (logits.shape[1] - text.labels.shape[1], 0), value=-100)
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100)
        return Output(loss, row_losses=logits)  # whoever calls it holds the logits, as of transformers' output


def planned(policy: PolicyModule, setup: Setup, workload: Workload) -> Estimate:
    """The estimate at every batch size."""
    return estimate(prepared(policy), policy.processor, setup, workload)


def on_gpu(policy: PolicyModule, dtype: torch.dtype) -> Any:
    """The network with random weights, made where it will be."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return policy.built("cuda")
    finally:
        torch.set_default_dtype(before)


def filled(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch with noise for pictures: zeros would be quicker."""

    def noise(frames: Tensor) -> Tensor:
        return torch.randn(frames.shape, device="cuda", dtype=dtype)

    return replace(batch, pixels={name: noise(frames) for name, frames in batch.pixels.items()})


def stepped(model: Any, optimizer: torch.optim.Optimizer, batch: Batch, plan: Estimate, *, autocast: bool) -> Row:
    """Memory of two steps and the time of three more, beside the plan."""
    rows = len(batch)
    memory = plan.at(rows)
    row: Row = {"batch_size": rows, "plan_bytes": memory.peak, "plan_total_bytes": memory.total}
    try:
        found = measured_peak(model, optimizer, batch, autocast=autocast)
        began = time.perf_counter()
        for _ in range(3):
            step(model, optimizer, batch, autocast=autocast)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / 3
    except torch.OutOfMemoryError as error:
        row["error"] = f"out of memory: {str(error)[:120]}"
    else:
        row |= {"peak_bytes": found["allocated"], "reserved_bytes": found["reserved"], "used_bytes": found["used"]}
        row |= {"peak_over_plan": round(found["allocated"] / memory.peak, 3), "step_s": seconds}
        row["used_over_plan"] = round(found["used"] / memory.total, 3)
        row |= {"samples_per_s": rows / seconds, "tflops": plan.step.flops * rows / seconds / 1e12}
    optimizer.zero_grad()
    gc.collect()
    torch.cuda.empty_cache()
    return row


def step(model: Any, optimizer: torch.optim.Optimizer, batch: Batch, *, autocast: bool) -> None:
    """One step."""
    optimizer.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        loss = model(batch).loss
    loss.backward()
    optimizer.step()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2])
    else:
        main(sys.argv[1:])
