"""V(observation, skill): does the skill succeed from here? By Monte Carlo or by TD(0). Source: SayCan, Section 4.

The features of a frozen encoder are computed once for an observation; each skill looks at them with its own words as
the query, so that N skills cost one picture. The sigmoid is calibrated (Platt) on starts that were not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.stats import rankdata
from torch import Tensor, nn

from vlakit.errors import InvalidData
from vlakit.planning.skills import Library
from vlakit.schema import Float32, Float64


@dataclass(frozen=True)
class Tries:
    """M looks at skills: features (M, P, D) float32 of what was seen, skill (M,) its place in the library, success (M,)
    bool, start (M,) the number of the start. then (M,): the row of the next look of the same try, -1 for its last;
    None: each try was looked at when it began, and not again. ended: the same of what was seen once a skill was over,
    and success whether it has come about; with it what was seen before, when it had not.
    """

    features: Float32
    skill: np.ndarray
    success: np.ndarray
    start: np.ndarray
    ended: Tries | None = None
    then: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.skill)

    def of(self, rows: np.ndarray) -> Tries:
        """These rows, by number or mask; a try whose next look is not among them ends."""
        then = None
        if self.then is not None:
            chosen, place = np.arange(len(self))[rows], np.full(len(self) + 1, -1)
            place[chosen] = np.arange(len(chosen))
            then = place[self.then[chosen]]
        return Tries(self.features[rows], self.skill[rows], self.success[rows], self.start[rows], then=then)

    @property
    def begun(self) -> Tries:
        """The first look of each try, from which a planner asks."""
        return self if self.then is None else self.of(~np.isin(np.arange(len(self)), self.then))

    def split(self, share: float, seed: int) -> tuple[Tries, Tries]:
        """Two parts that share no start, the second with about `share` of the starts. Raises InvalidData."""
        starts = np.unique(self.start)
        n_held = round(share * len(starts))
        if not 0 < n_held < len(starts):
            raise InvalidData(f"{len(starts)} starts cannot be split", where="tries", do="collect from more starts")
        held = np.isin(self.start, np.random.default_rng(seed).permutation(starts)[:n_held])
        return self.of(~held), self.of(held)


def codes(skills: Library) -> Tensor:
    """(N, W) float32: which words a skill has, each in its role."""
    words = [
        [s.fact.kind, *(f"x {w}" for w in s.fact.x.split()), *(f"y {w}" for w in s.fact.other.split())] for s in skills
    ]
    known = sorted({word for one in words for word in one})
    return torch.tensor([[float(word in one) for word in known] for one in words])


class ValueNetwork(nn.Module):
    """codes (N, W), features (B, P, D) -> logits (B, N)."""

    codes: Tensor
    ended: ValueNetwork | None

    def __init__(self, codes: Tensor, n_features: int, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.norm = nn.LayerNorm(n_features)
        self.query, self.key = nn.Linear(codes.shape[1], width), nn.Linear(n_features, width)
        self.value = nn.Linear(n_features, width)
        self.head = nn.Sequential(
            nn.Linear(3 * width, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 1)
        )
        self.register_buffer("platt", torch.tensor([1.0, 0.0]))
        self.ended = None  # of the same kind: has what a skill makes true come about?

    def forward(self, features: Tensor, skills: Tensor | None = None) -> Tensor:
        """Logits of all skills (B, N), or of one skill (B,) for each row: skills (B,)."""
        features = self.norm(features)
        query = self.query(self.codes if skills is None else self.codes[skills])  # (N, w) or (B, w)
        query = query.expand(len(features), *query.shape) if skills is None else query[:, None]  # (B, N or 1, w)
        looked = nn.functional.scaled_dot_product_attention(query, self.key(features), self.value(features))
        logits = self.head(torch.cat([query, looked, query * looked], dim=-1))[..., 0]
        return logits if skills is None else logits[:, 0]

    @torch.inference_mode()
    def values(self, features: Float32) -> Float64:
        """(B, N) calibrated probabilities of success; features (B, P, D), or (B, N, P, D) of each skill's own look."""
        slope, shift = self.platt  # pyright: ignore
        seen = torch.as_tensor(features)
        if seen.ndim == 4:
            skills = torch.arange(seen.shape[1]).repeat(len(seen))
            logits = self(seen.flatten(0, 1), skills).view(seen.shape[:2])
        else:
            logits = self(seen)
        return torch.sigmoid(slope * logits + shift).double().numpy()


@dataclass(frozen=True)
class Calibration:
    """How good probabilities of success are: AUROC (none where all succeeded, or none), Brier score, expected
    calibration error over ten bins, and the share of successes that they are to be seen against.
    """

    n: int
    base_rate: float
    auroc: float | None
    brier: float
    ece: float

    @classmethod
    def of(cls, values: Float64, success: np.ndarray) -> Calibration:
        """values (M,) in [0, 1], success (M,) bool. Raises InvalidData for none."""
        won = np.asarray(success, bool)
        if not len(won):
            raise InvalidData("no try to judge values by", where="calibration", do="collect more")
        bins = np.minimum((10 * values).astype(int), 9)
        gaps = [(bins == b).mean() * abs(values[bins == b].mean() - won[bins == b].mean()) for b in np.unique(bins)]
        n_won, n_lost = int(won.sum()), int((~won).sum())
        area = None
        if n_won and n_lost:
            area = float((rankdata(values)[won].sum() - n_won * (n_won + 1) / 2) / (n_won * n_lost))
        return cls(len(won), float(won.mean()), area, float(((values - won) ** 2).mean()), float(sum(gaps)))


@dataclass(frozen=True)
class Fitted:
    """A network with what it does on starts that neither trained nor calibrated it; ended: the same of its `ended`."""

    network: ValueNetwork
    held_out: Calibration
    ended: Calibration | None = None


@dataclass(frozen=True)
class Fit:
    """How V is trained. bootstrap: TD(0), towards what V says at the try's next look, not towards how the try ended."""

    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    held_out: float = 0.2  # of the starts, once to calibrate on and once to judge by
    seed: int = 0
    bootstrap: bool = False

    def __call__(self, tries: Tries, skills: Library) -> Fitted:
        """Train, calibrate, judge, on starts of their own each; then the same of how skills ended, where that is known.

        Raises InvalidData for tries that teach nothing.
        """
        fitted = self._fitted(tries, skills)
        if tries.ended is None:
            return fitted
        ended = self._fitted(tries.ended, skills)
        fitted.network.ended = ended.network
        return replace(fitted, ended=ended.held_out)

    def _fitted(self, tries: Tries, skills: Library) -> Fitted:
        if len(set(tries.success.tolist())) < 2:
            what = "every try succeeded" if tries.success.all() else "no try succeeded"
            raise InvalidData(what, where=f"{len(tries)} tries", do="collect more, of skills that work and that do not")
        rest, judged = tries.split(self.held_out, self.seed)
        trained, calibrated = rest.split(self.held_out / (1 - self.held_out), self.seed + 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = ValueNetwork(codes(skills), tries.features.shape[2])
            self._train(network, trained)
        network.eval()
        calibrated, judged = calibrated.begun, judged.begun
        network.platt = platt(_logits(network, calibrated), calibrated.success)
        values = 1 / (1 + np.exp(-(network.platt[0].item() * _logits(network, judged) + network.platt[1].item())))
        return Fitted(network, Calibration.of(values, judged.success))

    def _train(self, network: ValueNetwork, tries: Tries) -> None:
        features, skill = torch.as_tensor(tries.features), torch.as_tensor(tries.skill)
        success = torch.as_tensor(tries.success, dtype=torch.float32)
        then = torch.as_tensor(tries.then) if self.bootstrap and tries.then is not None else None
        optimizer = torch.optim.AdamW(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(tries)).split(self.batch_size):
                target = success[rows]
                if then is not None:
                    on = then[rows] >= 0  # the try goes on
                    with torch.no_grad():
                        ahead = network(features[then[rows][on]], skill[rows][on]).sigmoid()
                    target = target.masked_scatter(on, ahead)
                logits = network(features[rows], skill[rows])
                loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


@torch.inference_mode()
def _logits(network: ValueNetwork, tries: Tries) -> Float64:
    """(M,) of the skill that was tried in each row."""
    return network(torch.as_tensor(tries.features), torch.as_tensor(tries.skill)).double().numpy()


def platt(logits: Float64, success: np.ndarray, prior: float = 1.0) -> Tensor:
    """(slope, shift) float32 of the sigmoid that says most likely what happened; slope stays above 0.

    prior: how strongly slope 1 and shift 0 are held to, in tries: a few tries do not turn values round.
    """
    won = np.asarray(success, float)

    def unlikely(at: np.ndarray) -> float:
        scaled = np.exp(at[0]) * logits + at[1]
        return float((np.logaddexp(0, scaled) - won * scaled).sum() + prior * (at**2).sum() / 2)

    slope, shift = minimize(unlikely, np.zeros(2), method="L-BFGS-B").x
    return torch.tensor([float(np.exp(slope)), float(shift)])
