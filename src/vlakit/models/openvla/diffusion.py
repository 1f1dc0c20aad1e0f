"""The diffusion head: noise becomes actions in a few steps, each a pass of the whole language model (OpenVLA-OFT)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.models.network import Output
from vlakit.models.openvla.layers import ActionMlp, ScalarProjector, time_embedding
from vlakit.models.openvla.parallel import Parallel
from vlakit.models.openvla.regression import masked_output
from vlakit.models.openvla.trunk import text_of
from vlakit.models.schedules import built, noisy
from vlakit.schema import Batch, Inputs, TextBatch

SEED = 7  # of the noise that an answer, or a validation loss, begins with: the same picture, the same action


class Diffusion(Parallel):
    """Predicts the noise in an action. Slots hold the noisy numbers; a token behind the senses tells the time step.

    train_steps: of the schedule; steps: of an answer (DDIM, without noise of its own), as many passes; None: all.
    """

    added_parts = ("action_head", "noisy_action_projector")

    def __init__(self, *parts: Any, action_size: int = 7, train_steps: int = 50, steps: int | None = None) -> None:
        super().__init__(*parts)
        steps = train_steps if steps is None else steps
        if not 1 <= steps <= train_steps:
            raise ConfigError(
                f"{steps} steps of {train_steps}", where="head_options", do="choose 1 <= steps <= train_steps"
            )
        self.action_size, self.steps = action_size, steps
        network = nn.ModuleDict({"mlp_resnet": ActionMlp(self.hidden_size, action_size)})
        self.action_head = nn.ModuleDict({"noise_predictor": network})
        self.noisy_action_projector = ScalarProjector(1, self.hidden_size)
        options = {"num_train_timesteps": train_steps, "beta_schedule": "squaredcos_cap_v2"}
        self.scheduler = built("ddim", options, where="head=diffusion")

    def forward(self, batch: Batch) -> Output:
        """Mean squared error of the noise, at one time step a row; in evaluation the sampled actions, too."""
        generator = None if self.training else torch.Generator().manual_seed(SEED)
        shape = batch.normalized.shape
        noise = torch.randn(shape, generator=generator).to(batch.normalized.device)
        timesteps = torch.randint(self.scheduler.config["num_train_timesteps"], shape[:1], generator=generator)
        output = self.noise_output(batch, noise, timesteps.to(noise.device))
        if not self.training:
            with torch.no_grad():
                output.predicted = self._sampled(self.context(batch), text_of(batch), batch)
        return output

    def noise_output(self, batch: Batch, noise: Tensor, timesteps: Tensor) -> Output:
        """The loss for this noise (B, H, A) at these time steps (B,); `predicted` is None, `noise_pred` beside it."""
        self._checked(batch.action_shape)
        begun = noisy(self.scheduler, batch.normalized, noise, timesteps)
        predicted = self.noise(self.context(batch), text_of(batch), begun, timesteps)
        output = masked_output(predicted[batch.chunk_mask.any(dim=1)], noise, batch, torch.square)
        output.predicted = None
        return output

    def noise(self, context: Tensor, text: TextBatch, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """(B, H, A) float32: the noise in noisy actions (B, H, A) at time steps (B,); zeros in rows without slots."""
        time = time_embedding(timesteps, self.hidden_size)[:, None]  # (B, 1, D)
        filling = self.noisy_action_projector(noisy.flatten(1)[..., None])  # (B, H A, D)
        states = self.slot_states(torch.cat([context, time.to(context.dtype)], dim=1), text, filling)
        predicted = torch.zeros(noisy.shape, dtype=torch.float32, device=noisy.device)
        network: Any = self.action_head["noise_predictor"]
        return predicted.masked_scatter(self.slots(text).any(dim=1)[:, None, None], network["mlp_resnet"](states))

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) float32; each row begins with the same noise, so that no answer depends on its neighbours."""
        text, context = self.asked(inputs)
        return self._sampled(context, text, inputs)

    def _sampled(self, context: Tensor, text: TextBatch, inputs: Inputs) -> Tensor:
        generator = torch.Generator().manual_seed(SEED)
        start = torch.randn(self._checked(inputs.action_shape), generator=generator)
        return self.denoised(context, text, start.to(context.device).expand(len(inputs), -1, -1))

    def denoised(self, context: Tensor, text: TextBatch, start: Tensor) -> Tensor:
        """Actions (B, H, A) float32 from the noise (B, H, A) that they begin with."""
        self.scheduler.set_timesteps(self.steps)
        actions = start
        for step in self.scheduler.timesteps.tolist():
            timesteps = torch.full((len(start),), step, device=start.device)
            noise = self.noise(context, text, actions, timesteps)
            actions = self.scheduler.step(noise, step, actions).prev_sample  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        return actions
