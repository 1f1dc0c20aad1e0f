"""vlakit's model with the same weights and inputs: vlakit_side.py FIXTURE FOLDER PRECISION."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from shape import BATCH, DATASET, LEARNING_RATE, PRECISIONS, PROMPT, inputs, seeded, serve

from vlakit.checkpoints.hf_config import read_description
from vlakit.checkpoints.weights import load_weights, released_name
from vlakit.data.shards.statistics import statistics_from_json
from vlakit.models.openvla.decoding import Choice, generate
from vlakit.models.openvla.vla import build_empty
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.optim import parameter_groups

fixture, folder, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
torch.set_num_threads(2)
description = read_description(folder)
model = build_empty(description.model)
shapes = [(released_name(name), tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
load_weights(model, seeded(fixture, shapes), where=str(folder), dtype=PRECISIONS[precision])
processor = TokenProcessor(description.processor, statistics_from_json(description.statistics or {}, where=str(folder)))
given = inputs()
pixels, ids = given["pixel_values"].to(PRECISIONS[precision]), given["input_ids"]
none = torch.zeros(1)
batch = Batch(pixels, ids, torch.ones_like(ids), given["labels"], none, none, none, [""] * BATCH, [DATASET] * BATCH)
groups = parameter_groups(model, decay_norms_and_biases=True)
optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.0, fused=True)


def train() -> float:
    """One step: forward, backward, optimizer."""
    model.train()
    loss = model(batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def answer(n_rows: int, choice: Choice) -> list[list[float]]:
    """Actions of the first rows."""
    model.eval()
    decoded = generate(model, pixels[:n_rows], ids[:n_rows, :PROMPT].tolist(), 7, choice)
    return processor.decode_actions(decoded.ids.numpy(), DATASET, strict=False)[:, 0].tolist()


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
