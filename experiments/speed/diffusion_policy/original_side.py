"""Diffusion Policy's own code in its own environment: original_side.py CODE FOLDER.

Its weights and settings go to FOLDER as a converted checkpoint, from which the other side begins.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from shape import (
    ACTION,
    BETAS,
    CHUNK,
    DECAY,
    EMA_POWER,
    HORIZON,
    LEARNING_RATE,
    PROPRIO,
    SCHEDULE,
    SHAPE_META,
    UNET,
    WINDOW,
    observed,
)
from sides import serve

code, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(code))
from diffusers import DDIMScheduler, DDPMScheduler  # noqa: E402
from diffusion_policy.model.common.normalizer import LinearNormalizer, SingleFieldLinearNormalizer  # noqa: E402
from diffusion_policy.model.diffusion.ema_model import EMAModel  # noqa: E402
from diffusion_policy.model.vision.model_getter import get_resnet  # noqa: E402
from diffusion_policy.model.vision.multi_image_obs_encoder import MultiImageObsEncoder  # noqa: E402
from diffusion_policy.policy.diffusion_unet_image_policy import DiffusionUnetImagePolicy  # noqa: E402

torch.set_num_threads(2)
torch.manual_seed(0)
encoder = MultiImageObsEncoder(SHAPE_META, get_resnet("resnet18"), use_group_norm=True, imagenet_norm=True)
policy = DiffusionUnetImagePolicy(
    SHAPE_META, DDPMScheduler(**SCHEDULE), encoder, HORIZON, CHUNK, WINDOW, num_inference_steps=100, **UNET
)
pictures, states, actions = observed()
normalizer = LinearNormalizer()
normalizer.fit({"state": states.reshape(-1, PROPRIO), "action": actions.reshape(-1, ACTION)})
normalizer["camera"] = SingleFieldLinearNormalizer.create_manual(
    scale=np.array([2], np.float32),
    offset=np.array([-1], np.float32),
    input_stats_dict={key: np.array([0.5], np.float32) for key in ("min", "max", "mean", "std")},
)
policy.set_normalizer(normalizer)
save_file({name: tensor.contiguous() for name, tensor in policy.state_dict().items()}, folder / "model.safetensors")
target = {"_target_": "diffusion_policy.policy.diffusion_unet_image_policy.DiffusionUnetImagePolicy"}
sizes = {"horizon": HORIZON, "n_obs_steps": WINDOW, "n_action_steps": CHUNK, "num_inference_steps": 100}
vision = {"rgb_model": {"name": "resnet18"}, "use_group_norm": True, "imagenet_norm": True}
schedule = {"_target_": "diffusers.DDPMScheduler", **SCHEDULE}
settings = {**target, **sizes, **UNET, "noise_scheduler": schedule, "obs_encoder": vision, "shape_meta": SHAPE_META}
(folder / "diffusion_policy.json").write_text(json.dumps({"policy": settings}))

seen = {
    "camera": torch.from_numpy(np.moveaxis(pictures, -1, 2).astype(np.float32) / 255),
    "state": torch.from_numpy(states),
}
batch = {"obs": seen, "action": torch.from_numpy(actions)}
optimizer = torch.optim.AdamW(policy.parameters(), LEARNING_RATE, BETAS, weight_decay=DECAY)
ema = EMAModel(copy.deepcopy(policy), power=EMA_POWER)
steps = 0


def train() -> list[float]:
    """One step as the original's workspace takes it, its average included."""
    global steps
    torch.manual_seed(steps)
    steps += 1
    policy.train()
    loss = policy.compute_loss(batch)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    ema.step(policy)
    return [loss.item()]


@torch.inference_mode()
def act(scheduler: DDPMScheduler | DDIMScheduler, n: int) -> list[float]:
    """One observation to a chunk; how long it is, as draws are each side's own."""
    policy.eval()
    policy.noise_scheduler, policy.num_inference_steps = scheduler, n
    return list(policy.predict_action({key: value[:1] for key, value in seen.items()})["action"].shape)


serve(
    {
        "train": train,
        "ddpm_100": lambda: act(DDPMScheduler(**SCHEDULE), 100),
        "ddim_10": lambda: act(DDIMScheduler(**SCHEDULE), 10),
    }
)
