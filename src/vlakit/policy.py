"""`Policy`: anything that answers observations with actions; `VLAPolicy` is made from a checkpoint, without Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vlakit.checkpoints.contract import check_contract
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.data.shards.statistics import statistics_from_json
from vlakit.errors import InvalidData, StatisticsMissing
from vlakit.models.openvla.decoding import Choice, Decoded, answer_log_probs, generate
from vlakit.models.openvla.vla import ModelNames, OpenVLA
from vlakit.processing.processor import VLAProcessor
from vlakit.schema import Float32, Int64, Observation


class Policy(Protocol):
    """What evaluation, serving and baselines agree on."""

    def act(self, observations: Sequence[Observation]) -> Float32:
        """(B, H, A) float32 for B observations: metres, radians, gripper 0 to 1; one forward pass for the batch."""
        ...

    def reset(self, slots: Sequence[int]) -> None:
        """An episode began in these slots: drop what was remembered of the last."""
        ...


@dataclass(frozen=True)
class Sampled:
    """Actions (B, H, A) with the ids (B, H * A) they are made of and each id's log-probability (B, H * A)."""

    actions: Float32
    ids: Int64
    log_probs: Float32


class VLAPolicy:
    """A vision-language-action model and its processor.

    constrain: decode action ids only (default); False leaves all ids open, as the released code does.

    >>> policy = VLAPolicy.from_checkpoint("runs/lora_r32/last.ckpt")  # doctest: +SKIP
    >>> policy.act([Observation(image, "put carrot on plate")])  # doctest: +SKIP
    """

    def __init__(self, model: OpenVLA, processor: VLAProcessor, *, constrain: bool = True) -> None:
        self.model, self.processor, self.constrain = model.eval(), processor, constrain
        self.card: dict[str, Any] = {}
        self.names: ModelNames | None = None
        self.adapter: dict[str, Any] | None = None
        self.pad_to = 0  # ids that prompts are padded to at least: the same for all batches keeps answers to the bit

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        constrain: bool = True,
        strict: bool = True,
        options: LoadOptions | None = None,
    ) -> VLAPolicy:
        """The policy of a vlakit checkpoint or run folder, a Hugging Face folder, an adapter folder or a native .pt.

        Local paths only. The checkpoint's contract is replayed: a policy that answers otherwise than when it was saved
        raises ContractBroken (strict=False: warns). Raises CheckpointMismatch.
        """
        loaded = load(path, options)
        if not loaded.statistics:
            raise StatisticsMissing(
                "the checkpoint says no action statistics, so that its answers have no units",
                where=str(path),
                do="put the dataset_statistics.json of its training beside it",
            )
        statistics = statistics_from_json(loaded.statistics, where=str(path))
        policy = cls(loaded.model.to(device), VLAProcessor(loaded.processor, statistics), constrain=constrain)
        policy.card, policy.names, policy.adapter = loaded.card, loaded.names, loaded.adapter
        contract = loaded.card.get("contract")
        if contract is not None:
            check_contract(contract, policy.model, policy.processor, where=str(path), strict=strict)
        return policy

    def act(self, observations: Sequence[Observation]) -> Float32:
        """(B, H, A) float32 in the physical units of each observation's dataset."""
        return self._actions(self.action_ids(observations), observations)

    def action_ids(self, observations: Sequence[Observation]) -> Int64:
        """The greedy token ids (B, H * A) int64."""
        return self._decode(observations, Choice(self._allowed)).ids.cpu().numpy()

    def sample(
        self, observations: Sequence[Observation], *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Sampled:
        """Actions drawn at random; the recorded log-probabilities are those that `log_prob` computes again."""
        decoded = self._decode(observations, Choice(self._allowed, temperature, generator))
        ids = decoded.ids.cpu().numpy()
        return Sampled(self._actions(ids, observations), ids, decoded.log_probs.cpu().numpy())

    def log_prob(self, observations: Sequence[Observation], ids: Int64) -> Tensor:
        """(B, H * A) log-probability of each of the ids (B, H * A), given those before it; gradients flow."""
        pixels, prompts = self.processor.encode_observations(observations)
        answers = torch.as_tensor(ids, device=self._device)
        self._check_answers(answers, observations)
        return answer_log_probs(self.model, self._placed(pixels), prompts, answers, self._allowed)

    @torch.inference_mode()
    def features(self, observations: Sequence[Observation]) -> Float32:
        """(B, N, D_v) patch features of the vision towers."""
        pixels, _ = self.processor.encode_observations(observations)
        return self.model.vision_backbone(self._placed(pixels)).float().cpu().numpy()

    def reset(self, slots: Sequence[int]) -> None:
        """Nothing is remembered between observations."""

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _placed(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._device, next(self.model.vision_backbone.parameters()).dtype)

    def _check_answers(self, answers: Tensor, observations: Sequence[Observation]) -> None:
        first, last = self._allowed or (0, self.model.language_model.config.vocab_size)
        shape_fits = answers.ndim == 2 and len(answers) == len(observations) and answers.shape[1] > 0
        if not shape_fits or ((answers < first) | (answers >= last)).any():
            raise InvalidData(
                f"answers {tuple(answers.shape)} to {len(observations)} observations, or an id outside {first}:{last}",
                where="ids",
                do="pass one row of ids an observation, as `sample` returns them",
            )

    @property
    def _allowed(self) -> tuple[int, int] | None:
        tokens = self.processor.actions
        return (tokens.begin, tokens.padding_id) if self.constrain else None

    def _decode(self, observations: Sequence[Observation], choice: Choice) -> Decoded:
        pixels, prompts = self.processor.encode_observations(observations)
        sizes = {len(self.processor.statistics_of(o.dataset).q01) for o in observations}
        if len(sizes) != 1:
            raise InvalidData(
                f"a batch of {len(observations)} observations of datasets with {sorted(sizes)} action dimensions",
                where="observations",
                do="ask for datasets of the same action size together, and for at least one observation",
            )
        n_tokens = sizes.pop() * self.processor.names.chunk
        return generate(self.model, self._placed(pixels), prompts, n_tokens, choice, pad_to=self.pad_to)

    def _actions(self, ids: Int64, observations: Sequence[Observation]) -> Float32:
        decode = self.processor.decode_actions
        pairs = zip(ids, observations, strict=True)
        return np.concatenate([decode(row[None], o.dataset, strict=self.constrain) for row, o in pairs])
