"""What values are learnt from: patches of the picture, or the state of a policy that has been told a skill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from vlakit.errors import UnknownName, nearest
from vlakit.planning.skills import Library
from vlakit.schema import Float32, Observation

if TYPE_CHECKING:
    from vlakit.policy import TrainedPolicy

# Observations, and the skill that each is looked at for -> (B, P, D); for None, all skills: (B, N, P, D), or (B, P, D)
# where the skill makes no difference.
See: TypeAlias = Callable[[Sequence[Observation], Sequence[int] | None], Float32]


def patches(policy: TrainedPolicy, skills: Library) -> See:
    """The features of the encoder, whatever the skill."""
    return lambda observations, _: policy.features(observations)


def state(policy: TrainedPolicy, skills: Library) -> See:
    """One state: that of the last id of the prompt whose instruction is the skill."""
    texts = skills.options[:-1]

    def see(observations: Sequence[Observation], asked: Sequence[int] | None) -> Float32:
        if asked is None:
            return policy.told(observations, texts)[:, :, None]
        return policy.told_each(observations, [texts[skill] for skill in asked])[:, None]

    return see


LOOKS: dict[str, Callable[[TrainedPolicy, Library], See]] = {"state": state, "patches": patches}


def look_of(name: str, policy: TrainedPolicy, skills: Library) -> See:
    """By its name. Raises UnknownName; PartMissing for a policy that has no such features, when it is asked."""
    if name not in LOOKS:
        raise UnknownName(f"values cannot look at {name!r}", where="look", do=nearest(name, LOOKS))
    return LOOKS[name](policy, skills)
