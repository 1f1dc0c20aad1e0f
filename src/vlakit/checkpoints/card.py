"""A checkpoint's card: what the file is, in names, numbers and facts: reading one runs no code that it chose."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from vlakit.errors import CheckpointMismatch
from vlakit.models.network import Network, build_empty, refuse_code
from vlakit.processing.processor import Processor, build_processor

CARD = "vlakit"  # the key under which a checkpoint file says what it is


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself; the flat table under CARD in the file.

    network and processor: kind and settings; adapter: numbers of its adapters; statistics: OpenVLA's layout; contract:
    golden frames with their answers; surroundings: dataset -> camera and control rate that its data came from; base:
    path of the network under an adapter-only checkpoint; quantized: scheme, layers, and bytes of their weights before.
    facts: where and how the run was made.
    """

    network: dict[str, Any]
    processor: dict[str, Any]
    statistics: dict[str, Any]
    adapter: dict[str, Any] | None = None
    contract: dict[str, Any] | None = None
    strategy: str | None = None
    version: str | None = None
    base: str | None = None
    quantized: dict[str, Any] | None = None
    surroundings: dict[str, Any] = field(default_factory=dict[str, Any])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], *, where: str) -> Self:
        """The card of a file; 0.1.0 knew one kind of network and of processor. Raises CheckpointMismatch."""
        values = dict(table)
        if "model" in values and "network" not in values:
            values["network"] = {"kind": "openvla", **values.pop("model")}
        if "processor" in values:
            values["processor"] = {"kind": "tokens", **values["processor"]}
        values["surroundings"] = values.pop("surroundings", values.pop("suite_contract", None)) or {}
        lacking = sorted({"network", "processor", "adapter", "statistics"} - set(values))
        if lacking:
            raise CheckpointMismatch(
                f"the checkpoint does not say its {', '.join(lacking)}",
                where=where,
                do="pass one written by vlakit train",
            )
        known = {one.name for one in fields(cls)} - {"facts"}
        facts = {key: value for key, value in values.items() if key not in known}
        return cls(**{key: value for key, value in values.items() if key in known}, facts=facts)

    def to_dict(self) -> dict[str, Any]:
        """The table that is stored: plain values only."""
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "facts"}
        if self.quantized is None:  # as ever, for all others
            del named["quantized"]
        return {**named, **self.facts}

    def check_trust(self, trusted: Collection[str], *, where: str) -> None:
        """Raise CheckpointMismatch where the card names code outside vlakit that `trusted` does not list."""
        for table in (self.network, self.processor):
            refuse_code(table, where=where, trusted=trusted)

    def build(self, statistics: Mapping[str, Any]) -> tuple[Network, Processor]:
        """The network, whose parameters await loading, and its processor; adapters are not yet there."""
        processor = build_processor(self.processor, statistics)
        return build_empty(self.network, processor), processor
