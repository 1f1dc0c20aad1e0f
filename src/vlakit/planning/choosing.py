"""Which skill comes next: log p(skill | prompt) from a language model, V(state, skill), and a rule that joins them.

Source: Ahn et al. 2022 (SayCan), Section 3; what its released notebook does otherwise is said where it differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np

from vlakit.checked import Fraction, Number, Some
from vlakit.errors import ConfigError, InvalidData, UnknownName, nearest
from vlakit.schema import Float64

Combine: TypeAlias = Literal["product", "log_linear", "lm_only", "v_only"]
LengthNorm: TypeAlias = Literal["sum", "mean", "pmi"]
Done: TypeAlias = Literal["constant", "learned"]
Mode: TypeAlias = Literal["closed_loop", "open_loop"]
Rule: TypeAlias = Callable[[Float64, Float64, float], Float64]


@dataclass(frozen=True)
class Likelihoods:
    """log p (N,) float64 of each option, and of how many tokens it is the sum, (N,) int."""

    log_probs: Float64
    lengths: np.ndarray


class Scorer(Protocol):
    """A language model, or what stands in for one."""

    def score(self, prompt: str, options: Sequence[str]) -> Likelihoods:
        """log p of each option as what follows the prompt. Raises InvalidData where there is no option."""
        ...


COMBINE: dict[str, Rule] = {
    "product": lambda log_p, values, alpha: log_p + np.log(values),
    "log_linear": lambda log_p, values, alpha: log_p + alpha * np.log(values),
    "lm_only": lambda log_p, values, alpha: log_p,
    "v_only": lambda log_p, values, alpha: np.log(values),
}
NORMS, DONES, MODES = get_args(LengthNorm), get_args(Done), get_args(Mode)
CHOICES = {"combine": tuple(COMBINE), "length_norm": NORMS, "done": DONES, "mode": MODES}


@dataclass(frozen=True)
class Choosing:
    """How the two are joined. alpha: the values' exponent in log_linear. floor: the least value that a skill has, for a
    product with 0 cannot be made good. done: its value is the constant c_done (the notebook's .2), or learned, what the
    affordances say of it. most: skills in a plan. mode: closed_loop asks anew after each skill that was carried out,
    open_loop makes the whole plan at the start.

    Raises UnknownName, ConfigError.
    """

    combine: Combine = "product"
    length_norm: LengthNorm = "sum"
    alpha: Number = 1.0
    floor: Fraction = 1e-4
    done: Done = "constant"
    c_done: Fraction = 0.2
    most: Some = 5
    mode: Mode = "closed_loop"

    def __post_init__(self) -> None:
        for key, known in CHOICES.items():
            if (name := getattr(self, key)) not in known:
                raise UnknownName(f"no {key} called {name!r}", where=key, do=nearest(str(name), known))
        if not (0 <= self.floor < 1 and 0 <= self.c_done <= 1 and np.isfinite(self.alpha) and self.most > 0):
            what = f"floor={self.floor} c_done={self.c_done} alpha={self.alpha} most={self.most}"
            do = "give values between 0 and 1, a finite alpha, and 1 skill or more"
            raise ConfigError(what, where="planner", do=do)
        if self.done == "learned" and self.mode == "open_loop":
            what = "nothing has come about before the first skill, and an open loop asks no more"
            raise ConfigError(what, where="done=learned mode=open_loop", do="give done: constant, or mode: closed_loop")

    def normalized(self, scorer: Scorer, prompt: str, options: Sequence[str]) -> Float64:
        """(N,) log p: the sum over tokens, their mean, or what the prompt adds to it over an empty one."""
        if not options:
            raise InvalidData("there is no option to score", where="options", do="give one skill or more")
        said = scorer.score(prompt, options)
        if self.length_norm == "pmi":
            return said.log_probs - scorer.score("", options).log_probs
        return said.log_probs / said.lengths if self.length_norm == "mean" else said.log_probs

    def joined(self, log_p: Float64, values: Float64) -> Float64:
        """(N,) in [0, 1], the best 1. Raises InvalidData where no option is possible, or a value is none."""
        values = np.asarray(values, np.float64)
        if values.shape != log_p.shape or not ((values >= 0) & (values <= 1)).all():
            what = f"values of shape {values.shape} for {log_p.shape} options, or outside 0 to 1"
            raise InvalidData(what, where="affordances", do="give one probability of success for each option")
        if self.combine != "lm_only" and not values.any():
            what = f"no skill is possible here: the value of all {len(values)} options is 0"
            raise InvalidData(what, where="affordances", do="look at what was detected, or give combine=lm_only")
        with np.errstate(divide="ignore"):
            scores = COMBINE[self.combine](log_p, np.maximum(values, self.floor), self.alpha)
        if not np.isfinite(scores.max()):
            raise InvalidData("no option has a finite score", where="scorer", do="look at the language model's answers")
        return np.exp(scores - scores.max())


@dataclass(frozen=True)
class Choice:
    """One step of a plan. option: its place among the options; log_p, values, joined (N,) say why."""

    option: int
    log_p: Float64
    values: Float64
    joined: Float64


@dataclass(frozen=True)
class Chooser:
    """One language model, the options it chooses among, done the one at `done`, and how what is said is written."""

    scorer: Scorer
    options: Sequence[str]
    done: int
    prompt: Callable[[str, Sequence[str]], str]  # (instruction, skills so far) -> prompt
    how: Choosing = Choosing()

    def choose(self, instruction: str, history: Sequence[str], values: Float64) -> Choice:
        """The next skill. values (N,): V of each option; c_done replaces that of done where it is constant."""
        values = np.asarray(values, np.float64).copy()
        if self.how.done == "constant":
            values[self.done] = self.how.c_done
        log_p = self.how.normalized(self.scorer, self.prompt(instruction, history), self.options)
        joined = self.how.joined(log_p, values)
        return Choice(int(joined.argmax()), log_p, values, joined)

    def open_loop(self, instruction: str, values: Float64) -> Iterator[Choice]:
        """A whole plan before anything is carried out, with values of the first state, as the notebook has it."""
        history: list[str] = []
        while len(history) < self.how.most:
            choice = self.choose(instruction, history, values)
            yield choice
            if choice.option == self.done:
                return
            history.append(self.options[choice.option])


def presence(needs: Sequence[Sequence[str]], seen: Sequence[str]) -> Float64:
    """(N,): 1 where all that an option needs is among what a detector saw, each thing once.

    >>> presence([["red block", "bowl"], ["bowl", "bowl"], []], ["bowl", "red block"]).tolist()
    [1.0, 0.0, 1.0]
    """
    return np.array([float(all(need.count(one) <= list(seen).count(one) for one in need)) for need in map(list, needs)])
