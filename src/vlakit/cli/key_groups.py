"""Keys that several verbs share, and those of `vlakit serve`, `data` and `select`, with what each may hold."""

from __future__ import annotations

from typing import Literal

from vlakit.checked import MANY, Few, Flag, Rows, Seed, Some, Text
from vlakit.cli.kinds import FORMAT, RATE, SHARE, Device, Place, Scalar, Texts, chosen, maybe, real, whole

STORE = {"tracking_uri": Text, "experiment": Text}
DOCTOR = {"runs": Place, "tracking_uri": Text, "disk_gb": RATE, "format": FORMAT}
POLICY = {"base": maybe(Place), "trusted": Texts}
QUANTIZE = {"quantize": chosen("none", "int8", "int4"), "quantize_also": tuple[Literal["vision", "lm_head"], ...]}
CHECKPOINT = {**POLICY, "device": Device, "constrain": Flag, "strict": maybe(Flag)}
BATCHES = {"batch_size": Rows, "num_workers": Few, "seed": Seed}
QUESTIONS = {"questions": dict[Text, Place] | None, "mix.robot": SHARE, "mix.loss": chosen("example", "token")}
QUESTIONS |= {"later.mixture": Text | dict[Text, real(gt=0)] | None, "later.step": maybe(whole(1))}  # of data too
REMOTE = {
    "remote.cache": Place,
    "remote.cache_gb": real(gt=0),
    "remote.attempts": whole(1, 100),
    "remote.timeout_s": real(gt=0, le=3600),
}

PREFERENCE = {  # of strategy
    "loss": Text,
    "beta": real(gt=0),
    "label_smoothing": real(ge=0, lt=0.5),
    **dict.fromkeys(("sft_weight", "desirable_weight", "undesirable_weight", "drift_warn"), real(ge=0)),
    "micro_batch": Rows,
}
PAIRS = {  # of data
    **dict.fromkeys(("pairs", "weights"), maybe(Place)),
    "loss": Text,
    "val_batch_size": Rows,
    **dict.fromkeys(("rounds", "starts", "rollouts_per_start"), Some),
    "starts_seed": Seed,
    "temperature": real(gt=0),
    "slots": Rows,
    "trusted": Texts,
}
CLIENT = {"cameras": dict[str, Scalar | dict[str, str]] | None, "token": maybe(Text), "timeout_s": real(gt=0)}
SERVE = {
    **dict.fromkeys(("ckpt", "recording"), maybe(Place)),
    "policy": maybe(chosen("expert", "recorded")),
    **dict.fromkeys(("suite", "dataset"), maybe(Text)),
    "dialect": Text | list[Text] | dict[str, whole(0)],
    "port": maybe(whole(0, 65_535)),
    "host": Text,
    "generation": chosen("n1.5", "n1.6", "n1.7"),
    **dict.fromkeys(("episodes", "batch_rows", "waiting", "max_clients"), Some),
    "rows": maybe(Some),
    **dict.fromkeys(("pad_to", "queue"), whole(0, MANY)),
    **dict.fromkeys(("wait_ms", "drain_s"), real(ge=0, lt=1e12)),
    "ensemble": maybe(real(ge=0, lt=1e12)),
    "rate": maybe(real(gt=0, lt=1e12)),
    "max_bytes": whole(1, 2**31),
    **CLIENT,
    "timeout_s": real(ge=1, lt=1e12),
    **CHECKPOINT,
    **QUANTIZE,
    "cuda_graphs": Flag,
}
LOOKS = {
    **dict.fromkeys(("init", "show", "out"), maybe(Place)),
    "mixture": Text | dict[Text, real(gt=0)] | None,
    **dict.fromkeys(("episodes", "frames"), Some),
    "model": Text,
    "augment": Flag | Text,
    "root": Place,
    "counts": dict[Text, whole(1)] | None,
    "samples": maybe(whole(1)),
    "format": FORMAT,
}
WHOLE = {"serve": SERVE, "data": LOOKS, "doctor": DOCTOR}

SELECT = {
    **dict.fromkeys(("pool", "dataset", "paths.runs"), Place),
    **dict.fromkeys(("map", "out"), maybe(Place)),
    "acquisition": Text,
    **dict.fromkeys(("first", "batch", "rounds", "pca", "updates"), Some),
    "passes": whole(2, 1000),
    "seed": Seed,
    **dict.fromkeys(("trusted", "cameras"), Texts),
    **dict.fromkeys(("average", "amortised"), Flag),
    "drop": SHARE,
    "val_fraction": real(ge=0, lt=1),
    "rank_by": chosen("conf_x_var", "correctness", "confidence", "variability"),
    "device": Device,
    "thumbnails": Few,
}
