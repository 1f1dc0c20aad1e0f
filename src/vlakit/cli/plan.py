"""`vlakit plan model=siglip_7b strategy=lora batch_size=16`: memory, time and disk of a run before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from vlakit.cli.configuration import compose_config, to_plain
from vlakit.cli.output import check_format, emit
from vlakit.cli.policies import policy_of
from vlakit.cli.uncollected import uncollected
from vlakit.errors import ConfigError, PartMissing, nearest

if TYPE_CHECKING:
    from vlakit.accounting.dry_step import Workload
    from vlakit.accounting.memory import Estimate, Setup
    from vlakit.strategies.base import PolicyModule

ROWS = {  # of Table 1
    "full": ("strategy=full",),
    "last_layer": ("strategy=last_layer",),
    "frozen_vision": ("strategy=frozen_vision",),
    "sandwich": ("strategy=sandwich",),
    "lora_r32": ("strategy=lora", "strategy.rank=32"),
    "lora_r64": ("strategy=lora", "strategy.rank=64"),
}
PEAK_TFLOPS = {"bf16-true": 312.0, "bf16-mixed": 312.0, "32-true": 19.5}  # A100, dense
PAPER_BATCH = 16


@uncollected()
def main(overrides: Sequence[str]) -> None:
    """Print what a strategy takes, what fits on which card, and how long and how large the run will be."""
    words = [word for word in overrides if word != "strategy=all"]
    cfg = compose_config("plan", words)
    _check(cfg)
    if cfg.against is not None:
        report, text = against_table1(cfg, words)
    elif len(words) < len(overrides):
        plans = [plan(compose_config("plan", [*words, *row]), name) for name, row in ROWS.items()]
        report, text = {"rows": plans}, table(plans)
    else:
        report = plan(cfg)
        text = _text(report)
    emit(report, text, cfg.format)


def _check(cfg: DictConfig) -> None:
    check_format(cfg.format)
    for key, known in {"logits": ("labelled", "all"), "against": (None, "table1")}.items():
        if cfg[key] not in known:
            raise ConfigError(
                f"{key}={cfg[key]} is unknown", where=key, do=nearest(str(cfg[key]), [k for k in known if k])
            )
    for key in ("batch_size", "prompt_tokens", "answer_tokens", "mfu"):
        if not isinstance(cfg[key], int | float) or cfg[key] <= 0:
            raise ConfigError(f"{key}={cfg[key]} is not above zero", where=key, do="give a positive number")


def plan(cfg: DictConfig, name: str | None = None) -> dict[str, Any]:
    """One strategy's plan as plain values; with measure=true, what two real steps took beside it."""
    from vlakit.accounting.dry_step import Workload
    from vlakit.accounting.memory import CARDS, Setup, estimate
    from vlakit.accounting.meta import prepared

    fused = bool((to_plain(cfg.strategy).get("optimizer") or {}).get("fused"))
    setup = Setup.of(cfg.precision, cfg.sharding, fused=fused)
    workload = Workload(cfg.prompt_tokens, cfg.answer_tokens, cfg.logits == "all", cfg.checkpointing)
    if cfg.measure:
        _check_measurable(cfg)
    policy = policy_of(cfg)
    counted = estimate(prepared(policy), policy.processor, setup, workload)
    memory = counted.at(cfg.batch_size)
    report = {
        "model": to_plain(cfg.model.network),
        "strategy": name or policy.name,
        **{key: cfg[key] for key in ("batch_size", "precision", "checkpointing", "sharding", "logits")},
        "memory_bytes": memory.to_dict(),
        "fits": {str(card): memory.total <= size for card, size in CARDS.items()},
        "largest_batch": {str(card): counted.largest_batch(size) for card, size in CARDS.items()},
        "time": _time(cfg, counted),
        "disk_bytes": {"checkpoint": counted.checkpoint_bytes, "shards": cfg.frames * cfg.frame_bytes},
    }
    if cfg.measure:
        report["measured_bytes"] = measured(cfg, policy, setup, workload)
    return report


def _time(cfg: DictConfig, counted: Estimate) -> dict[str, float]:
    tflops = PEAK_TFLOPS[cfg.precision] if cfg.tflops is None else float(cfg.tflops)
    seconds = counted.step_seconds(cfg.batch_size, tflops, cfg.mfu)
    return {
        "tflop_per_sample": counted.step.flops / 1e12,
        "tflops": tflops,
        "mfu": cfg.mfu,
        "seconds_per_step": seconds,
        "hours": seconds * cfg.steps / 3600,
        "steps": cfg.steps,
    }


def _check_measurable(cfg: DictConfig) -> None:
    import torch

    if not torch.cuda.is_available():
        raise PartMissing("measure=true needs a CUDA GPU", where="measure", do="leave measure out: the plan needs none")
    if cfg.sharding > 1 or cfg.logits == "all":
        what = "only vlakit's own step on one GPU can be measured"
        raise ConfigError(what, where="measure", do="add sharding=1 logits=labelled, or leave measure out")


def measured(cfg: DictConfig, policy: PolicyModule, setup: Setup, workload: Workload) -> dict[str, int]:
    """Bytes that two steps with random weights and data take on the GPU."""
    import torch

    from vlakit.accounting.dry_step import set_checkpointing
    from vlakit.accounting.memory import measured_peak
    from vlakit.strategies.optim import parameter_groups

    before = torch.get_default_dtype()
    torch.set_default_dtype(setup.numerics.stored)  # 7B in float32 first would be a peak of its own
    try:
        model = policy.built("cuda")
    finally:
        torch.set_default_dtype(before)
    model.to(device="cuda", dtype=setup.numerics.stored).train()
    if cfg.checkpointing:
        set_checkpointing(model)
    optimizer = policy.build_optimizer(parameter_groups(model, decay_norms_and_biases=policy.decay_norms_and_biases))
    batch = workload.batch(policy.processor, cfg.batch_size, "cuda").to("cuda")
    return measured_peak(model, optimizer, batch, autocast=setup.numerics.autocast)


def against_table1(cfg: DictConfig, words: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The released code's set-up, row by row, beside the paper's figures."""
    from vlakit.accounting.memory import estimate
    from vlakit.accounting.meta import prepared

    rows: list[dict[str, Any]] = []
    for name, paper in to_plain(cfg.table1).items():
        policy = policy_of(compose_config("plan", [*words, *ROWS[name]]))
        memory = estimate(prepared(policy), policy.processor, *original(name, paper["gpus"])).at(
            PAPER_BATCH // paper["gpus"]
        )
        gigabytes = paper["gpus"] * memory.total / 1e9
        rows.append(
            {
                "strategy": name,
                "gpus": paper["gpus"],
                "paper_gb": paper["gb"],
                "estimate_gb": round(gigabytes, 1),
                "error_percent": round(100 * (gigabytes / paper["gb"] - 1), 1),
                "short_gb_per_gpu": round((paper["gb"] - gigabytes) / paper["gpus"], 1),
                "memory_bytes": memory.to_dict(),
            }
        )
    header = f"{'strategy':<15}{'GPUs':>5}{'paper GB':>10}{'estimate':>10}{'error':>9}{'short per GPU':>15}"
    lines = [header, "-" * len(header)]
    lines += [
        f"{r['strategy']:<15}{r['gpus']:>5}{r['paper_gb']:>10.1f}{r['estimate_gb']:>10.1f}{r['error_percent']:>8.1f}%"
        f"{r['short_gb_per_gpu']:>12.1f} GB"
        for r in rows
    ]
    return {"rows": rows}, "\n".join(lines)


def original(name: str, gpus: int) -> tuple[Setup, Workload]:
    """How the released code trains a row: LoRA on a bf16 base, the others float32 under FSDP (openvla.md 3.1, 3.5)."""
    import torch

    from vlakit.accounting.dry_step import Numerics, Workload
    from vlakit.accounting.memory import FSDP_MIXED, Setup

    if name.startswith("lora"):
        half = Numerics(torch.bfloat16, torch.bfloat16, autocast=True)
        return Setup(half, fused=False), Workload(all_logits=True)
    setup = Setup(FSDP_MIXED, gpus, fsdp=True, half_frozen_vision=True, fused=False)
    return setup, Workload(all_logits=True, checkpointing=True)


def _text(report: Mapping[str, Any]) -> str:
    memory, time = report["memory_bytes"], report["time"]
    sizes = {
        "weights": memory["weights"],
        "gradients": memory["gradients"],
        "AdamW's moments": memory["optimizer"],
        **{f"activations, {part}": size for part, size in memory["activations"].items()},
        "gathered units": memory["unsharded"],
        "overhead": memory["overhead"],
    }
    lines = [f"{what:<30}{size / 1e9:9.2f} GB" for what, size in sizes.items() if size]
    lines.append(f"{'peak, in the ' + memory['peak_in']:<30}{memory['total'] / 1e9:9.2f} GB a GPU")
    lines += _cards(report)
    lines.append(
        f"{time['seconds_per_step']:.2f} s a step, {time['hours']:.1f} h for {time['steps']:,} steps"
        f" ({time['tflop_per_sample']:.1f} TFLOP a sample at {time['mfu']:.0%} of {time['tflops']:g} TFLOP/s, assumed)"
    )
    disk = report["disk_bytes"]
    lines.append(f"{disk['checkpoint'] / 1e9:.1f} GB a checkpoint with its moments")
    if disk["shards"]:
        lines.append(f"{disk['shards'] / 1e9:.1f} GB of shards")
    for what, size in report.get("measured_bytes", {}).items():
        beside = memory["peak"] if what == "allocated" else memory["total"]
        lines.append(f"measured, {what:<20}{size / 1e9:9.2f} GB  (estimate {100 * (beside / size - 1):+.1f} %)")
    return "\n".join(lines)


def _cards(report: Mapping[str, Any]) -> list[str]:
    return [
        f"{card:>4} GB card: batch {report['batch_size']} {'fits' if fits else 'does not fit'},"
        f" the largest is {report['largest_batch'][card]}"
        for card, fits in report["fits"].items()
    ]


def table(plans: Sequence[Mapping[str, Any]]) -> str:
    """One line a plan."""
    cards = list(plans[0]["largest_batch"])
    sizes = f"{'weights':>9}{'gradients':>11}{'AdamW':>8}{'activations':>13}{'peak GB':>9}"
    header = f"{'strategy':<15}{sizes}   largest batch on"
    lines = [header + "".join(f"{card + ' GB':>8}" for card in cards)]
    lines.append("-" * len(lines[0]))
    for each in plans:
        m = each["memory_bytes"]
        kept = sum(m["activations"].values())
        numbers = (
            f"{m['weights'] / 1e9:>9.1f}{m['gradients'] / 1e9:>11.1f}{m['optimizer'] / 1e9:>8.1f}{kept / 1e9:>13.1f}"
        )
        largest = "".join(f"{each['largest_batch'][card]:>8}" for card in cards)
        lines.append(f"{each['strategy']:<15}{numbers}{m['total'] / 1e9:>9.1f}{'':>19}{largest}")
    return "\n".join(lines)
