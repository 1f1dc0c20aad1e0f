"""Camera weights for Diffusion Policy from before any robot data, as ImageNet's are in print.

PYTHONPATH=experiments/tiny_pretraining python experiments/adaptation_narrow/camera.py SCENES OUT [--experiment NAME]

The camera network of dp_tiny and dp_tiny_matched learns to say where things of each colour and the gripper are, from
pictures as the shipped towers learn from (render_scenes.py there), and the layer that says it is thrown away. OUT is a
checkpoint for `model.weights=OUT`: that camera network, all other weights random. Prints what is right on 500 pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tiny_recipe.scenes import SceneArrays, SceneAugmentation, SceneFolder, to_batch
from torch import Tensor, nn

from vlakit.checkpoints.card import CARD, Card
from vlakit.cli.configuration import compose_config, to_plain
from vlakit.models.network import build_network
from vlakit.processing.processor import Processor, build_processor
from vlakit.seeding import seed_everything

HELD_OUT = 500
PLATE = "plate"
RATE, BATCH = 1e-3, 64
NUMBERS = 3  # of each thing: logit of being there; u, v as shares of the picture's side


class Places(nn.Module):
    """What one linear layer reads from a camera's features: things of each colour, plates of each, the gripper."""

    def __init__(self, cameras: nn.Module, scenes: SceneFolder, width: int) -> None:
        super().__init__()
        self.cameras, self.colours, self.plate = cameras, len(scenes.colours), scenes.shapes.index(PLATE)
        self.says = nn.Linear(width, NUMBERS * (2 * self.colours + 1) + 1)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """loss; there, right (M,) of what is and is not there; pixels (K,) away."""
        said = self.says(self.cameras(batch.pixels)[:, 0])
        things, is_open = said[:, :-1].unflatten(1, (-1, NUMBERS)), said[:, -1]
        there = torch.zeros(things.shape[:2])
        places = torch.zeros(*things.shape[:2], 2)
        row, slot = (batch.objects[..., 0] >= 0).nonzero(as_tuple=True)
        objects = batch.objects[row, slot]
        which = objects[:, 0].long() + self.colours * (objects[:, 1] == self.plate)
        there[row, which], places[row, which] = 1, objects[:, 2:]
        hands = batch.gripper[:, 0] >= 0
        there[hands, -1], places[hands, -1] = 1, batch.gripper[hands, :2]
        away = (things[..., 1:].sigmoid() - places).abs()[there > 0]
        loss = F.binary_cross_entropy_with_logits(things[..., 0], there) * there.shape[1]
        loss = loss + F.binary_cross_entropy_with_logits(is_open[hands], batch.gripper[hands, 2])
        loss = loss + 20 * away.mean()
        return {"loss": loss, "right": ((things[..., 0] > 0) == (there > 0))[there > 0].float(), "pixels": 64 * away}


def batches(scenes: SceneFolder, processor: Processor, rows: np.ndarray, rng: np.random.Generator | None) -> Any:
    """One batch of these rows, changed by `rng`."""
    arrays = SceneArrays.read(scenes, rows)
    return to_batch(arrays if rng is None else SceneAugmentation()(arrays, rng), processor)


def main() -> None:
    """Train, say what was learnt, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--experiment", default="dp_tiny", help="whose other weights stand beside the camera's")
    given = parser.parse_args()
    seed_everything(0)
    cfg = compose_config("train", [f"experiment={given.experiment}"])
    processor = build_processor(to_plain(cfg.model.processor))
    network: Any = build_network(to_plain(cfg.model.network), processor)
    scenes, rng = SceneFolder.open(given.scenes), np.random.default_rng(0)
    width = network.seen_size - processor.settings.proprio - network.language.width
    places = Places(network.obs_encoder, scenes, width)
    optimizer = torch.optim.AdamW(places.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, given.steps)
    for step in range(given.steps):
        rows = np.sort(rng.choice(len(scenes) - HELD_OUT, BATCH, replace=False))
        loss = places(batches(scenes, processor, rows, rng))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"{step}: {loss.item():.3f}", flush=True)
    with torch.no_grad():
        marks = places.eval()(batches(scenes, processor, np.arange(len(scenes) - HELD_OUT, len(scenes)), None))
    print({name: round(value.mean().item(), 3) for name, value in marks.items()})
    card = Card({"kind": network.kind, **network.settings}, processor.description, {}, strategy="camera")
    given.out.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({CARD: card.to_dict(), "state_dict": tensors}, given.out / "last.ckpt")


if __name__ == "__main__":
    main()
