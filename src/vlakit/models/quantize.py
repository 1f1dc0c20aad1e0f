"""A network with its linear layers quantised: which of them, when, and what a checkpoint says of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from torch import nn

from vlakit.errors import CheckpointMismatch, PartMissing
from vlakit.models.adapters import is_added, multiply_by_layers
from vlakit.models.cpu import PLAIN
from vlakit.models.network import HasFeatures, Network
from vlakit.models.quantized_layers import SCHEMES, QuantizedLinear


@dataclass(frozen=True)
class Quantization:
    """What quantising a network changed. weight_bytes_*: of all its tensors; golden: checkpoints.contract.agreement.

    share: of the weights' bytes before, that of these layers; the rest stays as it is. asked: keys of vlakit evaluate
    by which it came about; empty for a checkpoint that was stored so. latency: p50_ms and p95_ms of an answer, once
    measured.
    """

    scheme: str
    layers: int
    share: float
    weight_bytes_before: int
    weight_bytes_after: int
    golden: Mapping[str, float]
    asked: Mapping[str, Any]
    latency: Mapping[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def of(
        cls, network: nn.Module, said: Mapping[str, Any], golden: Mapping[str, float], asked: Mapping[str, Any]
    ) -> Self:
        """Of a network that is quantised now, from what its card says."""
        after = weight_bytes(network)
        now = sum(layer.weight.nbytes + layer.absmax.nbytes for layer in quantized_layers(network))
        before = after - now + said["float_bytes"]
        return cls(said["scheme"], len(said["layers"]), said["float_bytes"] / before, before, after, golden, asked)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        sizes = [f"{size / 1e6:,.1f} MB" for size in (self.weight_bytes_before, self.weight_bytes_after)]
        text = f"{self.scheme} in {self.layers} layers, {self.share:.0%} of the weights, {sizes[0]} -> {sizes[1]}"
        if self.golden:
            tokens = self.golden.get("token_agreement")
            said = "" if tokens is None else f"{tokens:.1%} of tokens as before, "
            text += f"; {self.golden['frames']:.0f} golden frames: {said}L1 {self.golden['l1']:.4f}"
        if self.latency:
            text += f"; an answer takes {self.latency['p50_ms']:.0f} ms (p95 {self.latency['p95_ms']:.0f})"
        return text


WHOLE = ("vision", "lm_head")  # parts that stay in floating point unless asked


def quantizable(network: Network, also: Collection[str] = ()) -> list[str]:
    """Paths of the layers that a scheme applies to: plain linear ones, but for WHOLE and what training has added.

    also: which of WHOLE are quantised too. Raises PartMissing where there is none, and for a part that spares nothing.
    """
    paths = _chosen(network, also)
    idle = [part for part in also if len(_chosen(network, set(also) - {part})) == len(paths)]
    if paths and idle:
        raise PartMissing(
            f"{network.kind} has no layers that quantising spares as {idle[0]}",
            where=f"quantize_also=[{','.join(also)}]",
            do="leave it out: whatever is linear there is quantised already",
        )
    if not paths:
        rest = [part for part in WHOLE if part not in also]
        raise PartMissing(
            f"{network.kind or type(network).__name__} has no linear layer to quantise",
            where="quantize",
            do=f"quantize=none, or quantize_also=[{','.join(rest)}]" if rest else "quantize=none",
        )
    return paths


def _chosen(network: Network, also: Collection[str]) -> list[str]:
    kept: set[int] = set()
    if "vision" not in also and isinstance(network, HasFeatures):
        kept = {id(module) for module in network.encoder.modules()}
    paths = [path for path, module in network.named_modules() if type(module) in PLAIN and id(module) not in kept]
    paths = [path for path in paths if not is_added(f"{path}.weight", network)]
    return [path for path in paths if "lm_head" in also or not path.endswith("lm_head")]


def quantize(network: Network, scheme: str, also: Collection[str] = ()) -> dict[str, Any]:
    """Quantise a network layer by layer, in place; returns what its card says of it: see `Arriving.said`."""
    arriving = Arriving(network, scheme, quantizable(network, also))
    for path in list(arriving.awaited):
        arriving(f"{path}.weight")
    return arriving.said


class Arriving:
    """Quantises each layer of a network as soon as its weight is there, so that no whole copy of it need exist."""

    def __init__(self, network: Network, scheme: str, paths: Sequence[str]) -> None:
        self.network, self.scheme, self.awaited = network, scheme, set(paths)
        # layers: those quantised; float_bytes: of their weights before
        self.said: dict[str, Any] = {"scheme": scheme, "layers": list(paths), "float_bytes": 0}

    def __call__(self, name: str) -> None:
        """A tensor has been loaded."""
        path = name.removesuffix(".weight")
        if path != name and path in self.awaited:
            self.awaited.remove(path)
            layer: Any = self.network.get_submodule(path)
            self.said["float_bytes"] += layer.weight.nbytes
            replace_layer(self.network, path, self.scheme)


def replace_layer(network: nn.Module, path: str, scheme: str) -> None:
    """Put the layer's quantised form in its place."""
    owner, _, attribute = path.rpartition(".")
    module = network.get_submodule(owner)
    layer: Any = network.get_submodule(path)
    setattr(module, attribute, SCHEMES[scheme].of(layer))
    multiply_by_layers(module)


def restore(network: Network, said: Mapping[str, Any], *, where: str) -> None:
    """Give an empty network the layers that a card says are quantised, themselves empty. Raises CheckpointMismatch."""
    try:
        for path in said["layers"]:
            if type(network.get_submodule(path)) not in PLAIN:
                raise ValueError(f"no plain linear layer {path}")
            replace_layer(network, path, said["scheme"])
        golden = said.get("golden") or {}
        _ = [float(golden[key]) for key in ("frames", "l1") if golden]  # for the report
        if type(said["float_bytes"]) is not int or said["float_bytes"] < 1:
            raise ValueError(f"float_bytes {said['float_bytes']!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointMismatch(
            f"what is quantised is garbled: {error}", where=where, do="export it again with vlakit export quantize=..."
        ) from error


def quantized_layers(network: nn.Module) -> list[QuantizedLinear]:
    """Those of a network."""
    return [module for module in network.modules() if isinstance(module, QuantizedLinear)]


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all tensors of a network."""
    return sum(tensor.nbytes for tensor in network.state_dict().values())
