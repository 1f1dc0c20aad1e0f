"""What tests share: a tiny model, its processor with Bridge statistics, one batch, the shipped sample as shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
import yaml

from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import load_spec
from vlakit.data.stream.datamodule import SAMPLE
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch, DatasetStatistics, Sample

TESTS = Path(__file__).parent
GOLDEN: dict[str, Any] = yaml.safe_load((TESTS / "golden.yaml").read_text())
torch.set_num_threads(1)  # threads of tiny matrix products only get in each other's way


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return GOLDEN


@pytest.fixture(scope="session")
def bridge_statistics() -> DatasetStatistics:
    numbers = GOLDEN["bridge_orig"]
    q01, q99 = np.array(numbers["q01"]), np.array(numbers["q99"])
    counts = numbers["num_transitions"], numbers["num_trajectories"]
    mask = np.array([True] * 6 + [False])
    return DatasetStatistics(q01, q99, (q01 + q99) / 2, (q99 - q01) / 4, 2 * q01, 2 * q99, mask, *counts)


@pytest.fixture
def tiny_vla() -> OpenVLA:
    torch.manual_seed(0)
    return build_vla(VLASettings("tiny_dinosiglip", "tiny_llama")).eval()


@pytest.fixture
def tiny_processor(bridge_statistics: DatasetStatistics) -> TokenProcessor:
    names = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words")
    return TokenProcessor(names, {"bridge_orig": bridge_statistics})


@pytest.fixture
def samples(bridge_statistics: DatasetStatistics) -> list[Sample]:
    """Three frames of noise; their instructions differ in length."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    actions = rng.uniform(bridge_statistics.q01, bridge_statistics.q99, (3, 1, 7)).astype(np.float32)
    actions[..., 6] = [[0.0], [1.0], [1.0]]
    said = ["lift the pot", "put the carrot on the plate", "close the drawer"]
    jpegs = [simplejpeg.encode_jpeg(image) for image in noise]
    real = np.ones(1, bool)
    return [
        Sample(f"noise_{i}", "bridge_orig", said[i], {"primary": [jpegs[i]]}, actions[i], real, real, position=i)
        for i in range(3)
    ]


@pytest.fixture
def tiny_batch(tiny_processor: TokenProcessor, samples: list[Sample]) -> Batch:
    return tiny_processor.collate([tiny_processor.encode(sample) for sample in samples])


@pytest.fixture(scope="session")
def bridge_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped episodes as shards, a fifth of them held out; never write into it."""
    folder = tmp_path_factory.mktemp("shards") / "bridge_orig"
    convert(SAMPLE, folder, load_spec("bridge_orig"), val_fraction=0.2)
    return folder
