"""`DiffusionPolicy`: what it sees conditions a network that turns noise into a trajectory of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.errors import CheckpointMismatch, ConfigError, InvalidData, nearest
from vlakit.models.diffusion_policy.encoders import Cameras
from vlakit.models.diffusion_policy.sampler import SEED, Sampler
from vlakit.models.diffusion_policy.targets import build_targets
from vlakit.models.diffusion_policy.transformer import DiffusionTransformer
from vlakit.models.diffusion_policy.unet import Unet
from vlakit.models.language import FrozenEncoder, WordTable
from vlakit.models.network import Network, Output
from vlakit.processing.diffusion import DiffusionProcessor
from vlakit.processing.processor import Processor
from vlakit.processing.text import TABLE, words
from vlakit.schema import Batch, Inputs

BACKBONES = {"unet": Unet, "transformer": DiffusionTransformer}
# One vector of all frames (the transformer: a token each); one a step; frames as a known part of the trajectory.
CONDITIONS = ("global", "local", "inpaint")


class DiffusionPolicy(Network):
    """Denoises (B, T, A) given the window's frames. backbone, options: the network over time and its settings.

    vision: the network of each camera, a name in encoders.VISION; crop, in pixels. sampler: `Sampler`'s settings.
    noise_samples: noises a training example is seen under. targets: relative actions, or absolute poses. executed_from:
    which action of the trajectory is carried out first; None: that of the present, as in the original's image policies.
    """

    of_the_run = ("sampler", "noise_samples")

    def __init__(  # noqa: PLR0913  a card names each
        self,
        processor: Processor,
        *,
        backbone: str = "unet",
        options: Mapping[str, Any] | None = None,
        condition: str = "global",
        vision: str = "resnet18",
        crop: int | None = None,
        shared: bool = False,
        group_norm: bool = True,
        language_width: int = 64,
        pool: str = "mean",
        sampler: Mapping[str, Any] | None = None,
        noise_samples: int = 1,
        targets: str = "relative",
        action_size: int = 7,
        executed_from: int | None = None,
    ) -> None:
        super().__init__()
        self.processor_settings = settings = _checked(processor, condition).settings
        self.condition, self.action_size, self.noise_samples = condition, action_size, noise_samples
        self.sampler, self.targets = Sampler(**(sampler or {})), build_targets(targets, processor)
        self.first = settings.window - 1 if executed_from is None else executed_from
        self.obs_encoder = Cameras(
            settings.cameras, vision, size=settings.image_size, crop=crop, shared=shared, group_norm=group_norm
        )
        self.language = _language(settings.language, language_width, pool)
        self.seen_size = self._seen_size()
        self.model = self._backbone(backbone, dict(options or {}))
        self.length = -(-settings.horizon // self.model.step) * self.model.step  # the U-Net halves it some times
        _check_numbers(self)

    def _seen_size(self) -> int:
        """Numbers that a frame is told by."""
        settings = self.processor_settings
        size = settings.proprio + (self.language.width if self.language is not None else 0)
        channels = 3 * len(settings.channel_statistics)
        if not settings.cameras:
            return size
        shape = (1, 1, channels, settings.image_size, settings.image_size)
        return size + _width_of(self.obs_encoder, dict.fromkeys(settings.cameras, shape))

    def _backbone(self, name: str, options: dict[str, Any]) -> Any:
        settings, seen = self.processor_settings, self.seen_size
        if name not in BACKBONES:
            raise ConfigError(f"no backbone {name!r}", where="model.network.backbone", do=nearest(name, BACKBONES))
        size = self.action_size + (seen if self.condition == "inpaint" else 0)
        if name == "unet":
            told = {"global": {"seen": seen * settings.window}, "local": {"local": seen}}.get(self.condition, {})
        else:
            told = {"horizon": settings.horizon, "window": settings.window}
            told["seen"] = seen if self.condition == "global" else 0
        try:
            return BACKBONES[name](size, **told, **options)
        except TypeError as error:
            raise CheckpointMismatch(
                f"the {name} cannot be built: {error}",
                where=f"model.network.options: {sorted(options)}",
                do="give the keys of this backbone's own model YAML: dp_unet, dp_transformer",
            ) from error

    @property
    def parts(self) -> Mapping[str, str]:
        """Cameras, words, and the network over time."""
        return {"cameras": "obs_encoder", "language": "language", "denoiser": "model"}

    @property
    def frozen(self) -> Sequence[str]:
        """A text encoder from a folder."""
        return ["language.*"] if isinstance(self.language, FrozenEncoder) else []

    @property
    def undecayed(self) -> Sequence[str]:
        """Learned positions."""
        return ("*pos_emb",)

    def forward(self, batch: Batch) -> Output:
        """Mean squared error over the actions that exist, at a random time step; in evaluation sampled actions too."""
        self._check_size(batch.action_shape[1])
        generator = None if self.training else torch.Generator().manual_seed(SEED)
        copies = self.noise_samples if self.training else 1
        seen = self.seen(batch)
        actions = batch.normalized if self.targets is None else self.targets.there(batch.normalized, batch)
        trajectory, known = (x.repeat_interleave(copies, dim=0) for x in self.trajectory(actions, seen))
        noise = torch.randn(trajectory.shape, generator=generator, device="cpu").to(trajectory.device)
        timesteps = torch.randint(self.sampler.train_steps, (len(trajectory),), generator=generator, device="cpu")
        condition = seen.repeat_interleave(copies, dim=0)
        errors = self.errors(trajectory, noise, timesteps.to(noise.device), condition, known)  # (copies B, T, D)
        output = self._output(errors.unflatten(0, (-1, copies)).mean(dim=1), batch)
        if not self.training:
            with torch.no_grad():
                output.predicted = self.answered(self.sampled(seen), batch)[:, : batch.normalized.shape[1]]
        return output

    def _output(self, errors: Tensor, batch: Batch) -> Output:
        """errors (B, T, D), those of the observed part, if it is denoised too, where its frames are."""
        weight = F.pad(batch.chunk_mask, (0, self.length - batch.chunk_mask.shape[1])).to(errors.dtype)  # (B, T)
        sums, counts = (errors.mean(dim=2) * weight).sum(dim=1), weight.sum(dim=1)
        rows = torch.where(counts > 0, sums.detach() / counts, torch.nan)
        return Output(sums.sum() / counts.sum().clamp(min=1), rows)

    def seen(self, inputs: Inputs) -> Tensor:
        """(B, W, F): cameras, proprioception, the instruction again for each frame."""
        features: list[Tensor] = []
        if inputs.pixels:
            features.append(self.obs_encoder(inputs.pixels))
        if inputs.proprio is not None:
            features.append(inputs.proprio.to(next(self.parameters()).dtype))
        if self.language is not None:
            if inputs.text is None:
                raise InvalidData("no instruction", where="inputs.text", do="observe through the policy's processor")
            features.append(self.language(inputs.text)[:, None].expand(-1, self.processor_settings.window, -1))
        return torch.cat(features, dim=-1)

    def trajectory(self, actions: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """What is denoised (B, T, D), of actions (B, Tp, A), and where it is known already (B, T, D)."""
        padded = F.pad(actions, (0, 0, 0, self.length - actions.shape[1]))
        if self.condition != "inpaint":
            return padded, torch.zeros_like(padded, dtype=torch.bool)
        observed = F.pad(seen, (0, 0, 0, self.length - seen.shape[1]))
        known = torch.zeros(*padded.shape[:2], padded.shape[2] + seen.shape[2], dtype=torch.bool, device=padded.device)
        known[:, : seen.shape[1], self.action_size :] = True
        return torch.cat([padded, observed], dim=2), known

    def errors(self, trajectory: Tensor, noise: Tensor, timesteps: Tensor, seen: Tensor, known: Tensor) -> Tensor:
        """(B, T, D) squared errors of what the network says of trajectories under noise; 0 where they are known."""
        noisy = torch.where(known, trajectory, self.sampler.noisy(trajectory, noise, timesteps))
        target = noise if self.sampler.predicts_noise else trajectory
        return F.mse_loss(self.said(noisy, timesteps, seen).float(), target, reduction="none") * ~known

    def said(self, noisy: Tensor, timesteps: Tensor, seen: Tensor) -> Tensor:
        """(B, T, D): the noise in `noisy`, or the trajectory, as the sampler has it; seen (B, W, F)."""
        dtype = next(self.model.parameters()).dtype
        noisy, seen = noisy.to(dtype), seen.to(dtype)
        if self.condition == "inpaint":
            return self.model(noisy, timesteps)
        if self.condition == "local":
            return self.model(noisy, timesteps, local=F.pad(seen, (0, 0, 0, noisy.shape[1] - seen.shape[1])))
        return self.model(noisy, timesteps, seen if isinstance(self.model, DiffusionTransformer) else seen.flatten(1))

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) float32: the part of the trajectory that is carried out."""
        self._check_size(inputs.action_shape[1])
        return self.executed(self.answered(self.sampled(self.seen(inputs)), inputs))

    def answered(self, trajectory: Tensor, inputs: Inputs) -> Tensor:
        """(B, T, A) normalised actions of (B, T, D)."""
        actions = trajectory[..., : self.action_size]
        return actions if self.targets is None else self.targets.back(actions, inputs)

    def executed(self, trajectory: Tensor) -> Tensor:
        """(B, H, A) of (B, T, D)."""
        return trajectory[:, self.first : self.first + self.processor_settings.chunk, : self.action_size]

    def sampled(self, seen: Tensor) -> Tensor:
        """(B, T, D) float32; each row begins with the same noise, so that no answer depends on its neighbours."""
        size = self.action_size + (seen.shape[2] if self.condition == "inpaint" else 0)
        start, generators = self.sampler.start((len(seen), self.length, size), seen.device)
        return self.denoised(seen, start, generators)[-1]

    def denoised(self, seen: Tensor, start: Tensor, generators: list[torch.Generator] | None = None) -> list[Tensor]:
        """Trajectories (B, T, D) after each step, from the noise that they begin with; the last with what is known."""
        blank = torch.zeros(len(seen), self.length, self.action_size, dtype=start.dtype, device=start.device)
        fixed, known = self.trajectory(blank, seen)

        def inpaint(noisy: Tensor) -> Tensor:
            return torch.where(known, fixed, noisy)

        after = self.sampler.denoising(lambda x, t: self.said(x, t, seen), start, generators, inpaint)
        *earlier, last = list(after)
        return [*earlier, inpaint(last)]

    def _check_size(self, size: int) -> None:
        if size != self.action_size:
            raise ConfigError(
                f"actions of {size} numbers, the policy makes {self.action_size}",
                where="model.network.action_size",
                do=f"set it to {size}",
            )


def _check_numbers(policy: DiffusionPolicy) -> None:
    settings, sampler = policy.processor_settings, policy.sampler.scheduler.config
    key, what, do = "", "", "set it between 1 and what there is"
    if policy.noise_samples < 1:
        key, what = "noise_samples", f"{policy.noise_samples} noises an example"
    elif not 0 <= policy.first <= policy.length - settings.chunk:
        key, what = "executed_from", f"{settings.chunk} actions from number {policy.first} on, of {policy.length}"
    elif settings.normalization == "normal" and sampler.get("clip_sample") and sampler.get("clip_sample_range", 1) == 1:
        key, what = "sampler", "normalization=normal, and no sampled action beyond one standard deviation"
        do = "clip_sample_range: 5 there, or model.processor.normalization=limits"
    if what:
        raise ConfigError(what, where=f"model.network.{key}", do=do)


def _checked(processor: Processor, condition: str) -> DiffusionProcessor:
    if condition not in CONDITIONS:
        raise ConfigError(
            f"condition {condition!r}", where="model.network.condition", do=nearest(condition, CONDITIONS)
        )
    if not isinstance(processor, DiffusionProcessor):
        raise CheckpointMismatch(
            f"Diffusion Policy needs a horizon, and the processor is of the kind {processor.kind!r}",
            where="model.processor.kind",
            do="set it to diffusion, with the keys of conf/model/dp_tiny.yaml",
        )
    return processor


def _language(language: str | None, width: int, pool: str) -> WordTable | FrozenEncoder | None:
    if language is None:
        return None
    return WordTable(words().vocab_size, width, pool) if language == TABLE else FrozenEncoder(language, pool)


def _width_of(cameras: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Size of a frame's features, without computing any."""
    from torch.func import functional_call

    tensors = {**dict(cameras.named_parameters()), **dict(cameras.named_buffers())}
    empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    pixels = {camera: torch.empty(shape, device="meta") for camera, shape in shapes.items()}
    was, _ = cameras.training, cameras.eval()
    features = functional_call(cameras, empty, (pixels,))
    cameras.train(was)
    return int(features.shape[-1])
