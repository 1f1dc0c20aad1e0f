"""The original's modelling code, run in its own environment: original_side.py CODE FIXTURE FOLDER PRECISION."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import torch
from shape import BATCH, DATASET, LEARNING_RATE, PRECISIONS, PROMPT, inputs, seeded
from sides import serve

code, fixture, folder, precision = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
torch.set_num_threads(2)
package = types.ModuleType("original")
package.__path__ = [str(code)]
sys.modules["original"] = package
modeling = importlib.import_module("original.modeling_prismatic")
configuration = importlib.import_module("original.configuration_prismatic")

model = modeling.OpenVLAForActionPrediction(configuration.OpenVLAConfig.from_pretrained(str(folder)))
shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
model.load_state_dict(dict(seeded(fixture, shapes)))
model = model.to(PRECISIONS[precision])
batch = inputs()
batch["pixel_values"] = batch["pixel_values"].to(PRECISIONS[precision])
batch["attention_mask"] = torch.ones_like(batch["input_ids"])
optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)


def train() -> float:
    """One step as the original's fine-tuning script takes it."""
    model.train()
    output = model(**batch)
    output.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return output.loss.item()


@torch.inference_mode()
def act() -> list[list[float]]:
    """One observation to one action."""
    model.eval()
    prompt = batch["input_ids"][:1, :PROMPT]
    action = model.predict_action(
        prompt,
        unnorm_key=DATASET,
        pixel_values=batch["pixel_values"][:1],
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
    )
    return [action.tolist()]


@torch.inference_mode()
def act_each() -> list[list[float]]:
    """A batch of observations: the original takes them one by one."""
    model.eval()
    actions = []
    for i in range(BATCH):
        prompt = batch["input_ids"][i : i + 1, :PROMPT]
        pixels = batch["pixel_values"][i : i + 1]
        mask = torch.ones_like(prompt)
        action = model.predict_action(
            prompt, unnorm_key=DATASET, pixel_values=pixels, attention_mask=mask, do_sample=False
        )
        actions.append(action.tolist())
    return actions


serve(
    {
        "train": train,
        "act": act,
        "act_batch": act_each,
        "parameters": lambda: sum(p.numel() for p in model.parameters()),
    }
)
