"""check_quantisation.py works on any folder of its kind: another matrix, other blocks; and it can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.check_quantisation import check

bitsandbytes = pytest.importorskip("bitsandbytes")
FIXTURE = Path(__file__).parent.parent / "fixtures" / "quantisation"


@pytest.fixture(autouse=True)
def denormals() -> None:
    """A training in the same process has set them to 0 from then on, which the arrays of the originals have not."""
    torch.set_flush_denormal(False)


def twin(folder: Path, rows: int, columns: int, blocks: tuple[int, ...]) -> Path:
    """What bitsandbytes makes of another matrix, in the fixture's names."""
    functional, made = bitsandbytes.functional, torch.Generator().manual_seed(rows)
    weight, shown = torch.randn(rows, columns, generator=made), torch.randn(5, columns, generator=made)
    weight[rows // 2], weight[1] = 0, weight[1] * 80
    arrays = {"weight": weight, "input": shown, "plain_out": shown @ weight.T}
    for kind in ("nf4", "fp4"):
        arrays[f"{kind}_code"] = functional.get_4bit_type(kind, device="cpu")
        for block in blocks:
            packed, state = functional.quantize_4bit(weight, blocksize=block, quant_type=kind)
            arrays |= {f"{kind}_{block}_packed": packed, f"{kind}_{block}_absmax": state.absmax}
            arrays[f"{kind}_{block}_back"] = functional.dequantize_4bit(packed, state)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    arrays |= {"nf4_double_absmax": state.absmax, "nf4_double_offset": state.offset}
    arrays |= {"nf4_double_absmax2": state.state2.absmax, "nf4_double_back": functional.dequantize_4bit(packed, state)}
    arrays["int8_rows"], arrays["int8_row_absmax"], _ = functional.int8_vectorwise_quant(weight.half())
    folder.mkdir()
    save: Any = np.savez
    save(folder / "expected.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    return folder


def test_every_array_of_both_libraries_is_reproduced() -> None:
    lines, passed = check(FIXTURE)
    assert passed, lines
    assert len(lines) == 37


@pytest.mark.parametrize(("rows", "columns", "blocks"), [(20, 96, (32, 64)), (6, 100, (64, 256)), (96, 512, (64,))])
def test_so_is_another_matrix(tmp_path: Path, rows: int, columns: int, blocks: tuple[int, ...]) -> None:
    lines, passed = check(twin(tmp_path / "twin", rows, columns, blocks))
    assert passed, lines


@pytest.mark.parametrize("name", ["nf4_64_packed", "int8_linear_out_0", "torchao_int4_group64_scale", "stranger"])
def test_the_check_can_fail(tmp_path: Path, name: str) -> None:
    arrays = dict(np.load(FIXTURE / "expected.npz"))
    arrays[name] = np.ones(3, np.float32) if name == "stranger" else arrays[name] + arrays[name].dtype.type(1)
    np.savez(tmp_path / "expected.npz", **arrays)
    lines, passed = check(tmp_path)
    assert not passed
    assert [line.split()[0] for line in lines if line.endswith("FAIL")] == [name]
