"""What each key of each verb, and of train, may hold: one table, which pydantic checks before any work is begun.

The keys of an evaluation and of a score are those of their requests. Keys that a user's own files add, and those of a
section whose `_target_` is a user's own class, are free.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field

from vlakit.checked import MANY, Few, Flag, Fraction, Pixels, Rows, Seed, Some, Text
from vlakit.cli import request_keys
from vlakit.cli.key_groups import (
    BATCHES,
    CHECKPOINT,
    PAIRS,
    POLICY,
    PREFERENCE,
    QUANTIZE,
    QUESTIONS,
    REMOTE,
    SELECT,
    STORE,
    WHOLE,
)
from vlakit.cli.kinds import (
    FORMAT,
    RATE,
    SHARE,
    TABLE,
    Device,
    Place,
    Scalar,
    SuiteName,
    Texts,
    chosen,
    maybe,
    real,
    whole,
)
from vlakit.cli.request_keys import below
from vlakit.data.shards.pool import ELSEWHERE

SUITE = {  # suite.KEY=VALUE, of the suites that vlakit brings
    "embodiment": Text,
    "name": Text,
    "axes": Annotated[Texts, Field(min_length=1)],
    "image_size": Pixels,
    "dataset": maybe(Text),
    "split": Text,  # which there are, the suite says
    "starts_seed": maybe(whole(0)),
    "assets": maybe(Place),
    "benchmark": Text,
    "repeat": whole(1, 500),
    "camera": Text,
    "tasks": Texts,
    "skills": Texts,
}
STRATEGY = {
    **dict.fromkeys(("weights", "feature_cache"), maybe(Place)),
    "decay_norms_and_biases": Flag,
    "feature_copies": whole(1, 1000),
    "trainable": Texts,
    "rank": whole(1, 65_536),
    "alpha": real(gt=0),
    "dropout": real(ge=0, lt=1),
    "adapter_only": Flag,
    **PREFERENCE,
    "targets": maybe(Texts),
    "optimizer.lr": RATE,
    "optimizer.betas": tuple[real(ge=0, lt=1), real(ge=0, lt=1)],
    "optimizer.weight_decay": RATE,
    "optimizer.fused": Flag,
    "scheduler.warmup_steps": whole(0),
    "scheduler.final_share": SHARE,
    "scheduler.decay_share": SHARE,
}
MODEL = {
    "weights": maybe(Place),
    "network": dict[str, Any],
    "processor.kind": Text,
    "processor.image_size": Pixels,
    "processor.channel_statistics": Annotated[Texts, Field(min_length=1)],
    "processor.tokenizer": Text,
    "processor.tokenizer_path": maybe(Place),
    "processor.prompt": Text,
    "processor.resize": Text,
    "processor.n_bins": whole(2, 65_536),
    "processor.chunk": whole(1, 10_000),
    "processor.cameras": Annotated[Texts, Field(min_length=1)],
    "processor.window": whole(1, 10_000),
    "processor.proprio": whole(0, 10_000),
    "processor.jpeg": Flag,
    "processor.center_crop": maybe(real(gt=0, le=1)),
}
DATA = {
    "mixture": Text | dict[Text, real(gt=0)],
    "root": Place,
    "sources": dict[Text, Place] | None,
    "specs": dict[Text, Place] | None,
    "made_by": maybe(Text),
    "val_fraction": real(ge=0, lt=1),
    **BATCHES,
    "augment": Flag | Text,
    "shuffle_shards": whole(1, MANY),
    **QUESTIONS,
    **REMOTE,
    **PAIRS,
}
STEPS = whole(1, 10**10)
TRAINER = {
    "accelerator": chosen("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "devices": Literal[-1, "auto"] | whole(1, 1024) | list[whole(0, 1024)],
    "precision": Text,
    "max_steps": Literal[-1] | STEPS,
    "max_epochs": Literal[-1] | maybe(whole(1, MANY)),
    "gradient_clip_val": maybe(real(ge=0)),
    **dict.fromkeys(("accumulate_grad_batches", "log_every_n_steps"), Some),
    "val_check_interval": whole(1) | maybe(real(gt=0, le=1)),
    "check_val_every_n_epoch": maybe(Some),
    "reload_dataloaders_every_n_epochs": whole(0, MANY),
    "limit_val_batches": whole(0) | maybe(SHARE),
    "overfit_batches": whole(0) | SHARE,
    "num_sanity_val_steps": whole(-1, MANY),
    **dict.fromkeys(("use_distributed_sampler", "enable_model_summary", "enable_progress_bar"), Flag),
    "default_root_dir": maybe(Place),
}
LOGGER = {
    **STORE,
    "artifacts": maybe(Place),
    "system_metrics": Flag,
    "checkpoint": chosen("auto", "last", "best", "none"),
    **dict.fromkeys(("register", "alias", "project", "folder", "group"), maybe(Text)),
}
RATES = ("pretrain", "full", "last_layer", "frozen_vision", "sandwich", "lora", "lora_r64", "dpo")
LR = {f"lr.{name}": RATE for name in RATES}
ROWS = ("full", "last_layer", "frozen_vision", "sandwich", "lora_r32", "lora_r64")  # of Table 1
PATHS = {"runs": Place, "data": Place, "output": maybe(Place)}


def _train() -> dict[str, Any]:
    own = {
        "name": Text,
        **BATCHES,
        "ckpt_path": maybe(Place),
        "steps": STEPS,
        "validate_every": STEPS,
        "gradient_clip": maybe(real(ge=0)),
        "gpu_precision": Text,
        **LR,
        "tags": dict[str, Scalar],
    }
    evaluation = {**request_keys.evaluate(), "suite": maybe(SuiteName)}
    sections = {"paths": PATHS, "model": MODEL, "data": DATA, "strategy": STRATEGY, "trainer": TRAINER}
    sections |= {"logger": LOGGER, "evaluate": evaluation}
    return own | {key: kind for name, keys in sections.items() for key, kind in below(name, keys).items()}


_COUNTED = {**LR, "format": FORMAT, **below("model", MODEL), **below("strategy", STRATEGY)}
_ROLLED = {"episodes": Some, "tasks": Texts, "workers": Few, "format": FORMAT}
_FIXED: dict[str, dict[str, Any]] = {
    **WHOLE,
    "suite": below("suite", SUITE),
    "explain": _COUNTED,
    "bench": {**_COUNTED, **BATCHES, **below("paths", PATHS), **below("data", DATA), "batches": Some, "device": Device},
    "plan": {
        **_COUNTED,
        "batch_size": Rows,
        "precision": chosen("bf16-true", "bf16-mixed", "32-true"),
        "checkpointing": Flag,
        "sharding": Rows,
        "logits": chosen("labelled", "all"),
        "prompt_tokens": whole(1, MANY),
        "answer_tokens": whole(1, MANY),
        "tflops": maybe(real(gt=0)),
        "mfu": real(gt=0, le=1),
        "steps": STEPS,
        "frames": whole(0),
        "frame_bytes": whole(0),
        "measure": Flag,
        "against": maybe(chosen("table1")),
        **{f"table1.{row}.gb": real(gt=0) for row in ROWS},
        **{f"table1.{row}.gpus": Rows for row in ROWS},
    },
    "shards": {
        **dict.fromkeys(("dataset", "source", "out", "append", "verify"), maybe(Place)),
        "cameras": Annotated[Texts, Field(min_length=1)],
        "image_size": maybe(Pixels),
        "val_fraction": real(ge=0, lt=1),
        **dict.fromkeys(("max_frames_per_shard", "max_bytes_per_shard"), whole(1)),
        "on_error": chosen("raise", "skip"),
        "max_errors": real(ge=0, le=1),
        "workers": whole(1, 1024) | chosen(*ELSEWHERE),
        "format": FORMAT,
    },
    "replay": {
        **_ROLLED,
        **CHECKPOINT,
        "suite": Text,
        **dict.fromkeys(("ckpt", "data", "demonstrations"), maybe(Place)),
        "slots": Rows,
    },
    "demonstrate": {
        **_ROLLED,
        "suite": Text,
        "out": maybe(Place),
        "root": Place,
        "noise": SHARE,
        "seed": Seed,
        "questions": maybe(Some),
    },
    "select": {**SELECT, "format": FORMAT},
    "affordances": {
        **CHECKPOINT,
        **{"ckpt": Place, "suite": Text, "out": maybe(Place), "look": Text, "learn": chosen("mc", "td0")},
        **{"episodes": Some, "epochs": Some, "every": maybe(Some), "slots": Rows, "seed": Seed, "format": FORMAT},
    },
    "compare": {
        **STORE,
        "runs": Place | list[Place] | dict[Text, Place | list[Place]] | None,
        "paired": chosen("auto", "common", True, False),
        "score": chosen("success", "credit"),
        "margin": Fraction,
        "confidence": Fraction,
        "by_task": Flag,
        **dict.fromkeys(("reference", "against", "parent", "sort"), maybe(Text)),
        "format": TABLE,
    },
    "table": {
        **STORE,
        "name": Text,
        "source": chosen("runs", "paper"),
        **dict.fromkeys(("from", "save", "svg"), maybe(Place)),
        "parent": Text | list[Text],
        "margin": maybe(Fraction),
        "confidence": Fraction,
        "where": dict[str, Scalar] | None,
        "score": maybe(chosen("success", "credit")),
        "paired": chosen("auto", "common", True, False),
        "format": TABLE,
    },
    "passport": {
        **STORE,
        **POLICY,
        "run": Place,
        "out": maybe(Place),
        "verify": Flag,
        "format": FORMAT,
        **below("card", dict.fromkeys(("name", "license", "base_model", "benchmark", "url"), maybe(Text))),
    },
    "reproduce": {
        **POLICY,
        "passport": Place,
        "train": maybe(Flag),
        **dict.fromkeys(("out", "weights", "ckpt", "data.root", "model.processor.tokenizer_path"), maybe(Place)),
        "device": maybe(Device),
        "workers": Few,
        "margin": Fraction,
        "confidence": Fraction,
        "format": FORMAT,
        **below("paths", {"runs": Place, "data": Place}),
    },
    "export": {
        **POLICY,
        **dict.fromkeys(("ckpt", "source", "dataset"), maybe(Place)),
        **QUANTIZE,
        "out": Place,
        "layout": chosen("hf", "adapter", "ckpt", "lerobot", "lerobot21"),
        "cameras": Texts,
        "codec": chosen("av1", "h264", "jpeg"),
        "fps": maybe(real(gt=0, le=1000)),
        "robot_type": maybe(Text),
        "dtype": maybe(chosen("fp32", "bf16", "fp16")),
        "shard_bytes": whole(1),
        "strict": maybe(Flag),
        "format": FORMAT,
    },
}
_MADE = {
    "ask": request_keys.ask,
    "evaluate": request_keys.evaluate,
    "score": request_keys.score,
    "collect": request_keys.collect,
    "pairs": request_keys.pairs,
    "train": _train,
}


@cache
def keys(verb: str) -> dict[str, Any]:
    """Key -> type of a verb, of train, or of a suite."""
    return _MADE[verb]() if verb in _MADE else _FIXED[verb]
