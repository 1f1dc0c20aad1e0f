"""What values are learnt from: patches of the picture, or the state of a policy that has been told a skill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from vlakit.errors import UnknownName, nearest
from vlakit.models.network import Represents, capability
from vlakit.planning.skills import Library
from vlakit.processing.tokens import token_processor
from vlakit.schema import Float32, Inputs, Observation

if TYPE_CHECKING:
    from vlakit.policy import TrainedPolicy

# Observations, and the skill that each is looked at for -> (B, P, D); for None, all skills: (B, N, P, D), or (B, P, D)
# where the skill makes no difference.
See: TypeAlias = Callable[[Sequence[Observation], Sequence[int] | None], Float32]


@runtime_checkable
class Told(Represents, Protocol):
    """A network whose state can be looked at after many prompts about one picture."""

    def told(self, inputs: Inputs, prompts: Sequence[Sequence[int]]) -> Tensor:
        """(B, N, D): `fused` of each prompt's ids in place of the text of the inputs."""
        ...


def patches(policy: TrainedPolicy, skills: Library) -> See:
    """The features of the encoder, whatever the skill."""
    return lambda observations, _: policy.features(observations)


def state(policy: TrainedPolicy, skills: Library) -> See:
    """One state: that of the last id of the prompt whose instruction is the skill. PartMissing where there is none."""
    network = capability(policy.network, Told, purpose="look=state")
    texts = skills.options[:-1]
    prompts = [token_processor(policy.processor, purpose="look=state").prompt_ids(text) for text in texts]

    @torch.inference_mode()
    def see(observations: Sequence[Observation], asked: Sequence[int] | None) -> Float32:
        if asked is None:
            states = network.told(policy.observed(observations), prompts)  # (B, N, D)
        else:
            shown = [replace(one, instruction=texts[skill]) for one, skill in zip(observations, asked, strict=True)]
            states = network.representations(policy.observed(shown))["fused"]  # (B, D)
        return states[..., None, :].float().cpu().numpy()

    return see


# No Registry: a file of values names one of these, and must not name code elsewhere.
LOOKS: dict[str, Callable[[TrainedPolicy, Library], See]] = {"state": state, "patches": patches}


def look_of(name: str, policy: TrainedPolicy, skills: Library) -> See:
    """By its name. Raises UnknownName, and PartMissing for a policy that has no such features."""
    if name not in LOOKS:
        raise UnknownName(f"values cannot look at {name!r}", where="look", do=nearest(name, LOOKS))
    return LOOKS[name](policy, skills)
