"""Towers by dense supervision: what stands in the small model for SigLIP's and DINOv2's pretraining.

Each patch says which colours have an object's centre in it, of which shape and where, and whether the gripper is there.
The heads that say it are thrown away: a checkpoint's policy is read without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlakit.data.scenes import SceneBatch
from vlakit.strategies.scene_metrics import Means, check_scenes
from vlakit.strategies.scene_module import SceneModule

from vlakit.errors import ConfigError
from vlakit.models.openvla.vla import OpenVLA
from vlakit.strategies.optim import parameter_groups
from vlakit.strategies.trainable import train_only

RARE = -3.0  # logit at which presence starts: few patches hold the centre of an object of one colour


@dataclass
class PatchAnswers:
    """presence (B, N, C) logits; shape (B, N, C, S) logits; offset (B, N, C, 2) in patches; gripper (B, N, 4).

    gripper: logits of presence and of being open, offset u, v.
    """

    presence: Tensor
    shape: Tensor
    offset: Tensor
    gripper: Tensor


class PatchHeads(nn.Module):
    """One linear layer over the features (B, N, D_v) that the policy takes, for C colours and S shapes."""

    def __init__(self, width: int, n_colours: int, n_shapes: int) -> None:
        super().__init__()
        self.n_colours, self.n_shapes = n_colours, n_shapes
        self.out = nn.Linear(width, n_colours * (3 + n_shapes) + 4)
        with torch.no_grad():
            self.out.bias.view(-1)[: n_colours * (3 + n_shapes)].view(n_colours, -1)[:, 0] = RARE
            self.out.bias[-4] = RARE

    def forward(self, features: Tensor) -> PatchAnswers:
        """(B, N, D_v) to answers, float32 whatever computes them."""
        out = self.out(features).float()
        colours = out[..., :-4].unflatten(-1, (self.n_colours, 3 + self.n_shapes))  # (B, N, C, 3 + S)
        return PatchAnswers(colours[..., 0], colours[..., 3:], colours[..., 1:3], out[..., -4:])


@dataclass
class PatchTargets:
    """row, patch (M,) of every object's centre, its colour, shape (M,) and offset (M, 2); the same of grippers."""

    row: Tensor
    patch: Tensor
    colour: Tensor
    shape: Tensor
    offset: Tensor
    gripper_row: Tensor
    gripper_patch: Tensor
    gripper_offset: Tensor
    gripper_open: Tensor


def patch_targets(batch: SceneBatch, n_patches: int) -> PatchTargets:
    """Which patch holds what; a patch is 1 / sqrt(N) of the image wide."""
    side = round(n_patches**0.5)
    row, slot = (batch.objects[..., 0] >= 0).nonzero(as_tuple=True)
    found = batch.objects[row, slot]  # (M, 4)
    patch, offset = _patch(found[:, 2:], side)
    gripper_row = (batch.gripper[:, 0] >= 0).nonzero()[:, 0]
    gripper = batch.gripper[gripper_row]
    gripper_patch, gripper_offset = _patch(gripper[:, :2], side)
    return PatchTargets(
        *(row, patch, found[:, 0].long(), found[:, 1].long(), offset),
        *(gripper_row, gripper_patch, gripper_offset, gripper[:, 2]),
    )


def _patch(place: Tensor, side: int) -> tuple[Tensor, Tensor]:
    cell = (place * side).floor().clamp(0, side - 1)
    return (cell[:, 1] * side + cell[:, 0]).long(), place * side - cell


def patch_loss(said: PatchAnswers, told: PatchTargets, offset_weight: float = 4.0) -> Tensor:
    """Presence (BCE, by the number of objects) + shape (cross-entropy) + offset (L1) + the gripper's, at centres."""
    present = torch.zeros_like(said.presence)
    present[told.row, told.patch, told.colour] = 1
    at = (told.row, told.patch, told.colour)
    n = max(1, len(told.row))
    loss = F.binary_cross_entropy_with_logits(said.presence, present, reduction="sum") / n
    loss = loss + F.cross_entropy(said.shape[at], told.shape, reduction="sum") / n
    loss = loss + offset_weight * F.l1_loss(said.offset[at], told.offset, reduction="sum") / n
    there = torch.zeros_like(said.gripper[..., 0])
    there[told.gripper_row, told.gripper_patch] = 1
    hand = said.gripper[told.gripper_row, told.gripper_patch]  # (G, 4)
    m = max(1, len(told.gripper_row))
    loss = loss + F.binary_cross_entropy_with_logits(said.gripper[..., 0], there, reduction="sum") / m
    loss = loss + F.binary_cross_entropy_with_logits(hand[:, 1], told.gripper_open, reduction="sum") / m
    return loss + offset_weight * F.l1_loss(hand[:, 2:], told.gripper_offset, reduction="sum") / m


@torch.no_grad()
def patch_metrics(said: PatchAnswers, told: PatchTargets, image_size: int) -> dict[str, Tensor]:
    """recall and precision of presence at .5, shape_accuracy, center_px (mean distance), and the gripper's."""
    at = (told.row, told.patch, told.colour)
    hit = said.presence[at] > 0
    pixels = image_size / round(said.presence.shape[1] ** 0.5)
    hand = said.gripper[told.gripper_row, told.gripper_patch]
    distance = (said.offset[at] - told.offset).norm(dim=-1) * pixels
    return {
        "recall": hit.float(),
        "precision": (hit.sum() / (said.presence > 0).sum().clamp(min=1))[None],
        "shape_accuracy": (said.shape[at].argmax(-1) == told.shape).float(),
        "center_px": distance,
        "gripper_recall": (hand[:, 0] > 0).float(),
        "gripper_px": (hand[:, 2:] - told.gripper_offset).norm(dim=-1) * pixels,
        "gripper_open_accuracy": ((hand[:, 1] > 0) == (told.gripper_open > 0.5)).float(),
    }


class Towers(SceneModule):
    """Trains the vision towers on scenes; up to n_colours and n_shapes, more than there are costs next to nothing."""

    name = "towers"
    heads: PatchHeads  # built by configure_model, as is:

    def __init__(self, *args: Any, n_colours: int = 16, n_shapes: int = 16, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_colours, self.n_shapes = n_colours, n_shapes

    def prepare(self, model: OpenVLA) -> None:
        """Only the towers learn; projector and language model stay as built."""
        train_only(model, ["vision_backbone.*"])

    def configure_model(self) -> None:
        """Also build the heads."""
        if hasattr(self, "heads"):
            return
        super().configure_model()
        self.heads = PatchHeads(self.model.vision_backbone.width, self.n_colours, self.n_shapes)
        self.seen = Means()

    def trained(self) -> list[dict[str, object]]:
        """Parameter groups of towers and heads."""
        parts = nn.ModuleDict({"vision_backbone": self.model.vision_backbone, "heads": self.heads})
        return parameter_groups(parts, decay_norms_and_biases=self.decay_norms_and_biases)

    def on_fit_start(self) -> None:
        """Refuse other data than scenes, and more names than the heads have places."""
        scenes = check_scenes(self.trainer, self.name)
        for key, names, places in (
            ("n_colours", scenes.colours, self.n_colours),
            ("n_shapes", scenes.shapes, self.n_shapes),
        ):
            if len(names) > places:
                raise ConfigError(
                    f"{len(names)} names, {key} is {places}",
                    where=f"strategy.{key}",
                    do=f"set strategy.{key}={len(names)}",
                )

    def _answers(self, batch: SceneBatch) -> tuple[PatchAnswers, PatchTargets]:
        if batch.pixel_values is None:
            raise ConfigError("the batch has no pixels", where="data", do="train towers on images")
        return self.heads(self.model.vision_backbone(batch.pixel_values)), patch_targets(batch, self.model.n_patches)

    def scene_loss(self, batch: SceneBatch) -> Tensor:
        """The loss of one batch."""
        return patch_loss(*self._answers(batch))

    def validation_step(self, batch: SceneBatch, _: int) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  as above
        """Accumulate the metrics of one held-out batch."""
        said, told = self._answers(batch)
        size = self.model.vision_backbone.image_size
        self.seen.update({"loss": patch_loss(said, told)[None], **patch_metrics(said, told, size)})
