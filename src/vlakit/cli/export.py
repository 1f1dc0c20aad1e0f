"""`vlakit export ckpt=RUN out=DIR`: a checkpoint in the Hugging Face OpenVLA layout, its adapter, or demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_format, emit
from vlakit.cli.policies import load_policy
from vlakit.errors import ConfigError, nearest

if TYPE_CHECKING:
    from vlakit.data.specs.spec import DatasetSpec
    from vlakit.models.quantize import Quantization

EEF_COLUMNS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")  # as GR00T and LeRobot call them
VERSIONS = {"lerobot": "v3.0", "lerobot21": "v2.1"}  # layouts that are datasets
SHOWN = 40  # files that the text lists; the JSON lists all
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def main(overrides: Sequence[str]) -> None:
    """Load, check the contract, write."""
    cfg = verb_config("export", overrides)
    check_format(cfg["format"])
    if cfg["layout"] in VERSIONS:
        export_demonstrations(cfg)
        return
    if cfg["ckpt"] is None:
        raise ConfigError("no value for 'ckpt'", do="add ckpt=... to the command line")
    if cfg["dtype"] is not None and cfg["dtype"] not in DTYPES:
        raise ConfigError(f"no dtype {cfg['dtype']!r}", where="command line", do=nearest(cfg["dtype"], DTYPES))
    if cfg["layout"] == "adapter" and cfg["quantize"] != "none":
        what = f"quantize={cfg['quantize']} merges the adapter that layout=adapter would write"
        raise ConfigError(what, where="command line", do="layout=ckpt, or layout=hf; quantize where the base is loaded")
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
    _report(cfg, out, {}, policy.quantization)


def export_demonstrations(cfg: Mapping[str, Any]) -> None:
    """Shards, or a dataset with its spec, as a LeRobot dataset."""
    from vlakit.data.demonstration import demonstrations
    from vlakit.data.formats import needed
    from vlakit.data.source import source_folder
    from vlakit.data.specs.spec import load_spec

    if cfg["source"] is None:
        remedy = "add source=SHARDS, or source=DATASET dataset=SPEC"
        raise ConfigError("no value for 'source'", where="command line", do=remedy)
    out, source = Path(cfg["out"]), source_folder(cfg["source"])
    check_writable(out)
    needed("pyarrow", "lerobot")
    needed("av", "lerobot")
    from vlakit.data.lerobot.meta import WriteOptions
    from vlakit.data.lerobot.writer import write_dataset

    spec = _spec_of(source) if cfg["dataset"] is None else load_spec(cfg["dataset"])
    rate = cfg["fps"] or (spec.control_hz if spec else None)
    if rate is None or rate != int(rate):
        what = f"LeRobot takes a whole number of frames a second, not {rate:g}" if rate else "no rate is known"
        raise ConfigError(what, where="fps", do="add fps=... to the command line")
    options = WriteOptions(int(rate), cfg["codec"], VERSIONS[cfg["layout"]], cfg["robot_type"], _columns(spec))
    counts = write_dataset(demonstrations(source, spec, cfg["cameras"]), out, options)
    _report(cfg, out, counts)


def _spec_of(shards: Path) -> DatasetSpec | None:
    """The spec of a shard folder's dataset, where conf/ has one."""
    from vlakit.data.shards.index import INDEX_NAME, load_index
    from vlakit.data.specs.spec import load_spec, spec_names

    name = load_index(shards).dataset if (shards / INDEX_NAME).is_file() else None
    return load_spec(name) if name in spec_names() else None


def _columns(spec: DatasetSpec | None) -> tuple[str, ...] | None:
    """What the action's columns are called, where its encoding says it."""
    return EEF_COLUMNS if spec is not None and spec.action_encoding == "EEF_POS" else None


def _report(
    cfg: Mapping[str, Any], out: Path, counts: Mapping[str, int], quantization: Quantization | None = None
) -> None:
    files = {str(file.relative_to(out)): file.stat().st_size for file in sorted(out.rglob("*")) if file.is_file()}
    lines = [f"{size:>14,}  {name}" for name, size in list(files.items())[:SHOWN]]
    lines += [f"{'':>16}and {len(files) - SHOWN} more files"] if len(files) > SHOWN else []
    lines += [f"{count:,} {what}" for what, count in counts.items()]
    report: dict[str, Any] = {**counts, "out": str(out), "layout": cfg["layout"], "files": files}
    if quantization is not None:
        report["quantization"] = quantization.to_dict()
        lines.append(str(quantization))
    emit(report, "\n".join([*lines, f"written to {out}"]), cfg["format"])
