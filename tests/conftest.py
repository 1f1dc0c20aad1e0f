"""What tests share: a tiny model, its processor with Bridge statistics, one batch, the shipped sample as shards.

vlakit, torch and Hydra are imported inside fixtures: with xdist a process that runs no test reads this file first, and
the workers start when it has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    import torch
    from hydra.plugins.config_source import ConfigResult, ConfigSource
    from omegaconf import DictConfig

    from vlakit.models.openvla.vla import OpenVLA
    from vlakit.processing.tokens import TokenProcessor
    from vlakit.schema import Batch, DatasetStatistics, Sample

TESTS = Path(__file__).parent
GOLDEN: dict[str, Any] = yaml.safe_load((TESTS / "golden.yaml").read_text())


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Threads of tiny matrix products only get in each other's way."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    """What Hydra makes of conf/ and the same words is composed once a session, its and Hydra's files are read once.

    A composition takes 0.3 s, half of it reading. Every caller gets a copy. Where a test has folders of its own, Hydra
    composes anew and reads those files anew. Hydra's plugins are classes of their own, which only its registry knows.
    """
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins

    from vlakit.cli import configuration
    from vlakit.configs import conf_root

    conf = str(conf_root().absolute())
    compose = configuration.compose
    composed: dict[tuple[object, ...], DictConfig] = {}
    files: dict[tuple[str, str], ConfigResult] = {}
    Plugins.instance()
    kinds = [SourcesRegistry.instance().resolve(scheme) for scheme in ("file", "pkg")]
    read = {kind: kind.load_config for kind in kinds}

    def once(name: str, overrides: Sequence[str] = (), **options: Any) -> DictConfig:
        searched = GlobalHydra.instance().config_loader().get_search_path().get_path()
        if not {place.path for place in searched} <= {conf, "pkg://hydra.conf", "structured://"}:
            return compose(name, list(overrides), **options)
        words = (name, *overrides, *options.items())
        if words not in composed:
            composed[words] = compose(name, list(overrides), **options)
        return deepcopy(composed[words])

    def read_once(source: ConfigSource, config_path: str) -> ConfigResult:
        if source.path not in (conf, "hydra.conf"):
            return read[type(source)](source, config_path)
        if (source.path, config_path) not in files:
            files[source.path, config_path] = read[type(source)](source, config_path)
        return deepcopy(files[source.path, config_path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration, "compose", once)
        for kind in kinds:
            patch.setattr(kind, "load_config", read_once)
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an MLflow store that holds nothing, to be copied: MLflow takes 2 s to make one."""
    from vlakit.tracking.mlflow import client

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
    import numpy as np

    from vlakit.schema import DatasetStatistics

    numbers = GOLDEN["bridge_orig"]
    q01, q99 = np.array(numbers["q01"]), np.array(numbers["q99"])
    counts = numbers["num_transitions"], numbers["num_trajectories"]
    mask = np.array([True] * 6 + [False])
    return DatasetStatistics(q01, q99, (q01 + q99) / 2, (q99 - q01) / 4, 2 * q01, 2 * q99, mask, *counts)


@pytest.fixture(scope="session")
def _seeded_vla() -> tuple[OpenVLA, torch.Tensor]:
    """The tiny model of seed 0, and the state of torch's generator once it has been drawn."""
    import torch

    from vlakit.models.openvla.vla import VLASettings, build_vla

    torch.manual_seed(0)
    return build_vla(VLASettings("tiny_dinosiglip", "tiny_llama")).eval(), torch.get_rng_state()


@pytest.fixture
def tiny_vla(_seeded_vla: tuple[OpenVLA, torch.Tensor]) -> OpenVLA:
    """A copy that a test may change; random numbers go on as after building it."""
    import torch

    model, state = _seeded_vla
    torch.set_rng_state(state)
    return deepcopy(model)


@pytest.fixture
def tiny_processor(bridge_statistics: DatasetStatistics) -> TokenProcessor:
    from vlakit.processing.settings import TokenSettings
    from vlakit.processing.tokens import TokenProcessor

    names = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words")
    return TokenProcessor(names, {"bridge_orig": bridge_statistics})


@pytest.fixture
def samples(bridge_statistics: DatasetStatistics) -> list[Sample]:
    """Three frames of noise; their instructions differ in length."""
    import numpy as np
    import simplejpeg

    from vlakit.schema import Sample

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
    from vlakit.data.shards.convert import convert
    from vlakit.data.source import SAMPLE
    from vlakit.data.specs.spec import load_spec

    folder = tmp_path_factory.mktemp("shards") / "bridge_orig"
    convert(SAMPLE, folder, load_spec("bridge_orig"), val_fraction=0.2)
    return folder
