"""vlakit's policy from the folder that the original's side wrote: vlakit_side.py FOLDER."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from shape import BATCH, BETAS, DECAY, EMA_POWER, LEARNING_RATE, SCHEDULE, observed
from sides import serve

from vlakit.accounting.dry_step import Workload
from vlakit.checkpoints.formats import load
from vlakit.models.diffusion_policy.policy import DiffusionPolicy
from vlakit.models.diffusion_policy.sampler import Sampler
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation
from vlakit.strategies.ema import averaged, decay

torch.set_num_threads(2)
loaded = load(Path(sys.argv[1]))
policy = TrainedPolicy(loaded.network, loaded.processor)
network = policy.network
if not isinstance(network, DiffusionPolicy):
    raise SystemExit("no Diffusion Policy")
pictures, states, actions = observed()
shown = [Observation({"camera": pictures[row]}, "", proprio=states[row]) for row in range(BATCH)]
inputs = policy.processor.observe(shown)
blank = Workload().batch(policy.processor, BATCH, "cpu")
normalized = torch.from_numpy(policy.processor.normalized_actions(actions, None)).float()
batch = replace(blank, pixels=inputs.pixels, proprio=inputs.proprio, normalized=normalized)
network.requires_grad_(True)
optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, BETAS, weight_decay=DECAY, fused=True)
average = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
steps = 0


def train() -> list[float]:
    """One step: forward, backward, optimizer, average."""
    global steps
    torch.manual_seed(steps)
    network.train()
    loss = network(batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    averaged(average, network, decay(steps, power=EMA_POWER))
    steps += 1
    return [loss.item()]


def act(scheduler: str, n: int) -> list[float]:
    """One observation to a chunk."""
    network.eval()
    network.sampler = Sampler(scheduler=scheduler, steps=n, **SCHEDULE)
    return list(policy.act(shown[:1]).shape)


serve({"train": train, "ddpm_100": lambda: act("ddpm", 100), "ddim_10": lambda: act("ddim", 10)})
