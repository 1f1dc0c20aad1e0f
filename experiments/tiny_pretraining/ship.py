"""Turn a run into a checkpoint that ships with vlakit: python experiments/tiny_pretraining/ship.py RUN tiny.

Weights and card stay, the optimizer and what names this machine go; the checksum is written beside it.
"""

import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch

from vlakit.checkpoints.card import CARD, Card
from vlakit.checkpoints.file import read_checkpoint
from vlakit.checkpoints.shipped import ASSETS, SHIPPED

OF_THE_RUN = ("data", "mlflow_run_id")


def main(run: str, name: str) -> None:
    """Write assets/NAME.ckpt and NAME.ckpt.sha256."""
    checkpoint = read_checkpoint(run)
    written = Card.from_dict(checkpoint[CARD], where=run)
    facts = {key: value for key, value in written.facts.items() if key not in OF_THE_RUN}
    card = replace(written, base=None, facts=facts).to_dict()
    weights = {k: v.float() for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
    file = ASSETS / SHIPPED[name]
    torch.save({CARD: card, "state_dict": weights}, file)
    digest = sha256(file.read_bytes()).hexdigest()
    Path(f"{file}.sha256").write_text(f"{digest}  {file.name}\n", encoding="utf-8")
    print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB, {sum(w.numel() for w in weights.values()):,} numbers")


if __name__ == "__main__":
    main(*sys.argv[1:])
