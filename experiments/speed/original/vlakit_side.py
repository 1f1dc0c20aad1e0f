"""vlakit's model with the same weights and inputs: vlakit_side.py FIXTURE FOLDER PRECISION."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from seeded_model import loaded
from shape import BATCH, DATASET, LEARNING_RATE, PRECISIONS, PROMPT, inputs
from sides import serve

from vlakit.models.openvla.decoding import Choice, generate
from vlakit.processing.normalizer import unnormalize
from vlakit.schema import Inputs, TextBatch
from vlakit.strategies.optim import parameter_groups

fixture, folder, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
torch.set_num_threads(2)
model, processor = loaded(fixture, folder, PRECISIONS[precision])
given = inputs()
pixels, ids = given["pixel_values"].to(PRECISIONS[precision]), given["input_ids"]
batch = Inputs(
    pixels={"primary": pixels[:, None]},
    window_mask=torch.ones(BATCH, 1, dtype=torch.bool),
    datasets=[DATASET] * BATCH,
    action_shape=(1, 7),
    text=TextBatch(ids, torch.ones_like(ids), given["labels"]),
)
groups = parameter_groups(model, decay_norms_and_biases=True)
optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.0, fused=True)


def train() -> float:
    """One step: forward, backward, optimizer."""
    model.train()
    loss = model.answers(batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def answer(n_rows: int, choice: Choice) -> list[list[float]]:
    """Actions of the first rows."""
    model.eval()
    decoded = generate(model, model.encode_image(pixels[:n_rows]), ids[:n_rows, :PROMPT].tolist(), 7, choice)
    normalized = processor.actions.decode(decoded.ids.numpy(), strict=False)
    return unnormalize(normalized, processor.statistics_of(DATASET)).tolist()


allowed = Choice((processor.actions.begin, processor.actions.padding_id))
serve(
    {
        "train": train,
        "act": lambda: answer(1, allowed),
        "act_open": lambda: answer(1, Choice()),
        "act_batch": lambda: answer(BATCH, allowed),
        "parameters": lambda: sum(p.numel() for p in model.parameters()),
    }
)
