"""`Network`: what every policy's network offers to training, evaluation and accounting, whatever it is inside.

A new family is a file with a subclass under a name; in a user's own code the name is `package.module:Class`.
What only some can do is a protocol: `Likelihood`, `Distribution`, `Answering`, `HasFeatures`, `Represents`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from vlakit.errors import CheckpointMismatch, PartMissing
from vlakit.models.constants import ExactConstants
from vlakit.processing.processor import Processor
from vlakit.registry import Registry
from vlakit.schema import Batch, Inputs

_BLOCK = re.compile(r"(?:.*\.)?(?:layers|blocks)\.\d+")


@dataclass
class Output:
    """What a network makes of a batch. loss: scalar, to descend; row_losses (B,): each row's own, without a graph.

    predicted (B, H, A): normalised actions, None where the rows hold none. scores: name -> (B,), further marks such as
    token_accuracy; NaN in rows without an action. answered (B,): 1 where an answer in words is right, NaN in the other
    rows; None where all rows are actions.
    """

    loss: Tensor
    row_losses: Tensor
    predicted: Tensor | None = None
    scores: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    answered: Tensor | None = None


class Network(ExactConstants):
    """A policy's network. Its constructor takes the processor that feeds it, and plain settings by name."""

    of_the_run: tuple[str, ...] = ()  # settings that a run decides, not the checkpoint that it starts from
    kind: str = ""  # its name in NETWORKS, and the settings it was built with: what a card says of it
    settings: Mapping[str, Any] = {}  # set anew by build_network for each instance

    def forward(self, batch: Batch) -> Output:
        """Loss and teacher-forced prediction of a batch."""
        raise NotImplementedError

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) float32 normalised actions: the policy's answer."""
        raise NotImplementedError

    @property
    def parts(self) -> Mapping[str, str]:
        """Part -> prefix of its parameters' names, for tables of counts; empty: the first component of each name."""
        return {}

    @property
    def placeholders(self) -> Mapping[str, str]:
        """What `{word}` in a strategy's globs stands for, such as the last layer's number."""
        return {}

    @property
    def additions(self) -> Sequence[str]:
        """Globs of parameters that no pretrained model has: random at first, they train whole whatever the strategy."""
        return ()

    @property
    def frozen(self) -> Sequence[str]:
        """Globs of parameters that never train, whatever the strategy."""
        return ()

    @property
    def undecayed(self) -> Sequence[str]:
        """Globs of parameters without weight decay, where norms and biases have none."""
        return ()

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """What is gathered as one where the network is spread over devices: `layers.N` and `blocks.N`, outermost."""
        found = {name: module for name, module in self.named_modules() if _BLOCK.fullmatch(name)}
        return [m for name, m in found.items() if not any(name.startswith(f"{outer}.") for outer in found)]

    @property
    def description(self) -> dict[str, Any]:
        """Plain values from which `build_network` makes it again."""
        return {"kind": self.kind, **self.settings}


@dataclass(frozen=True)
class Drawn:
    """Answers drawn at random: normalised actions (B, H, A), the ids (B, n) they are made of, log_probs (B, n)."""

    actions: Tensor
    ids: Tensor
    log_probs: Tensor


@runtime_checkable
class Likelihood(Protocol):
    """A network that says how likely an answer is."""

    def sample(self, inputs: Inputs, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Drawn:
        """Draw an answer for each row."""
        ...

    def log_prob(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, n) log-probability of each of the ids (B, n), given those before it; gradients flow."""
        ...


@runtime_checkable
class Graphed(Protocol):
    """A network that can record what it does on a GPU, and replay it in one launch."""

    def record(self) -> None:
        """Do so from now on, with the same kernels. Raises PartMissing where it cannot."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A network that answers in words too."""

    def answer(self, inputs: Inputs, *, stop: int, longest: int) -> Tensor:
        """(B, n) the likeliest ids, one after the other, n <= longest, all of the vocabulary open.

        Behind a row's `stop` they mean nothing.
        """
        ...


@runtime_checkable
class Distribution(Likelihood, Protocol):
    """A network that says how likely every answer is, position by position."""

    def distribution(self, inputs: Inputs, ids: Tensor) -> Tensor:
        """(B, n, C) log-probability of each of the C ids at each of n positions, given the ids (B, n) before it."""
        ...


@runtime_checkable
class Represents(Protocol):
    """A network that sums up an observation in a vector of each kind, before it answers."""

    def representations(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """vision, language and fused, each (B, D)."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A network with an encoder that can be frozen, and whose features can then be kept."""

    @property
    def encoder(self) -> nn.Module:
        """The part whose weights decide the features."""
        ...

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D) of one row's features."""
        ...

    def features(self, inputs: Inputs) -> Tensor:
        """(B, N, D)."""
        ...


def tensors_hash(module: nn.Module, prefix: bytes = b"") -> str:
    """sha256 (hex) over `prefix` and the names, kinds and bytes of all tensors of a module."""
    digest = sha256(prefix)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)  # a scalar has no bytes of its own to view
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def row_means(values: Tensor, chunk_mask: Tensor) -> Tensor:
    """Mean over what exists of (B, H, A) in each row (B,) float64; NaN in rows without an action."""
    weight = chunk_mask.to(torch.float64)  # (B, H)
    share = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
    means = (values.double().mean(dim=-1) * share).sum(dim=1)
    return means.where(chunk_mask.any(dim=1), torch.nan)


CAPABILITY = TypeVar("CAPABILITY")
NETWORKS: Registry[Network] = Registry(
    "network",
    {
        "diffusion_policy": "vlakit.models.diffusion_policy.policy:DiffusionPolicy",
        "octo": "vlakit.models.octo.octo:octo",
        "openvla": "vlakit.models.openvla.vla:openvla",
        "rt1": "vlakit.models.rt1.rt1:RT1",
    },
)


def capability(network: nn.Module, protocol: type[CAPABILITY], *, purpose: str) -> CAPABILITY:
    """The network as something that has this capability. Raises PartMissing where it has not."""
    if not isinstance(network, protocol):
        kind, name = _kind_of(network), protocol.__name__
        do = f"take another policy or head for this, or give its network the methods of models.network.{name}"
        raise PartMissing(f"{purpose} needs {name}, which {kind} does not have", where=f"network {kind}", do=do)
    return network


def build_network(
    description: Mapping[str, Any], processor: Processor, *, device: torch.device | str | None = None
) -> Network:
    """A network with random weights; `device='meta'` takes seconds and no memory at any size.

    Raises UnknownName for a kind, CheckpointMismatch for settings that its constructor does not take.
    """
    builder, settings = _builder(description, processor)
    with nullcontext() if device is None else torch.device(device):
        network = builder(processor, **settings)
    if not isinstance(network, Network):
        raise CheckpointMismatch(
            f"{description['kind']} makes a {type(network).__name__}",
            where="network.kind",
            do="let its class derive from vlakit.models.network.Network",
        )
    network.kind, network.settings = str(description["kind"]), network.settings or settings
    return network


def build_empty(description: Mapping[str, Any], processor: Processor) -> Network:
    """A network whose parameters await loading: they take no memory, while computed buffers are real."""
    with init_empty_weights(include_buffers=False):
        return build_network(description, processor)


def begin(network: nn.Module, names: Collection[str], *, like: Tensor) -> None:
    """Random values, as their layers draw them, for parameters of an empty network, on the device of `like`."""
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
        layer: Any = network.get_submodule(owner)
        layer.to_empty(device=like.device, recurse=False).reset_parameters()
        layer.to(like.dtype)


def refuse_code(names: Mapping[str, Any], *, where: str, trusted: Collection[str] = ()) -> None:
    """Raise CheckpointMismatch where a file names code (`package.module:thing`): it would choose what runs.

    trusted: packages, modules or full names that the user vouches for.
    """
    foreign = sorted(
        {name for key, name in names.items() if isinstance(name, str) and ":" in name and key != "tokenizer_path"}
    )
    foreign = [name for name in foreign if not is_trusted(name, trusted)]
    if foreign:
        packages = sorted({name.partition(":")[0].partition(".")[0] for name in foreign})
        raise CheckpointMismatch(
            f"the checkpoint names code outside vlakit: {', '.join(foreign)}",
            where=where,
            do=f"if it is yours, say so: trusted=[{','.join(packages)}]; else do not use this file",
        )


def is_trusted(name: str, trusted: Collection[str]) -> bool:
    """Whether `package.module:thing`, its module or a package above it is in the list."""
    module = name.partition(":")[0]
    parents = [module.rsplit(".", n)[0] for n in range(module.count(".") + 1)]
    return bool({name, module, *parents} & set(trusted))


def _builder(description: Mapping[str, Any], processor: Processor) -> tuple[Callable[..., Network], dict[str, Any]]:
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind is None:
        raise CheckpointMismatch("the network's kind is not given", where="network", do=f"one of {NETWORKS.names()}")
    builder = NETWORKS.get(str(kind))
    try:
        inspect.signature(builder).bind(processor, **settings)
    except (TypeError, ValueError) as error:  # ValueError: a class written in C, whose arguments Python cannot see
        raise CheckpointMismatch(
            f"the network {kind} cannot be built: {error}",
            where=f"network keys {sorted(settings)}",
            do="load the checkpoint with the vlakit version that wrote it, or mend model.network",
        ) from error
    return builder, settings


def _kind_of(network: nn.Module) -> str:
    """Its name in a configuration, with the head where that is a choice: what one head can do another cannot."""
    kind, settings = getattr(network, "kind", ""), getattr(network, "settings", None)
    head = settings.get("head") if isinstance(settings, Mapping) else None
    return f"{kind} with head={head}" if kind and head else str(kind or type(network).__name__)
