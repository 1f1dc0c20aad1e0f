"""What becomes of a readout: every timestep of the window answers with a chunk of its own, the last one acts.

A new head is a class that a line of HEADS names, or `package.module:Class`: an ActionHead whose constructor takes the
width of a readout, the shape (H, A) of a chunk, and head_options by name.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.models.octo.bins import Bins
from vlakit.models.octo.transformer import POOLING_HEADS, Pooling, dense
from vlakit.registry import Registry

HEADS: Registry[ActionHead] = Registry(
    "head of Octo",
    {
        "diffusion": "vlakit.models.octo.diffusion:Diffusion",
        "mse": "vlakit.models.octo.heads:Regression",
        "l1": "vlakit.models.octo.heads:L1",
        "discrete": "vlakit.models.octo.heads:Discrete",
    },
)


class ActionHead(nn.Module):
    """Readouts (B, W, n, D) to one embedding (B, W, k, D) for each of `answers`, by attention or as their mean."""

    at_once = True  # whether it answers in one pass

    def __init__(self, width: int, shape: tuple[int, int], *, pooling: str, answers: int = 1) -> None:
        super().__init__()
        self.shape = shape  # (H, A)
        if pooling not in ("attention", "mean") or (pooling == "attention" and width % POOLING_HEADS):
            raise ConfigError(
                f"pooling {pooling!r} of readouts {width} wide",
                where="model.network.head_options.pooling",
                do=f"attention, of a width that {POOLING_HEADS} heads share evenly, or mean",
            )
        self.pool = Pooling(width, answers) if pooling == "attention" else None

    def embeddings(self, readouts: Tensor) -> Tensor:
        """(B, W, k, D)."""
        return readouts.mean(dim=-2, keepdim=True) if self.pool is None else self.pool(readouts)

    def errors(self, readouts: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """`loss` and further marks for normalised actions (B, W, H, A), of each number in them: (B, W, H, A)."""
        raise NotImplementedError

    def act(self, readouts: Tensor) -> Tensor:
        """(B, H, A) float32: the chunk of the last timestep."""
        raise NotImplementedError


class Regression(ActionHead):
    """Numbers within +-max_action; mean squared error, times the action's size as in the original."""

    power = 2

    def __init__(self, width: int, shape: tuple[int, int], pooling: str = "attention", max_action: float = 5.0) -> None:
        super().__init__(width, shape, pooling=pooling)
        self.max_action = max_action
        self.projection = dense(width, shape[0] * shape[1])

    def actions(self, readouts: Tensor) -> Tensor:
        """(B, W, H, A) float32."""
        numbers = self.projection(self.embeddings(readouts)[:, :, 0]).float().unflatten(-1, self.shape)
        return torch.tanh(numbers / self.max_action) * self.max_action

    def errors(self, readouts: Tensor, actions: Tensor) -> dict[str, Tensor]:
        distance = (self.actions(readouts) - actions).abs()
        return {"loss": distance**self.power * self.shape[1], "mse": distance.detach() ** 2 * self.shape[1]}

    def act(self, readouts: Tensor) -> Tensor:
        return self.actions(readouts[:, -1:])[:, 0]


class L1(Regression):
    """The same with the absolute error."""

    power = 1


class Discrete(ActionHead):
    """Bins; token_per: what one embedding stands for: each `number`, each `action`, or the whole `chunk`."""

    def __init__(
        self,
        width: int,
        shape: tuple[int, int],
        pooling: str = "attention",
        token_per: str = "number",
        bins: str = "normal",
        n_bins: int = 256,
        limits: tuple[float, float] = (-5.0, 5.0),
        clip: bool = True,
    ) -> None:
        """limits: of uniform bins. clip: what lies beyond the bins is of the outermost ones."""
        answers = {"number": shape[0] * shape[1], "action": shape[0], "chunk": 1}.get(token_per)
        if answers is None:
            raise ConfigError(
                f"token_per is {token_per!r}", where="model.network.head_options", do="number, action or chunk"
            )
        super().__init__(width, shape, pooling=pooling, answers=answers)
        self.answers, self.bins = answers, Bins(n_bins, bins, *limits, clip=clip)
        self.projection = dense(width, shape[0] * shape[1] * n_bins // answers)

    def logits(self, readouts: Tensor) -> Tensor:
        """(B, W, H, A, n_bins) float32."""
        embeddings = self.embeddings(readouts)
        if embeddings.shape[2] != self.answers:
            raise ConfigError(
                f"{embeddings.shape[2]} readout tokens for {self.answers} answers",
                where="model.network.head_options.pooling",
                do="set it to attention, or readout_tokens to the number of answers",
            )
        return self.projection(embeddings).float().flatten(2).unflatten(2, (*self.shape, self.bins.n))

    def errors(self, readouts: Tensor, actions: Tensor) -> dict[str, Tensor]:
        logits, tokens = self.logits(readouts), self.bins.encode(actions)
        chosen = logits.detach().argmax(dim=-1)
        loss = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none").view(tokens.shape)
        distance = self.bins.decode(chosen) - actions
        return {"loss": loss, "mse": distance**2 * self.shape[1], "token_accuracy": (chosen == tokens).float()}

    def act(self, readouts: Tensor) -> Tensor:
        return self.bins.decode(self.logits(readouts[:, -1:])[:, 0].argmax(dim=-1))

    def log_probs(self, readouts: Tensor) -> Tensor:
        """(B, H A, n_bins): of every token in the last timestep's chunk; they do not depend on each other."""
        return self.logits(readouts[:, -1:])[:, 0].flatten(1, 2).log_softmax(dim=-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, W, H, A) over what exists; 0 where nothing does. The original's, which divides by the share."""
    weight = mask.to(values.dtype)
    return (values * weight).mean() / weight.mean().clamp(min=1e-5)
