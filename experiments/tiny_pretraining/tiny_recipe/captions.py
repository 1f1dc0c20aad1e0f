"""Scenes in words: captions that say what lies where, and questions with their answers.

A caption is "red cube x07 y12 blue ball x20 y03 gripper x11 y05 open": places in bins of the image, objects in random
order, the gripper last. A question is an instruction as the policy will be given it; its answer says where the things
it names are, and the gripper. Without questions the policy learns to handle things long before it learns to handle the
one that was named.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch

from tiny_recipe.scene_data import SceneData
from tiny_recipe.scenes import SceneBatch, SceneFolder
from vlakit.errors import ConfigError
from vlakit.processing.tokens import TokenProcessor, padded_text, token_processor
from vlakit.schema import Float32, Int64, TextBatch

MOST_BINS = 32  # the shipped words have x00 to x31 and y00 to y31
INSTRUCTIONS = (
    *("lift {0}", "knock over {0}", "push {0} left", "push {0} right", "push {0} forward", "push {0} back"),
    *("put {0} on {1}", "move {0} near {1}"),
)
Row: TypeAlias = tuple[list[int], list[int]]  # ids without a loss, and behind them those that carry one


class Captions:
    """Scenes to ids, EOS last. Of a caption every word but BOS carries a loss, of a question the answer does.

    questions: the share of scenes that are asked about.
    """

    def __init__(self, processor: TokenProcessor, scenes: SceneFolder, n_bins: int, questions: float = 0.0) -> None:
        self.text, self.prompt_ids = processor.text, processor.prompt_ids
        self.words = cache(self.text.encode)  # few, and asked for in every scene
        if not 1 < n_bins <= MOST_BINS or any(len(self.text.encode(f"{axis}00")) != 1 for axis in "xy"):
            raise ConfigError(
                f"{n_bins} bins of the image have no words in the tokenizer {processor.settings.tokenizer!r}",
                where="data.n_bins",
                do=f"set it to {MOST_BINS} or less, with model=tiny",
            )
        self.scenes, self.n_bins, self.questions = scenes, n_bins, questions
        self.x, self.y = ([self.text.encode(f"{axis}{i:02d}")[0] for i in range(n_bins)] for axis in "xy")
        self.place_bins = torch.full((self.text.vocab_size,), -1)  # id -> its bin; -1: not a place
        for ids in (self.x, self.y):
            self.place_bins[ids] = torch.arange(n_bins)

    def place(self, u: float, v: float) -> list[int]:
        """The two words of a place in the image."""
        x, y = (min(self.n_bins - 1, max(0, int(at * self.n_bins))) for at in (u, v))
        return [self.x[x], self.y[y]]

    def thing(self, colour: float, shape: float) -> str:
        """What an object is called."""
        return f"{self.scenes.colours[int(colour)]} {self.scenes.shapes[int(shape)]}"

    def caption(self, objects: Float32, gripper: Float32, rng: np.random.Generator) -> Row:
        """BOS, and what is seen in one scene: objects (K, 4), gripper (3,)."""
        ids: list[int] = []
        for colour, shape, u, v in rng.permutation(objects[objects[:, 0] >= 0]).tolist():
            ids += [*self.words(self.thing(colour, shape)), *self.place(u, v)]
        return [self.text.bos_id], [*ids, *self._of_gripper(gripper), self.text.eos_id]

    def question(self, objects: Float32, gripper: Float32, rng: np.random.Generator) -> Row:
        """The prompt of an instruction about things that are seen, at least one, and the answer: where they are."""
        seen = rng.permutation(objects[objects[:, 0] >= 0])
        sentence = str(rng.choice(INSTRUCTIONS if len(seen) > 1 else INSTRUCTIONS[:-2]))
        named = seen[: 1 + ("{1}" in sentence)]
        prompt = self.prompt_ids(sentence.format(*(self.thing(colour, shape) for colour, shape, _, _ in named)))
        answer = [word for _, _, u, v in named.tolist() for word in self.place(u, v)]
        return prompt, [*answer, *self._of_gripper(gripper), self.text.eos_id]

    def _of_gripper(self, gripper: Float32) -> list[int]:
        if gripper[0] < 0:
            return []
        state = self.words("open" if gripper[2] > 0.5 else "closed")
        return [*self.words("gripper"), *self.place(gripper[0], gripper[1]), *state]

    def _row(self, objects: Float32, gripper: Float32, rng: np.random.Generator) -> tuple[Int64, Int64]:
        asked = rng.random() < self.questions and (objects[:, 0] >= 0).any()
        before, words = (self.question if asked else self.caption)(objects, gripper, rng)
        return np.array(before), np.array(words)

    def text_of(self, batch: SceneBatch, seed: int) -> TextBatch:
        """Ids and labels (B, T); the order of objects follows from `seed` and the batch's position."""
        rng = np.random.default_rng([seed, batch.position + 1])
        pairs = zip(batch.objects.numpy(), batch.gripper.numpy(), strict=True)
        return padded_text([self._row(objects, gripper, rng) for objects, gripper in pairs], self.text.padding_id)


class CaptionData(SceneData):
    """Scenes with their captions, and questions about the share `questions` of them; n_bins places along each side."""

    def __init__(self, *args: Any, n_bins: int = 24, questions: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.captions = Captions(token_processor(self.processor, purpose="captions"), self.scenes, n_bins, questions)

    def batch(self, rows: Int64, position: int = -1) -> SceneBatch:
        """As of any scenes, with text."""
        batch = super().batch(rows, position)
        return replace(batch, text=self.captions.text_of(batch, self.processor.seed))
