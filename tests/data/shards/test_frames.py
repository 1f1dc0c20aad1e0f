"""The small arrays of a frame, whole or damaged."""

import io

import numpy as np
import pytest

from vlakit.data.shards.frames import LOWDIM_ERRORS, parse_lowdim

ARRAYS = {
    "action": np.arange(7, dtype=np.float32),
    "proprio.x": np.array([1.5]),
    "proprio.none": np.zeros(0, np.float32),
}
OTHERS = {"whole": np.arange(3), "matrix": np.eye(2, dtype=np.float32), "scalar": np.float32(2)}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("arrays", [ARRAYS, {**ARRAYS, **OTHERS}], ids=["usual", "others"])
def test_parsed_arrays_are_those_that_were_saved(save: object, arrays: dict[str, np.ndarray]) -> None:
    stream = io.BytesIO()
    save(stream, **arrays)  # type: ignore[operator]
    found = parse_lowdim(stream.getvalue())
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)


@pytest.mark.parametrize("size", [0, 3, 40, 100, 150, 200, 400])
def test_truncated_archive_is_an_error(size: int) -> None:
    stream = io.BytesIO()
    np.savez(stream, **ARRAYS)  # type: ignore[arg-type]
    with pytest.raises(LOWDIM_ERRORS):
        parse_lowdim(stream.getvalue()[:size])
