"""`vlakit export ckpt=runs/... out=DIR`: a checkpoint in the Hugging Face OpenVLA layout, or its adapter alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_format, emit
from vlakit.cli.policies import load_policy
from vlakit.errors import ConfigError, nearest

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def main(overrides: Sequence[str]) -> None:
    """Load, check the contract, write."""
    cfg = verb_config("export", overrides)
    check_format(cfg["format"])
    if cfg["dtype"] is not None and cfg["dtype"] not in DTYPES:
        raise ConfigError(f"no dtype {cfg['dtype']!r}", where="command line", do=nearest(cfg["dtype"], DTYPES))
    import torch

    from vlakit.checkpoints.export import ExportOptions, check_target, export
    from vlakit.checkpoints.formats import Loaded

    out = Path(cfg["out"])
    check_target(out, cfg["layout"])
    check_writable(out)
    dtype = None if cfg["dtype"] is None else getattr(torch, DTYPES[cfg["dtype"]])
    # What is quantised is cast before: afterwards it would be too late for most of it.
    policy = load_policy({**cfg, "device": "cpu", "constrain": True}, None if cfg["quantize"] == "none" else dtype)
    export(
        Loaded(policy.network, policy.processor, policy.card),
        out,
        cfg["layout"],
        ExportOptions(dtype, cfg["shard_bytes"], cfg["base"], tuple(cfg["trusted"])),
    )
    files = {file.name: file.stat().st_size for file in sorted(out.iterdir())}
    lines = [f"{size:>14,}  {name}" for name, size in files.items()]
    report: dict[str, Any] = {"out": str(out), "layout": cfg["layout"], "files": files}
    if policy.quantization is not None:
        report["quantization"] = policy.quantization.to_dict()
        lines.append(str(policy.quantization))
    emit(report, "\n".join([*lines, f"written to {out}"]), cfg["format"])
