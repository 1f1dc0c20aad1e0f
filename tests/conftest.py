"""What tests share: a tiny model, its processor with Bridge statistics, one batch, the shipped sample as shards."""

import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

from vlakit.cli import configuration
from vlakit.configs import conf_root
from vlakit.data.shards.convert import convert
from vlakit.data.specs.spec import load_spec
from vlakit.data.stream.datamodule import SAMPLE
from vlakit.models.openvla.vla import OpenVLA, VLASettings, build_vla
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch, DatasetStatistics, Sample
from vlakit.tracking.mlflow import client

TESTS = Path(__file__).parent
GOLDEN: dict[str, Any] = yaml.safe_load((TESTS / "golden.yaml").read_text())
torch.set_num_threads(1)  # threads of tiny matrix products only get in each other's way


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    """What Hydra makes of conf/ and the same words is composed once a session, and each file of conf/ read once.

    A composition takes 0.2 s. Every caller gets a copy. Where a test has folders of its own, Hydra does all of it anew.
    """
    conf = str(conf_root().absolute())
    compose, read = configuration.compose, FileConfigSource.load_config
    composed, files = dict[tuple[object, ...], DictConfig](), dict[str, ConfigResult]()

    def once(name: str, overrides: Sequence[str] = (), **options: Any) -> DictConfig:
        searched = GlobalHydra.instance().config_loader().get_search_path().get_path()
        if not {place.path for place in searched} <= {conf, "pkg://hydra.conf", "structured://"}:
            return compose(name, list(overrides), **options)
        words = (Path.cwd(), name, *overrides, *options.items())
        if words not in composed:
            composed[words] = compose(name, list(overrides), **options)
        return deepcopy(composed[words])

    def read_once(source: FileConfigSource, config_path: str) -> ConfigResult:
        if source.path != conf:
            return read(source, config_path)
        if config_path not in files:
            files[config_path] = read(source, config_path)
        return deepcopy(files[config_path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration, "compose", once)
        patch.setattr(FileConfigSource, "load_config", read_once)
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an MLflow store that holds nothing, to be copied: MLflow takes 2 s to make one."""
    file = tmp_path_factory.mktemp("empty_store") / "mlflow.db"
    client(f"sqlite:///{file}")
    return file


@pytest.fixture(autouse=True)
def _handlers_of_the_log() -> Iterator[None]:
    """A command run in this process logs to a captured stream, which is closed when its test is over."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    root.handlers[:] = before


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


@pytest.fixture(scope="session")
def _seeded_vla() -> tuple[OpenVLA, torch.Tensor]:
    """The tiny model of seed 0, and the state of torch's generator once it has been drawn."""
    torch.manual_seed(0)
    return build_vla(VLASettings("tiny_dinosiglip", "tiny_llama")).eval(), torch.get_rng_state()


@pytest.fixture
def tiny_vla(_seeded_vla: tuple[OpenVLA, torch.Tensor]) -> OpenVLA:
    """A copy that a test may change; random numbers go on as after building it."""
    model, state = _seeded_vla
    torch.set_rng_state(state)
    return deepcopy(model)


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
