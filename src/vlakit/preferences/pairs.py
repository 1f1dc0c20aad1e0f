"""Pairs of episodes that began alike: one that succeeded over one that failed, from the same initial state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias
from zlib import crc32

import numpy as np

from vlakit.checked import Flag, Some
from vlakit.errors import ConfigError, InvalidData
from vlakit.preferences.episodes import Episode

Pair: TypeAlias = tuple[Episode, Episode]  # chosen, rejected


@dataclass(frozen=True)
class PairPlan:
    """Which pairs of a start are taken: one, all, or at most `cap`, drawn by `seed`.

    prefer: success over failure, or as a control length: of two successes the shorter, so that nothing but length can
    be learnt. held_out: share of the starts whose pairs are for validation. unpaired: keep episodes of no pair too, as
    kto and filtered_bc use them. Raises ConfigError.
    """

    pairing: Literal["one", "all", "cap"] = "all"
    cap: Some | None = None
    prefer: Literal["success", "length"] = "success"
    held_out: float = 0.1
    unpaired: Flag = True
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.pairing == "cap") != (self.cap is not None) or not 0 <= self.held_out < 1:
            raise ConfigError(
                f"pairing={self.pairing} cap={self.cap} held_out={self.held_out}",
                where="command line",
                do="pairing=one, pairing=all, or pairing=cap cap=K; held_out in [0, 1)",
            )

    @property
    def most(self) -> int | None:
        """Pairs of one start at most."""
        return {"one": 1, "cap": self.cap}.get(self.pairing)


@dataclass(frozen=True)
class Paired:
    """Pairs by split, train and val; the starts of val; counts: what became of the starts and episodes."""

    pairs: Mapping[str, list[Pair]]
    held_out: frozenset[str]
    counts: Mapping[str, float]


def paired(episodes: Sequence[Episode], plan: PairPlan) -> Paired:
    """The pairs of a collection. Raises InvalidData where no start gives one, with what the starts were like."""
    by_start: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        if episode.usable:
            by_start[episode.start].append(episode)
    found = {start: _pairs(start, rolled, plan) for start, rolled in by_start.items()}
    usable = [start for start, pairs in found.items() if pairs]
    counts = _counts(episodes, by_start, found)
    if not usable:
        raise InvalidData(
            f"no pair: of {counts['starts']} starts {counts['all_won']} won in all rollouts and {counts['all_lost']}"
            f" in none; preferred is {plan.prefer}",
            where=f"{len(episodes)} episodes",
            do="more rollouts_per_start, another temperature, or a policy that wins now and then",
        )
    held_out = _held_out(usable, plan)
    pairs = {
        split: [pair for start in usable if (start in held_out) == (split == "val") for pair in found[start]]
        for split in ("train", "val")
    }
    return Paired(pairs, held_out, counts)


def _pairs(start: str, episodes: Sequence[Episode], plan: PairPlan) -> list[Pair]:
    won = [one for one in episodes if one.success]
    if plan.prefer == "length":
        pairs = [pair for pair in product(won, won) if pair[0].steps < pair[1].steps]
    else:
        pairs = list(product(won, [one for one in episodes if not one.success]))
    if plan.most is None or len(pairs) <= plan.most:
        return pairs
    rng = np.random.default_rng([plan.seed, crc32(start.encode())])
    return [pairs[i] for i in sorted(rng.choice(len(pairs), plan.most, replace=False))]


def _held_out(starts: Sequence[str], plan: PairPlan) -> frozenset[str]:
    """One start stays for training at least."""
    number = min(round(plan.held_out * len(starts)), len(starts) - 1)
    order = np.random.default_rng([plan.seed, 1]).permutation(len(starts))
    return frozenset(starts[int(i)] for i in order[:number])


def _counts(
    episodes: Sequence[Episode], by_start: Mapping[str, Sequence[Episode]], found: Mapping[str, Sequence[Pair]]
) -> dict[str, float]:
    wins = [sum(one.success for one in rolled) / len(rolled) for rolled in by_start.values()]
    chosen, rejected = ([pair[side] for pairs in found.values() for pair in pairs] for side in (0, 1))
    usable = sum(bool(pairs) for pairs in found.values())
    return {
        "starts": len(by_start),
        "all_won": sum(win == 1 for win in wins),
        "all_lost": sum(win == 0 for win in wins),
        "yield": usable / max(len(by_start), 1),
        "pairs": len(chosen),
        "episodes": len(episodes),
        "errors": sum(not one.usable for one in episodes),
        "success": sum(one.success for one in episodes) / max(len(episodes), 1),
        "tokens_chosen": float(np.mean([one.mask.sum() for one in chosen])) if chosen else 0.0,
        "tokens_rejected": float(np.mean([one.mask.sum() for one in rejected])) if rejected else 0.0,
    }


def mismatches(episodes: Sequence[Episode], seed: int) -> list[int]:
    """For each episode the place of another, from another start if there is one: kto asks for its tokens here.

    TRL rolls the answers of a batch by one; these are fixed, so that the reference is asked once. Raises InvalidData.
    """
    if len(episodes) < 2:
        raise InvalidData("one episode has no other to mismatch it with", where="pairs", do="collect more")
    order = [int(place) for place in np.random.default_rng([seed, 2]).permutation(len(episodes))]
    partners = [0] * len(episodes)
    for at, place in enumerate(order):
        following = [*order[at + 1 :], *order[:at]]
        other = (one for one in following if episodes[one].start != episodes[place].start)
        partners[place] = next(other, following[0])
    return partners
