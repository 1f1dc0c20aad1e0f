"""What a dataset holds, found without a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Survey:
    """fields: path, as a spec writes it -> dtype and shape in words; ignored: name -> why it cannot be taken.

    cameras: key, as `images` of a spec writes it -> (height, width), None where nobody knows before decoding.
    rate: frames a second, None where the format states none; instructions: those that differ.
    names: field -> what its columns are called, where the format says it.
    """

    format: str
    n_episodes: int
    n_steps: int | None
    fields: Mapping[str, str]
    cameras: Mapping[str, tuple[int, int] | None]
    rate: float | None = None
    instructions: Sequence[str] = ()
    ignored: Mapping[str, str] = field(default_factory=dict[str, str])
    names: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def lines(self) -> list[str]:
        """For people."""
        steps = "" if self.n_steps is None else f", {self.n_steps:,} steps"
        rate = "it states no rate" if self.rate is None else f"{self.rate:g} Hz"
        found = [f"{self.format}: {self.n_episodes:,} episodes{steps}, {rate}"]
        found += [f"  {path:<30}  {what}" for path, what in self.fields.items()]
        found += [f"camera {key}" + (f": {size[0]} x {size[1]}" if size else "") for key, size in self.cameras.items()]
        found += [f"ignored {name}: {why}" for name, why in self.ignored.items()]
        return found + [f"instruction: {text}" for text in self.instructions[:20]]
