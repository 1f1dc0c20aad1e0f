"""`Policy`: anything that answers observations with actions. `TrainedPolicy` comes from a checkpoint, without Hydra."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vlakit.checkpoints.card import Card
from vlakit.checkpoints.contract import check_contract, check_near
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.errors import PartMissing, StatisticsMissing
from vlakit.models.cpu import use_onednn
from vlakit.models.network import Answering, Graphed, HasFeatures, Likelihood, Network, capability, tensors_hash
from vlakit.models.quantize import Quantization
from vlakit.models.quantized_layers import NONE, check_kernel
from vlakit.processing.pixels import observed_frames
from vlakit.processing.processor import Processor
from vlakit.processing.tokens import token_processor
from vlakit.schema import Float32, Inputs, Int64, Observation

log = logging.getLogger(__name__)
ASPECT_TOLERANCE = 0.02  # what cutting to whole pixels may change


class Policy(Protocol):
    """What evaluation, serving and baselines agree on."""

    @property
    def window(self) -> int:
        """Frames of history that an observation must show, the present one included."""
        ...

    def act(self, observations: Sequence[Observation]) -> Float32:
        """(B, H, A) float32 for B observations: metres, radians, gripper 0 to 1; one forward pass for the batch."""
        ...

    def reset(self, slots: Sequence[int]) -> None:
        """An episode began in these slots: drop what was remembered of the last."""
        ...


@dataclass(frozen=True)
class Sampled:
    """Actions (B, H, A) with the ids (B, n) they are made of and each id's log-probability (B, n)."""

    actions: Float32
    ids: Int64
    log_probs: Float32


class TrainedPolicy:
    """A network, the processor that feeds it, and what its checkpoint says of them: observe, predict, physical units.

    constrain: a network that decodes tokens chooses among action ids only (default); False leaves all ids open, as
    OpenVLA's released code does.

    >>> policy = TrainedPolicy.from_checkpoint("runs/lora_r32/last.ckpt")  # doctest: +SKIP
    >>> policy.act([Observation.of(image, "put carrot on plate")])  # doctest: +SKIP
    """

    def __init__(
        self, network: Network, processor: Processor, card: Card | None = None, *, constrain: bool = True
    ) -> None:
        self.network, self.processor, self.constrain = network.eval(), processor, constrain
        self.card = card or Card(network.description, processor.description, {})
        self.quantization: Quantization | None = None  # what became smaller, and how near its answers are
        self.cuda_graphs = False
        self.pad_to = 0  # ids that prompts are padded to at least: the same for all batches keeps answers to the bit
        self._shape_told = False
        use_onednn(network)
        if hasattr(network, "constrain"):
            network.constrain = constrain  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        elif not constrain:
            raise PartMissing(
                f"constrain=false opens all ids of a vocabulary, and {network.kind} answers without one",
                where="constrain",
                do="leave it out",
            )

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.network.parameters())
        settings, datasets = self.processor.settings, ", ".join(sorted(self.processor.statistics)) or "none"
        return (
            f"TrainedPolicy({self.network.kind}, {size:,} parameters on {self.device}, strategy {self.card.strategy};"
            f" cameras {', '.join(settings.cameras)} at {settings.image_size} px, window {settings.window},"
            f" chunk {settings.chunk}; statistics of {datasets})"
        )

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        constrain: bool = True,
        strict: bool | None = None,
        acting: bool = True,
        options: LoadOptions | None = None,
    ) -> TrainedPolicy:
        """The policy of a vlakit checkpoint or run folder, a Hugging Face folder, an adapter folder or a native .pt.

        Local paths only. The checkpoint's contract is replayed: a policy that answers otherwise than when it was saved
        raises ContractBroken (strict=False: warns), one without a contract warns (strict=True: CheckpointMismatch).
        acting=False: it is to answer questions alone, for which a model that knows no robot yet is good enough.
        options.quantize: answers then need only be near those of the contract; `quantization` says how near.
        """
        options = options or LoadOptions()
        if options.quantize != NONE:
            check_kernel(options.quantize, torch.device(device).type)
        loaded = load(path, options)
        if acting and not loaded.processor.statistics:
            raise StatisticsMissing(
                "the checkpoint says no action statistics, so that its answers have no units",
                where=str(path),
                do="put the dataset_statistics.json of its training beside it",
            )
        policy = cls(loaded.network.to(device), loaded.processor, loaded.card, constrain=constrain)
        card, asked = loaded.card, options.quantize != NONE
        if card.quantized is not None:
            check_kernel(card.quantized["scheme"], torch.device(device).type)
            near = dict(card.quantized.get("golden", {}))  # as it was found when the weights were stored
            if asked and acting:
                near = check_near(card.contract, policy.network, policy.processor, where=str(path), strict=strict)
            keys = {"quantize": options.quantize, "quantize_also": list(options.quantize_also)} if asked else {}
            policy.card = replace(card, quantized={**card.quantized, "golden": near})
            policy.quantization = Quantization.of(policy.network, card.quantized, near, keys)
            log.info("%s", policy.quantization)
        if acting and not asked:
            check_contract(card.contract, policy.network, policy.processor, where=str(path), strict=strict)
        if options.cuda_graphs:
            capability(policy.network, Graphed, purpose="cuda_graphs").record()
            policy.cuda_graphs = True
        return policy

    @property
    def window(self) -> int:
        """Frames of history that an observation must show, the present one included."""
        return self.processor.settings.window

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> Float32:
        """(B, H, A) float32 in the physical units of each observation's dataset."""
        return self._physical(self.network.predict(self.observed(observations)), observations)

    @torch.inference_mode()
    def answer(self, observations: Sequence[Observation], *, longest: int = 32) -> list[str]:
        """An answer in words, of `longest` ids at most, to each observation, whose instruction is the question.

        All ids are open, whatever `constrain` says. Raises PartMissing for a network that answers in no words.
        """
        network = capability(self.network, Answering, purpose="a question")
        processor = token_processor(self.processor, purpose="a question")
        stop = processor.text.eos_id
        ids = network.answer(processor.ask(observations).to(self.device), stop=stop, longest=longest)
        return [processor.text.decode(row[: row.index(stop)] if stop in row else row) for row in ids.tolist()]

    def sample(
        self, observations: Sequence[Observation], *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Sampled:
        """Actions drawn at random; the recorded log-probabilities are those that `log_prob` computes again.

        Raises PartMissing for a network without a likelihood.
        """
        network = capability(self.network, Likelihood, purpose="sampling")
        drawn = network.sample(self.observed(observations), temperature=temperature, generator=generator)
        actions = self._physical(drawn.actions, observations)
        return Sampled(actions, drawn.ids.cpu().numpy(), drawn.log_probs.float().cpu().numpy())

    def log_prob(self, observations: Sequence[Observation], ids: Int64) -> Tensor:
        """(B, n) log-probability of each of the ids (B, n), given those before it; gradients flow.

        Raises PartMissing for a network without a likelihood.
        """
        network = capability(self.network, Likelihood, purpose="log_prob")
        return network.log_prob(self.observed(observations), torch.as_tensor(ids, device=self.device))

    @torch.inference_mode()
    def features(self, observations: Sequence[Observation]) -> Float32:
        """(B, N, D) features of the network's encoder. Raises PartMissing where it has none."""
        network = capability(self.network, HasFeatures, purpose="features")
        return network.features(self.observed(observations)).float().cpu().numpy()

    def reset(self, slots: Sequence[int]) -> None:
        """Nothing is remembered between observations."""

    def observed(self, observations: Sequence[Observation]) -> Inputs:
        """What the network sees, on its device; warns once where a camera's shape is not that of its training."""
        inputs = self.processor.observe(observations, pad_to=self.pad_to).like(next(self.network.parameters()))
        if not self._shape_told:
            self._tell_shape(observations[0], inputs.datasets[0])
        return inputs

    def trained_picture(self, dataset: str) -> tuple[int, int] | None:
        """(H, W) of the pictures of a dataset that it was trained on, as far as its card says."""
        match self.card.surroundings.get(dataset):
            case {"picture": [int(width), int(height)]} if width > 0 < height:
                return height, width
            case _:
                return None

    def _tell_shape(self, observation: Observation, dataset: str) -> None:
        trained = self.trained_picture(dataset)
        if trained is None:
            return
        height, width = trained
        seen = np.shape(observed_frames(observation.images, self.processor.settings.cameras[0])[-1])
        if abs(seen[1] * height / (seen[0] * width) - 1) > ASPECT_TOLERANCE:
            shapes = f"{seen[1]} x {seen[0]}", f"{width} x {height}"
            log.warning("the camera shows %s pictures, the policy was trained on %s: another aspect ratio", *shapes)
            self._shape_told = True

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def content_hash(self) -> str:
        """sha256 (hex) of all that decides the policy's answers: weights, processor, statistics, decoding."""
        settings: Mapping[str, object] = {**self.processor.description, "tokenizer_path": None}  # where a file lies
        decides = repr((settings, self.constrain)).encode()
        for name, one in sorted(self.processor.statistics.items()):
            decides += name.encode() + np.stack([one.q01, one.q99, one.mask, one.min, one.max]).tobytes()
        return tensors_hash(self.network, decides)

    def _physical(self, normalized: Tensor, observations: Sequence[Observation]) -> Float32:
        return self.processor.physical(normalized.float().cpu().numpy(), [one.dataset for one in observations])
