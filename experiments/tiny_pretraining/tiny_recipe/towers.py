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

from tiny_recipe.scene_data import SceneData
from tiny_recipe.scene_module import SceneModule, data_of
from tiny_recipe.scenes import SceneBatch, scenes_of
from vlakit.errors import ConfigError
from vlakit.models.network import HasFeatures, capability
from vlakit.schema import Batch
from vlakit.strategies.optim import parameter_groups

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
    objects = batch.objects[row, slot]  # (M, 4)
    patch, offset = _patch(objects[:, 2:], side)
    gripper_row = (batch.gripper[:, 0] >= 0).nonzero()[:, 0]
    gripper = batch.gripper[gripper_row]
    gripper_patch, gripper_offset = _patch(gripper[:, :2], side)
    return PatchTargets(
        *(row, patch, objects[:, 0].long(), objects[:, 1].long(), offset),
        *(gripper_row, gripper_patch, gripper_offset, gripper[:, 2]),
    )


def _patch(place: Tensor, side: int) -> tuple[Tensor, Tensor]:
    cell = (place * side).floor().clamp(0, side - 1)
    return (cell[:, 1] * side + cell[:, 0]).long(), place * side - cell


def patch_loss(answers: PatchAnswers, targets: PatchTargets, offset_weight: float = 4.0) -> Tensor:
    """Presence (BCE, by the number of objects) + shape (cross-entropy) + offset (L1) + the gripper's, at centres."""
    present = torch.zeros_like(answers.presence)
    present[targets.row, targets.patch, targets.colour] = 1
    at = (targets.row, targets.patch, targets.colour)
    n = max(1, len(targets.row))
    loss = F.binary_cross_entropy_with_logits(answers.presence, present, reduction="sum") / n
    loss = loss + F.cross_entropy(answers.shape[at], targets.shape, reduction="sum") / n
    loss = loss + offset_weight * F.l1_loss(answers.offset[at], targets.offset, reduction="sum") / n
    there = torch.zeros_like(answers.gripper[..., 0])
    there[targets.gripper_row, targets.gripper_patch] = 1
    hand = answers.gripper[targets.gripper_row, targets.gripper_patch]  # (G, 4)
    m = max(1, len(targets.gripper_row))
    loss = loss + F.binary_cross_entropy_with_logits(answers.gripper[..., 0], there, reduction="sum") / m
    loss = loss + F.binary_cross_entropy_with_logits(hand[:, 1], targets.gripper_open, reduction="sum") / m
    return loss + offset_weight * F.l1_loss(hand[:, 2:], targets.gripper_offset, reduction="sum") / m


@torch.no_grad()
def patch_metrics(answers: PatchAnswers, targets: PatchTargets, image_size: int) -> dict[str, Tensor]:
    """recall and precision of presence at .5, shape_accuracy, center_px (mean distance), and the gripper's."""
    at = (targets.row, targets.patch, targets.colour)
    hit = answers.presence[at] > 0
    pixels = image_size / round(answers.presence.shape[1] ** 0.5)
    hand = answers.gripper[targets.gripper_row, targets.gripper_patch]
    distance = (answers.offset[at] - targets.offset).norm(dim=-1) * pixels
    return {
        "recall": hit.float(),
        "precision": (hit.sum() / (answers.presence > 0).sum().clamp(min=1))[None],
        "shape_accuracy": (answers.shape[at].argmax(-1) == targets.shape).float(),
        "center_px": distance,
        "gripper_recall": (hand[:, 0] > 0).float(),
        "gripper_px": (hand[:, 2:] - targets.gripper_offset).norm(dim=-1) * pixels,
        "gripper_open_accuracy": ((hand[:, 1] > 0) == (targets.gripper_open > 0.5)).float(),
    }


class Towers(SceneModule):
    """Trains the vision towers on scenes; up to n_colours and n_shapes, more than there are costs next to nothing.

    Projector and language model stay as built.
    """

    name = "towers"
    trainable = ("vision_backbone.*",)
    heads: PatchHeads  # built by configure_model

    def __init__(self, *args: Any, n_colours: int = 16, n_shapes: int = 16, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_colours, self.n_shapes = n_colours, n_shapes

    @property
    def needs_base(self) -> bool:
        """No: what does not move here is for the next stage to train."""
        return False

    def configure_model(self) -> None:
        """Also build the heads."""
        if hasattr(self, "heads"):
            return
        super().configure_model()
        width = capability(self.model, HasFeatures, purpose="strategy=towers").feature_shape[1]
        self.heads = PatchHeads(width, self.n_colours, self.n_shapes)

    def trained(self) -> list[dict[str, object]]:
        """Parameter groups of towers and heads."""
        return parameter_groups(self, decay_norms_and_biases=self.decay_norms_and_biases)

    def on_fit_start(self) -> None:
        """Refuse other data than scenes, and more names than the heads have places."""
        super().on_fit_start()
        scenes = data_of(self.trainer, SceneData, "tabletop_scenes", self.name).scenes
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

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of the heads' answers; the language model is not asked."""
        return self.logged_loss(patch_loss(*self._answers(batch)), batch)

    def marks(self, batch: Batch) -> dict[str, Tensor]:
        """The loss and `patch_metrics`."""
        answers, targets = self._answers(batch)
        return {
            "loss": patch_loss(answers, targets)[None],
            **patch_metrics(answers, targets, self.processor.settings.image_size),
        }

    def _answers(self, batch: Batch) -> tuple[PatchAnswers, PatchTargets]:
        features = capability(self.model, HasFeatures, purpose="strategy=towers").features(batch)  # (B, N, D_v)
        return self.heads(features), patch_targets(scenes_of(batch), features.shape[1])
