"""Sizes that both sides of the comparison share, and the random observations and actions of a batch.

One camera of 96 px without crops (whose draws would differ), a proprioception of 8, the original's U-Net at half width.
"""

from __future__ import annotations

import numpy as np

BATCH, SIZE, WINDOW, HORIZON, CHUNK, PROPRIO, ACTION = 16, 96, 2, 16, 8, 8, 7
LEARNING_RATE, BETAS, DECAY, EMA_POWER = 1e-4, (0.95, 0.999), 1e-6, 0.75
SCHEDULE = {
    "num_train_timesteps": 100,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample": True,
    "prediction_type": "epsilon",
}
UNET = {
    "diffusion_step_embed_dim": 128,
    "down_dims": [256, 512, 1024],
    "kernel_size": 5,
    "n_groups": 8,
    "cond_predict_scale": True,
}
SHAPE_META = {
    "obs": {
        "camera": {"shape": [3, SIZE, SIZE], "type": "rgb"},
        "state": {"shape": [PROPRIO], "type": "low_dim"},
    },
    "action": {"shape": [ACTION]},
}


def observed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (B, To, H, W, 3) uint8, states (B, To, 8), actions (B, Tp, 7)."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (BATCH, WINDOW, SIZE, SIZE, 3), dtype=np.uint8)
    states = random.uniform(-1, 1, (BATCH, WINDOW, PROPRIO)).astype(np.float32)
    return pictures, states, random.uniform(-1, 1, (BATCH, HORIZON, ACTION)).astype(np.float32)
