"""A small network of every family, with a batch of its own."""

from __future__ import annotations

from collections.abc import Callable

import octo_cases
import oft_cases
import torch
from models.diffusion_policy import cases as diffusion_cases
from models.rt1 import rt1_cases
from toy_network import ToyNetwork

from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.network import Network
from vlakit.schema import Batch, DatasetStatistics, Sample

Case = tuple[Network, Batch]


def openvla(head: str) -> Callable[[DatasetStatistics, list[Sample]], Case]:
    def made(statistics: DatasetStatistics, samples: list[Sample]) -> Case:
        processor = oft_cases.processor_of(statistics)
        return oft_cases.network_of(head, processor), oft_cases.batch_of(processor, oft_cases.samples_of(statistics))

    return made


def adapted(statistics: DatasetStatistics, samples: list[Sample]) -> Case:
    network, batch = openvla("discrete")(statistics, samples)
    inject_lora(network, LoraNumbers(4, 4))
    return network, batch


def octo(statistics: DatasetStatistics, samples: list[Sample]) -> Case:
    processor = octo_cases.processor_of(statistics, window=1, chunk=1)
    return octo_cases.octo_of(processor), octo_cases.batch_of(processor, samples)


def rt1(statistics: DatasetStatistics, samples: list[Sample]) -> Case:
    processor = rt1_cases.processor_of(statistics)
    return rt1_cases.network_of(processor), rt1_cases.batch_of(processor, torch.zeros(4, 1, 7))


def denoised(backbone: str) -> Callable[[DatasetStatistics, list[Sample]], Case]:
    def made(statistics: DatasetStatistics, samples: list[Sample]) -> Case:
        processor = diffusion_cases.processor()
        return diffusion_cases.policy(backbone).eval(), diffusion_cases.batch(processor)

    return made


def toy(statistics: DatasetStatistics, samples: list[Sample]) -> Case:
    """A user's network, whose forward calls its own predict."""
    processor = octo_cases.processor_of(statistics, window=1, chunk=1)
    return ToyNetwork(processor), octo_cases.batch_of(processor, samples)


FAMILIES: dict[str, Callable[[DatasetStatistics, list[Sample]], Case]] = {
    **{head: openvla(head) for head in oft_cases.HEADS},
    "lora": adapted,
    "octo": octo,
    "rt1": rt1,
    **{name: denoised(name) for name in ("unet", "transformer", "transformer_encoder")},
    "toy": toy,
}
