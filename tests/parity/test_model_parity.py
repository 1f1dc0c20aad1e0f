"""The original code's own numbers, and TensorFlow's own images, come out here."""

from pathlib import Path

import numpy as np
import pytest
from parity.check_images import EXACT, results, suffixes, verdict
from parity.check_model import check, error_of

FIXTURES = Path(__file__).parent.parent / "fixtures"
OUTPUTS = ["patch_features", "projected", "logits_last", "argmax", "loss", "generated", "actions"]


def test_every_output_of_the_original_model_is_reproduced() -> None:
    lines, passed = check(FIXTURES / "openvla_hf")
    assert passed, lines
    assert [line.partition(":")[0] for line in lines] == OUTPUTS
    assert sorted(np.load(FIXTURES / "openvla_hf" / "expected.npz").files) == sorted(
        [*OUTPUTS, "pixel_values", "input_ids", "attention_mask", "labels"]
    )


def test_the_check_can_fail() -> None:
    exact = np.ones((2, 3), np.float32)
    assert error_of(exact * 1.01, exact) == pytest.approx(0.01, rel=1e-3)
    assert error_of(exact[:1], exact) == float("inf")
    assert error_of(np.array([1, 2]), np.array([1, 3])) == 0.5
    assert not error_of(exact * np.nan, exact) <= 1e-4


def test_every_image_of_tensorflow_is_reproduced() -> None:
    expected = dict(np.load(FIXTURES / "image_ops" / "expected.npz"))
    verdicts = {
        operation + suffix: verdict(operation, ours, expected[operation + suffix])
        for suffix in suffixes(expected)
        for operation, ours in results(expected, suffix)
        if operation + suffix in expected
    }
    assert {name: said for name, (said, good) in verdicts.items() if not good} == {}
    assert len(suffixes(expected)) == 2
    assert {f"{operation}_0" for operation in EXACT} <= set(verdicts)
