"""`RT1`: pictures of the last W moments and an instruction to the action tokens of the present one, all at once.

Since no token sees another, log p(action) is the sum over its tokens, exactly, and the likeliest action is the
likeliest token at each place. The loss is on every action of the window, as the original's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.errors import CheckpointMismatch, ConfigError, nearest
from vlakit.models.network import Drawn, Network, Output, row_means
from vlakit.models.rt1.language import text_encoder
from vlakit.models.rt1.transformer import Decoder, DecoderSizes
from vlakit.models.rt1.vision import EncoderSizes, FilmEfficientNet, TokenLearner
from vlakit.models.sizes import check_action_size, check_sizes
from vlakit.processing.processor import Processor
from vlakit.processing.rt1 import RT1Processor
from vlakit.schema import Batch, Inputs, TextBatch


class RT1(Network):
    """FiLM EfficientNet, TokenLearner, transformer; the defaults are the published sizes.

    encoder, transformer: numbers of EncoderSizes and DecoderSizes. text_width: of a table that learns. grow: an
    episode's first frames stand first in the window with nothing behind them, as the original acts; otherwise the first
    one is repeated before them.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        action_size: int = 7,
        encoder: Mapping[str, Any] | None = None,
        transformer: Mapping[str, Any] | None = None,
        image_tokens: int = 8,
        text_width: int = 512,
        grow: bool = False,
    ) -> None:
        super().__init__()
        self.processor = _checked(processor)
        settings, n_tokens = self.processor.settings, self.processor.actions.n_tokens(action_size)
        self.camera, self.action_size, self.grow = settings.cameras[0], action_size, grow
        self.text = text_encoder(self.processor, text_width)
        self.encoder = FilmEfficientNet(self.text.width, _sizes(EncoderSizes, encoder, "encoder"))
        width = self.encoder.width
        check_sizes({"image_tokens": image_tokens, "text_width": text_width}, where="model.network")
        self.token_learner = TokenLearner(width, image_tokens)
        sizes = _sizes(DecoderSizes, transformer, "transformer")
        self.transformer = Decoder(settings.window, image_tokens, n_tokens, settings.n_bins, sizes, width)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Of the transformer: the encoder's stages are not called as a whole."""
        return list(self.transformer.layers)

    def forward(self, batch: Batch) -> Output:
        """Mean cross-entropy over the action tokens of every moment of the window that has an action."""
        check_action_size(batch, self.action_size)
        logits, (steps, there) = self.window_logits(batch), window_actions(batch)  # (B, W, n, V), (B, W, A)
        ids = torch.as_tensor(self.processor.actions.encode(steps.float().cpu().numpy())).to(logits.device)  # (B, W, n)
        losses = F.cross_entropy(logits.flatten(0, 2), ids.flatten(), reduction="none").view(ids.shape).mean(dim=2)
        weight = there.to(losses.dtype)  # (B, W)
        chosen = logits[:, -1].argmax(dim=-1)
        right = (chosen == ids[:, -1])[:, None].double()
        return Output(
            loss=(losses * weight).sum() / weight.sum().clamp(min=1),
            row_losses=((losses * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).detach(),
            predicted=self.actions(chosen),
            scores={"token_accuracy": row_means(right, batch.chunk_mask)},
        )

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, 1, A)."""
        return self.actions(self.logits(inputs).argmax(dim=-1))

    @torch.no_grad()
    def sample(self, inputs: Inputs, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Drawn:
        """Each token on its own; log_probs are those at temperature 1."""
        log_probs = self.log_probs(inputs)
        if temperature == 0:
            ids = log_probs.argmax(dim=-1)
        else:
            weights = (log_probs / temperature).softmax(dim=-1).flatten(0, 1)
            ids = torch.multinomial(weights, 1, generator=generator).view(log_probs.shape[:2])
        return Drawn(self.actions(ids), ids, log_probs.gather(2, ids[..., None])[..., 0])

    def log_prob(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, n) of the ids (B, n); gradients flow."""
        return self.log_probs(inputs).gather(2, ids[..., None])[..., 0]

    def log_probs(self, inputs: Inputs) -> Tensor:
        """(B, n, V) float32."""
        return self.logits(inputs).log_softmax(dim=-1)

    def logits(self, inputs: Inputs) -> Tensor:
        """(B, n, V) float32 of the present action's tokens."""
        return self.window_logits(inputs)[:, -1]

    def window_logits(self, inputs: Inputs) -> Tensor:
        """(B, W, n, V) float32 of the action tokens of each moment; without meaning before the episode's begin."""
        tokens = self.image_tokens(inputs)
        if not self.grow:
            return self.transformer.action_logits(tokens).float()
        tokens, present = grown(tokens, inputs.window_mask)
        steps = tokens.shape[1]
        places = (torch.arange(steps, device=tokens.device) - (steps - 1) + present[:, None]).clamp(min=0)  # (B, W)
        rows = torch.arange(len(places), device=tokens.device)[:, None]
        return self.transformer.action_logits(tokens)[rows, places].float()

    def image_tokens(self, inputs: Inputs) -> Tensor:
        """(B, W, n, D)."""
        pixels = inputs.pixels[self.camera]  # (B, W, 3, S, S)
        context = self.text(cast(TextBatch, inputs.text)).to(pixels)  # (B, D)
        features = self.encoder(pixels.flatten(0, 1), context.repeat_interleave(pixels.shape[1], dim=0))
        return self.token_learner(features.flatten(2).transpose(1, 2)).unflatten(0, pixels.shape[:2])

    def actions(self, ids: Tensor) -> Tensor:
        """Normalised actions (B, 1, A) float32 of ids (B, n)."""
        if ids.is_meta:  # they are being counted
            return torch.zeros(len(ids), 1, self.action_size, device="meta")
        decoded = self.processor.actions.decode(ids.cpu().numpy())
        return torch.as_tensor(decoded)[:, None].to(ids.device)


def window_actions(batch: Batch) -> tuple[Tensor, Tensor]:
    """Normalised actions (B, W, A) of the window's moments and which of them exist (B, W); the last is the present."""
    present, acting = batch.normalized[:, :1], batch.chunk_mask[:, :1]
    if batch.past is None:
        earlier = batch.window_mask.shape[1] - 1
        return present.expand(-1, earlier + 1, -1), torch.cat([acting.new_zeros(len(acting), earlier), acting], dim=1)
    return torch.cat([batch.past, present], dim=1), torch.cat([batch.window_mask[:, :-1] & acting, acting], dim=1)


def grown(tokens: Tensor, window_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, W, n, D) with the real frames first and zeros behind them, and the number (B,) of the present one.

    window_mask (B, W): the real frames of a window are its last.
    """
    steps, real = tokens.shape[1], window_mask.long().sum(dim=1)  # (B,)
    number = torch.arange(steps, device=tokens.device)
    source = (number + steps - real[:, None]).clamp(max=steps - 1)  # (B, W)
    moved = tokens[torch.arange(len(tokens), device=tokens.device)[:, None], source]
    kept = number < real[:, None]
    return moved * kept[..., None, None], real - 1


SIZES = TypeVar("SIZES")


def _sizes(kind: Callable[..., SIZES], values: Mapping[str, Any] | None, where: str) -> SIZES:
    """Raise CheckpointMismatch for a number that this part does not have."""
    known = list(inspect.signature(kind).parameters)
    unknown = [key for key in values or {} if key not in known]
    if unknown:
        what = f"{unknown[0]!r} is no number of RT-1's {where}"
        raise CheckpointMismatch(what, where=f"network.{where}", do=nearest(unknown[0], known))
    return kind(**(values or {}))


def _checked(processor: Processor) -> RT1Processor:
    """Raise CheckpointMismatch, ConfigError for a processor that feeds something else."""
    if not isinstance(processor, RT1Processor):
        raise CheckpointMismatch(
            f"RT-1 takes instructions as ids, and the processor is of the kind {processor.kind!r}",
            where="model.processor.kind",
            do="set it to rt1, with the keys of conf/model/rt1_tiny.yaml",
        )
    settings = processor.settings
    wrong = {
        "cameras": len(settings.cameras) != 1,
        "chunk": settings.chunk != 1,
        "proprio": settings.proprio != 0,
        "channel_statistics": len(settings.channel_statistics) != 1,
    }
    for key, is_wrong in wrong.items():
        if is_wrong:
            raise ConfigError(
                f"RT-1 with {key} {getattr(settings, key)}",
                where=f"model.processor.{key}",
                do="RT-1 sees one camera, normalised once, no proprioception, and answers with one action",
            )
    return processor
