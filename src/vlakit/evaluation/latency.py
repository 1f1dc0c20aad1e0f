"""What a slow policy loses: while it thinks, the world goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Strict

from vlakit.checked import Flag, Some
from vlakit.errors import ConfigError

MEASURED = "measured"
Milliseconds: TypeAlias = (
    Annotated[int, Strict(), Field(ge=0)] | Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
)


@dataclass(frozen=True)
class Control:
    """How a policy's answers drive a robot.

    latency_ms: what one answer takes; "measured" takes the real time of each, so that episodes are no longer the same
    each time. blocking: the world waits for the answer, else it is held still step by step, and each of these steps
    counts. execute: actions of a chunk that are carried out before the policy is asked again; None: all.
    """

    latency_ms: Milliseconds | Literal["measured"] = 0.0
    blocking: Flag = True
    execute: Some | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.latency_ms, int | float) and 0 <= self.latency_ms < math.inf
        if not number and self.latency_ms != MEASURED:
            raise ConfigError(
                f"latency_ms is {self.latency_ms!r}",
                where="control.latency_ms",
                do=f"give milliseconds of at least 0, or {MEASURED}",
            )
        if self.execute is not None and self.execute < 1:
            raise ConfigError(
                f"execute is {self.execute}", where="control.execute", do="give at least 1, or null for the whole chunk"
            )

    def check_slots(self, slots: int) -> None:
        """Raise ConfigError where the time of a batch would be taken for the time of one answer."""
        if self.latency_ms == MEASURED and slots != 1:
            raise ConfigError(
                f"the time of {slots} answers in one batch is not that of one",
                where="control.latency_ms=measured",
                do="add slots=1, or give the latency in milliseconds",
            )

    def seconds(self, took_s: float) -> float:
        """Latency of an answer that really took `took_s`."""
        return took_s if isinstance(self.latency_ms, str) else self.latency_ms / 1000

    def held_steps(self, latency_s: float, control_hz: float) -> int:
        """Control steps that pass before the answer is there; 0 when the world waits.

        >>> Control(800, blocking=False).held_steps(0.8, 5.0)
        4
        """
        return 0 if self.blocking else math.floor(latency_s * control_hz + 1e-9)  # 0.8 s x 5 Hz is 4, not 3.999
