"""Grounding: towers frozen, projector and language model learn to say what lies where, all objects in one caption.

It stands in the small model for vision-language training. A caption is "red cube x07 y12 blue ball x20 y03 gripper
x11 y05 open": places in bins of the image, objects in random order, the gripper last. A question is an instruction as
the policy will be given it; its answer says where the things it names are, and the gripper. Without questions the
policy learns to handle things long before it learns to handle the one that was named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from vlakit.data.scenes import SceneBatch, SceneFolder
from vlakit.strategies.scene_metrics import Means, scene_data
from vlakit.strategies.scene_module import SceneModule

from vlakit.errors import ConfigError
from vlakit.models.openvla.vla import OpenVLA, VLAOutput
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import NO_LOSS, Batch
from vlakit.strategies.trainable import train_only

MOST_BINS = 32  # the shipped words have x00 to x31 and y00 to y31
INSTRUCTIONS = (
    *("lift {0}", "knock over {0}", "push {0} left", "push {0} right", "push {0} forward", "push {0} back"),
    *("put {0} on {1}", "move {0} near {1}"),
)


class Captions:
    """Captions of scenes as ids: BOS, words, EOS; every word but BOS carries a loss. Of questions the answer does.

    questions: the share of scenes that are asked about.
    """

    def __init__(self, processor: TokenProcessor, scenes: SceneFolder, n_bins: int, questions: float = 0.0) -> None:
        text = processor.text
        if not 1 < n_bins <= MOST_BINS or any(len(text.encode(f"{axis}00")) != 1 for axis in "xy"):
            raise ConfigError(
                f"{n_bins} bins of the image have no words in the tokenizer {processor.settings.tokenizer!r}",
                where="strategy.n_bins",
                do=f"set it to {MOST_BINS} or less, with model=tiny",
            )
        self.n_bins, self.bos_id, self.eos_id, self.padding_id = n_bins, text.bos_id, text.eos_id, text.padding_id
        self.colours = [text.encode(name) for name in scenes.colours]
        self.shapes = [text.encode(name) for name in scenes.shapes]
        self.x, self.y = ([text.encode(f"{axis}{i:02d}")[0] for i in range(n_bins)] for axis in "xy")
        self.questions, self.prompt_ids = questions, processor.prompt_ids
        self.names = scenes.colours, scenes.shapes
        self.gripper, self.states = text.encode("gripper"), [text.encode("closed"), text.encode("open")]
        self.place_bins = torch.full((text.vocab_size,), -1)  # id -> its bin; -1: not a place
        for ids in (self.x, self.y):
            self.place_bins[ids] = torch.arange(n_bins)

    def place(self, u: float, v: float) -> list[int]:
        """The two words of a place in the image."""
        x, y = (min(self.n_bins - 1, max(0, int(at * self.n_bins))) for at in (u, v))
        return [self.x[x], self.y[y]]

    def ids(self, objects: np.ndarray, gripper: np.ndarray, rng: np.random.Generator) -> list[int]:
        """The caption of one scene: objects (K, 4), gripper (3,)."""
        said = [self.bos_id]
        for colour, shape, u, v in rng.permutation(objects[objects[:, 0] >= 0]).tolist():
            said += [*self.colours[int(colour)], *self.shapes[int(shape)], *self.place(u, v)]
        return [*said, *self._of_gripper(gripper), self.eos_id]

    def question(
        self, objects: np.ndarray, gripper: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        """The prompt of an instruction about things that are seen, at least one, and the answer: where they are."""
        seen = rng.permutation(objects[objects[:, 0] >= 0])
        sentence = str(rng.choice(INSTRUCTIONS if len(seen) > 1 else INSTRUCTIONS[:-2]))
        asked = seen[: 1 + ("{1}" in sentence)]
        colours, shapes = self.names
        prompt = self.prompt_ids(sentence.format(*(f"{colours[int(c)]} {shapes[int(s)]}" for c, s, _, _ in asked)))
        answer = [word for _, _, u, v in asked.tolist() for word in self.place(u, v)]
        return prompt, [*answer, *self._of_gripper(gripper), self.eos_id]

    def _of_gripper(self, gripper: np.ndarray) -> list[int]:
        if gripper[0] < 0:
            return []
        return [*self.gripper, *self.place(gripper[0], gripper[1]), *self.states[int(gripper[2] > 0.5)]]

    def _row(self, objects: np.ndarray, gripper: np.ndarray, rng: np.random.Generator) -> tuple[list[int], int]:
        """Ids, and how many of them carry no loss."""
        if rng.random() < self.questions and (objects[:, 0] >= 0).any():
            prompt, answer = self.question(objects, gripper, rng)
            return [*prompt, *answer], len(prompt)
        return self.ids(objects, gripper, rng), 1

    def batch(self, scenes: SceneBatch, seed: int) -> Batch:
        """Inputs and labels (B, T) for OpenVLA.forward; the order of objects follows from `seed` and the position."""
        rng = np.random.default_rng([seed, scenes.position + 1])
        pairs = zip(scenes.objects.cpu().numpy(), scenes.gripper.cpu().numpy(), strict=True)
        told = [self._row(objects, gripper, rng) for objects, gripper in pairs]
        rows = [row for row, _ in told]
        input_ids = torch.full((len(rows), max(map(len, rows))), self.padding_id)
        for i, row in enumerate(rows):
            input_ids[i, : len(row)] = torch.tensor(row)
        known = torch.arange(input_ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
        silent = torch.arange(input_ids.shape[1]) < torch.tensor([[count] for _, count in told])
        labels = torch.where(known & ~silent, input_ids, NO_LOSS)
        device, none = scenes.objects.device, torch.zeros(len(rows), 0, 0)
        names = [str(scenes.position)] * len(rows)
        return Batch(
            pixel_values=none if scenes.pixel_values is None else scenes.pixel_values,
            input_ids=input_ids.to(device),
            attention_mask=known.long().to(device),
            labels=labels.to(device),
            actions=none,
            normalized=none,
            chunk_mask=none,
            keys=names,
            datasets=names,
            position=scenes.position,
            features=scenes.features,
        )


class Grounding(SceneModule):
    """Trains projector and language model on captions and questions with n_bins places along each side of the image."""

    name = "grounding"
    captions: Captions

    def __init__(self, *args: Any, n_bins: int = 24, questions: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_bins, self.questions = n_bins, questions

    def prepare(self, model: OpenVLA) -> None:
        """All but the towers learn."""
        train_only(model, ["projector.*", "language_model.*"])
        self.seen = Means()

    def on_fit_start(self) -> None:
        """Name the words of the captions and, unless the data are augmented, keep the towers' features in memory."""
        data = scene_data(self.trainer, self.name)
        self.captions = Captions(self.processor, data.scenes, self.n_bins, self.questions)
        if data.augmentation is None:
            data.keep_features(self.model.vision_backbone)

    def _output(self, scenes: SceneBatch) -> tuple[VLAOutput, Batch]:
        batch = self.captions.batch(scenes, self.processor.seed)
        return self.model(batch), batch

    def scene_loss(self, batch: SceneBatch) -> Tensor:
        """The loss of one batch."""
        return self._output(batch)[0].loss

    def validation_step(self, batch: SceneBatch, _: int) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  as above
        """Accumulate the loss and the share of place words within one bin of the truth."""
        output, words = self._output(batch)
        self.seen.update({"loss": output.loss[None], **self.places(output, words)})

    def places(self, output: VLAOutput, words: Batch) -> dict[str, Tensor]:
        """within_one_bin and exact of each place word, teacher-forced; another kind of word is wrong.

        answered: within_one_bin of questions alone.
        """
        table = self.captions.place_bins.to(output.targets.device)
        true, said = table[output.targets], table[output.logits.argmax(-1)]
        wanted = true >= 0
        distance = torch.where(said >= 0, (said - true).abs(), MOST_BINS)[wanted]
        asked = (words.labels[:, 1] == NO_LOSS)[output.rows][wanted]  # a caption's loss begins behind BOS
        near = (distance <= 1).float()
        return {"within_one_bin": near, "exact": (distance == 0).float(), "answered": near[asked]}
