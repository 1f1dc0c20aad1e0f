"""Compare vlakit with what bitsandbytes and torchao made of one matrix: python tests/parity/check_quantisation.py DIR

DIR holds expected.npz; its `weight` and `input` are what everything is computed from. Who computes: `Int8Linear` and
`Int4Linear` of vlakit (int8 by formula, nf4 through the bitsandbytes installed here) what vlakit itself stores and
multiplies: nf4 in blocks of 64 and int8 by rows. All else by the formulas below, without either library: other blocks,
fp4, absmax quantised again, and the kinds of torchao.
Prints `array deviation by ok|FAIL`; exits with 1 beyond the tolerance of the array.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.models.quantized_layers import BLOCK, SCHEMES, QuantizedLinear

Expected = dict[str, Tensor]
Found = tuple[str, Tensor, str]  # array, value, who computed it
TIES = 2e-3  # share of packed values that may differ: a tie is rounded either way
VALUES = 1e-6  # of dequantised values and scales
OUTPUTS = 1e-5  # of outputs, in standard deviations
DYNAMIC = 1e-3  # the same, where inputs are quantised as well
TINY = 1e-38
GIVEN = {"weight", "input", "nf4_code", "fp4_code"}


def layer(expected: Expected, scheme: str) -> QuantizedLinear:
    weight = expected["weight"]
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    plain.weight.data = weight
    return SCHEMES[scheme].of(plain)


def plain(expected: Expected) -> Iterator[Found]:
    """No quantisation: that the arrays are understood."""
    yield "plain_out", F.linear(expected["input"], expected["weight"]), "torch"


def own(expected: Expected) -> Iterator[Found]:
    """What vlakit's layers store, and what they stand for."""
    four, eight = layer(expected, "int4"), layer(expected, "int8")
    who = "vlakit with bitsandbytes"
    if f"nf4_{BLOCK}_packed" in expected:
        yield f"nf4_{BLOCK}_packed", four.weight.view(-1, 1), who
        yield f"nf4_{BLOCK}_absmax", four.absmax, who
        yield f"nf4_{BLOCK}_back", four.dequantized(), who
    with torch.no_grad():
        yield "nf4_linear_out", four(expected["input"]), who
    yield "int8_rows", eight.weight, "vlakit"
    yield "int8_row_absmax", eight.absmax, "vlakit"
    # On a CPU bitsandbytes multiplies by the dequantised weight, whatever its threshold.
    for name in expected:
        if name.startswith("int8_linear_out_"):
            yield name, F.linear(expected["input"], eight.dequantized()), "vlakit"


def blocks(flat: Tensor, size: int) -> Tensor:
    """(n,) -> (blocks, size), the last one filled up with zeros."""
    return F.pad(flat, (0, -len(flat) % size)).view(-1, size)


def four_bits(expected: Expected) -> Iterator[Found]:
    """nf4 and fp4 in blocks of any size: the nearest of 16 values, the first of a pair in the high half of the byte."""
    weight = expected["weight"]
    for name in expected:
        match = re.fullmatch(r"(nf4|fp4)_(\d+)_packed", name)
        if match is None or name == f"nf4_{BLOCK}_packed":
            continue
        code, size = expected[f"{match[1]}_code"], int(match[2])
        absmax, ids = nearest_codes(weight, code, size)
        back = (code[ids].view(-1, size) * absmax[:, None]).reshape(-1)[: weight.numel()].view(weight.shape)
        yield name, packed(ids[: weight.numel()]), "formula"
        yield f"{match[1]}_{size}_absmax", absmax, "formula"
        yield f"{match[1]}_{size}_back", back, "formula"


def nearest_codes(weight: Tensor, code: Tensor, size: int, steps: int = 0) -> tuple[Tensor, Tensor]:
    """absmax (blocks,) and ids (n,) of the nearest values; steps: between -1 and 1, to which all is rounded before."""
    parts = blocks(weight.flatten(), size)
    absmax = parts.abs().amax(dim=1)
    scaled = parts * (1 / absmax.clamp(min=TINY))[:, None]
    if steps:
        scaled = ((scaled + 1) / 2 * steps + 0.5).floor() / steps * 2 - 1
    return absmax, (scaled[..., None] - code).abs().argmin(dim=-1).flatten()


def packed(ids: Tensor) -> Tensor:
    pairs = F.pad(ids, (0, len(ids) % 2)).view(-1, 2)
    return (pairs[:, :1] * 16 + pairs[:, 1:]).to(torch.uint8)


def double(expected: Expected) -> Iterator[Found]:
    """absmax minus its mean, itself quantised in blocks of 256 to one of 256 values between -1 and 1.

    bitsandbytes on a CPU looks that up at the nearest of 65536 even steps, so that one in some hundred codes is not
    the nearest one.
    """
    if "nf4_double_absmax" not in expected:
        return
    absmax, ids = nearest_codes(expected["weight"], expected["nf4_code"], BLOCK)
    offset = absmax.mean()
    again, codes = nearest_codes(absmax - offset, dynamic_code(), 256, steps=65535)
    levels = (dynamic_code()[codes].view(-1, 256) * again[:, None]).flatten()[: len(absmax)] + offset
    back = (expected["nf4_code"][ids].view(-1, BLOCK) * levels[:, None]).flatten()[: expected["weight"].numel()]
    yield "nf4_double_offset", offset, "formula"
    yield "nf4_double_absmax", codes[: len(absmax)].to(torch.uint8), "formula"
    yield "nf4_double_absmax2", again, "formula"
    yield "nf4_double_back", back.view_as(expected["weight"]), "formula"


def dynamic_code() -> Tensor:
    """256 values: zero, one, and in 7 decades 1 to 64 means of neighbouring steps, with both signs (Dettmers 2016)."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32)
        means = (edges[:-1] + edges[1:]) / 2 * 10 ** (decade - 6)
        values += [*means.tolist(), *(-means).tolist()]
    return torch.tensor(sorted(values))


def torchao(expected: Expected) -> Iterator[Found]:
    """Rows or groups, scale = absmax / (largest value + a half), both ends of the range used."""
    for name in expected:
        match = re.fullmatch(r"torchao_(int8|int4)_(\w+)_qdata", name)
        if match is None:
            continue
        kind, weight = name.removesuffix("_qdata"), expected["weight"]
        group = re.fullmatch(r"group(\d+)", match[2])
        size, top = (int(group[1]) if group else weight.shape[1]), 2 ** (int(match[1][3:]) - 1)
        parts = weight.view(len(weight), -1, size)
        # A row of zeros has the smallest scale that torchao allows.
        least = torch.finfo(torch.float32).eps if match[1] == "int8" else torch.finfo(torch.float32).tiny
        scale = (parts.abs().amax(dim=-1) / (top - 0.5)).clamp(min=least)
        rows = (parts * (1 / scale)[..., None]).round().clamp(-top, top - 1)
        back, asked, step = (rows * scale[..., None]).view_as(weight), expected["input"], torch.ones(1)
        yield name, rows.view_as(weight).to(torch.int8), "formula"
        yield f"{kind}_scale", scale, "formula"
        yield f"{kind}_zero_point", torch.zeros_like(scale, dtype=torch.int8), "formula"
        yield f"{kind}_back", back, "formula"
        if match[2] == "dynamic":
            step = asked.abs().amax(dim=1, keepdim=True) / (top - 0.5)
            asked = (asked * (1 / step)).round().clamp(-top, top - 1)
        # One scale a row is multiplied last: sums of loud columns would round otherwise.
        product = F.linear(asked, back) if group else F.linear(asked, rows.view_as(weight)) * scale.T
        yield f"{kind}_out", product * step, "formula"


SECTIONS: list[Callable[[Expected], Iterator[Found]]] = [plain, own, four_bits, double, torchao]


def tolerance(name: str) -> float:
    if name.endswith(("_packed", "_rows", "_qdata", "_double_absmax")):
        return TIES
    if "_out" in name:
        return DYNAMIC if "dynamic" in name else OUTPUTS
    return VALUES


def deviation(name: str, actual: Tensor, expected: Tensor) -> float:
    """Share that differs of whole numbers, largest difference else: of outputs in standard deviations."""
    if actual.shape != expected.shape or actual.dtype.is_floating_point != expected.dtype.is_floating_point:
        return float("inf")
    if not expected.dtype.is_floating_point:
        return float((actual != expected).double().mean())
    spread = float(expected.std() if expected.numel() > 1 else expected.abs()) if "_out" in name else 1.0
    difference = (actual - expected).abs()
    if name.endswith("_back"):  # a tie moves a value by a whole step: those are counted with the packed values
        difference = difference.flatten().sort().values[: int(np.ceil(difference.numel() * (1 - TIES)))]
    return float(difference.max()) / spread


def same_values(actual: Tensor, code: Tensor) -> Tensor:
    """fp4 has two zeros: both halves of each byte as the first id of that value."""
    first = torch.tensor([int((code == value).nonzero()[0]) for value in code])
    return (first[(actual >> 4).long()] * 16 + first[(actual & 15).long()]).to(torch.uint8)


def check(folder: Path) -> tuple[list[str], bool]:
    """One line an array, and whether all are within tolerance; an array that nothing computes is a failure."""
    expected: Expected = {name: torch.from_numpy(value) for name, value in np.load(folder / "expected.npz").items()}
    lines, passed, done = [], True, set[str]()
    for section in SECTIONS:
        for name, value, who in section(expected):
            if name not in expected:
                continue
            pair = value, expected[name]
            if name.startswith("fp4") and name.endswith("_packed"):
                pair = tuple(same_values(one, expected["fp4_code"]) for one in pair)
            error = deviation(name, *pair)
            within, _ = error <= tolerance(name), done.add(name)
            passed &= within
            lines.append(f"{name} {error:.2e} {who} {'ok' if within else 'FAIL'}")
    rest = sorted(expected.keys() - done - GIVEN)
    return [*lines, *(f"{name} nan nobody FAIL" for name in rest)], passed and not rest


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    printed, agreed = check(Path(sys.argv[1]))
    print("\n".join(printed))
    sys.exit(0 if agreed else 1)
