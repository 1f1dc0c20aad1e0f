"""Grounding: towers frozen, projector and language model learn to say what lies where, all objects in one caption.

It stands in the small model for vision-language training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tiny_recipe.captions import MOST_BINS, CaptionData
from tiny_recipe.scene_module import SceneModule, data_of
from vlakit.errors import ConfigError
from vlakit.models.network import HasFeatures, capability
from vlakit.models.openvla.heads import Answers
from vlakit.models.openvla.vla import OpenVLA, text_of
from vlakit.schema import NO_LOSS, Batch, TextBatch


class Grounding(SceneModule):
    """Trains projector and language model on captions and questions: an ordinary run but for what it is marked by."""

    name = "grounding"
    trainable = ("projector.*", "language_model.*")

    def on_fit_start(self) -> None:
        """Refuse other data than captions, and keep the towers' features in memory unless pictures are augmented."""
        super().on_fit_start()
        data = data_of(self.trainer, CaptionData, "tabletop_captions", self.name)
        self.place_bins = data.captions.place_bins
        if data.augmentation is None:
            data.keep_features(capability(self.model, HasFeatures, purpose="strategy=grounding"))

    def marks(self, batch: Batch) -> dict[str, Tensor]:
        """The loss and the marks of its place words."""
        if not isinstance(self.model, OpenVLA):
            raise ConfigError(
                f"the network {self.model.kind!r} answers in no words",
                where="model.network.kind",
                do="set it to openvla",
            )
        answers = self.model.answers(batch)
        return {"loss": answers.loss[None], **place_marks(answers, text_of(batch), self.place_bins)}


def place_marks(answers: Answers, text: TextBatch, place_bins: Tensor) -> dict[str, Tensor]:
    """within_one_bin and exact of each place word, teacher-forced; another kind of word is wrong.

    answered: within_one_bin of questions alone. place_bins (V,): the bin of each id, -1 where it is no place.
    """
    table = place_bins.to(answers.targets.device)
    true, predicted = table[answers.targets], table[answers.logits.argmax(-1)]
    is_place = true >= 0
    distance = torch.where(predicted >= 0, (predicted - true).abs(), MOST_BINS)[is_place]
    in_answer = (text.labels[:, 1] == NO_LOSS)[answers.rows][is_place]  # a caption's loss begins behind BOS
    near = (distance <= 1).float()
    return {"within_one_bin": near, "exact": (distance == 0).float(), "answered": near[in_answer]}
