"""`Policy`: anything that answers observations with actions; `VLAPolicy` is made from a checkpoint, without Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlakit.data.statistics import statistics_from_json
from vlakit.models.checkpoint import CARD, load_model, read_checkpoint
from vlakit.models.decoding import generate_actions
from vlakit.models.vla import OpenVLA
from vlakit.processing.processor import ProcessorNames, VLAProcessor
from vlakit.schema import Float32, Int64, Observation


class Policy(Protocol):
    """What evaluation, serving and baselines agree on."""

    def act(self, observations: Sequence[Observation]) -> Float32:
        """(B, H, A) float32 for B observations: metres, radians, gripper 0 to 1; one forward pass for the batch."""
        ...

    def reset(self, slots: Sequence[int]) -> None:
        """An episode began in these slots: drop what was remembered of the last."""
        ...


class VLAPolicy:
    """A vision-language-action model and its processor.

    >>> policy = VLAPolicy.from_checkpoint("runs/lora_r32/last.ckpt")  # doctest: +SKIP
    >>> policy.act([Observation(image, "put carrot on plate")])  # doctest: +SKIP
    """

    def __init__(self, model: OpenVLA, processor: VLAProcessor, *, constrain: bool = True) -> None:
        self.model, self.processor, self.constrain = model.eval(), processor, constrain
        self.card: dict[str, Any] = {}

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, device: str = "cpu", constrain: bool = True) -> VLAPolicy:
        """The policy of a checkpoint file, or of a run's folder. Raises CheckpointMismatch."""
        content = read_checkpoint(path)
        card = content[CARD]
        names = ProcessorNames.from_dict(card["processor"])
        processor = VLAProcessor(names, statistics_from_json(card["statistics"], where=str(path)))
        policy = cls(load_model(content, where=str(path)).to(device), processor, constrain=constrain)
        policy.card = card
        return policy

    def act(self, observations: Sequence[Observation]) -> Float32:
        """(B, H, A) float32 in the physical units of each observation's dataset."""
        ids = self.action_ids(observations)
        return np.concatenate(
            [
                self.processor.decode_actions(row[None], o.dataset, strict=self.constrain)
                for row, o in zip(ids, observations, strict=True)
            ]
        )

    def action_ids(self, observations: Sequence[Observation]) -> Int64:
        """The greedy token ids (B, H * A) int64."""
        device = next(self.model.parameters()).device
        pixels, prompts = self.processor.encode_observations(observations)
        size = len(self.processor.statistics_of(observations[0].dataset).q01)
        tokens = self.processor.actions
        allowed = (tokens.begin, tokens.padding_id) if self.constrain else None
        n_tokens = size * self.processor.names.chunk
        ids = generate_actions(self.model, pixels.to(device), prompts, n_tokens, allowed)
        return ids.cpu().numpy()

    def reset(self, slots: Sequence[int]) -> None:
        """Nothing is remembered between observations."""
