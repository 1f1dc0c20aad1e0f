"""Keys that several verbs share, and those of `vlakit serve`, with what each may hold."""

from __future__ import annotations

from vlakit.checked import MANY, Few, Flag, Rows, Seed, Some, Text
from vlakit.cli.kinds import Device, Place, Scalar, Texts, maybe, real, whole

STORE = {"tracking_uri": Text, "experiment": Text}
POLICY = {"base": maybe(Place), "trusted": Texts}
CHECKPOINT = {**POLICY, "device": Device, "constrain": Flag, "strict": maybe(Flag)}
BATCHES = {"batch_size": Rows, "num_workers": Few, "seed": Seed}

CLIENT = {"cameras": dict[str, Scalar | dict[str, str]] | None, "token": maybe(Text), "timeout_s": Some}
SERVE = {
    **dict.fromkeys(("ckpt", "recording"), maybe(Place)),
    **dict.fromkeys(("policy", "suite", "dataset"), maybe(Text)),
    "dialect": Text | list[Text] | dict[str, whole(0)],
    "port": maybe(whole(0, 65_535)),
    **dict.fromkeys(("host", "generation"), Text),
    **dict.fromkeys(("episodes", "batch_rows", "waiting", "max_clients"), Some),
    "rows": maybe(Some),
    **dict.fromkeys(("pad_to", "queue"), whole(0, MANY)),
    **dict.fromkeys(("wait_ms", "drain_s"), whole(0, MANY)),
    **dict.fromkeys(("ensemble", "rate"), maybe(real(ge=0))),
    "max_bytes": whole(1, 2**31),
    **CLIENT,
    **CHECKPOINT,
}
