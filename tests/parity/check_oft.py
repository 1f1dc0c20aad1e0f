"""Compare vlakit with the outputs that OpenVLA-OFT's own code gave: python tests/parity/check_oft.py DIR

DIR holds config.json, oft.json, keys.json (file -> tensor -> shape, and the seed), seeded_weights.py and expected.npz.
The files of keys.json are written as a released checkpoint folder, once for each combination of head, images and
proprioception, and loaded as a user's folder is. Prints `array deviation/sd ok|FAIL`; exits with 1 beyond 1e-3.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judging import judged
from safetensors.torch import save_file
from torch import Tensor

from vlakit.checkpoints.formats import Loaded, load
from vlakit.checkpoints.weights import own_name
from vlakit.models.openvla.diffusion import Diffusion
from vlakit.models.openvla.layers import time_embedding
from vlakit.models.openvla.parallel import Parallel, ParallelTokens, two_way
from vlakit.models.openvla.trunk import text_of
from vlakit.processing.normalizer import normalize_proprio
from vlakit.schema import Batch, Inputs, TextBatch

TOLERANCE = 1e-3
DIFFUSION_FILE = " (diffusion)"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Variant:
    """A checkpoint folder of the fixture: which head, how many images, with proprioception or not, FiLM or not."""

    head: str
    images: int
    proprio: bool
    film: bool = False
    steps: int | None = None


class Fixture:
    """The fixture's settings and arrays, and its checkpoint folders, each written when it is first asked for."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        self.settings = json.loads((folder / "oft.json").read_text())
        self.keys = json.loads((folder / "keys.json").read_text())
        self.expected: Arrays = dict(np.load(folder / "expected.npz"))
        spec = importlib.util.spec_from_file_location("seeded_weights", folder / "seeded_weights.py")
        assert spec is not None
        assert spec.loader is not None
        self.seeded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.seeded)
        self.loaded, self.tensors = lru_cache(self._loaded), lru_cache(self._tensors)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.expected[name])

    def _tensors(self, file: str) -> dict[str, Tensor]:
        table = self.keys["files"][file]
        return {
            name: torch.from_numpy(
                self.seeded.seeded_tensor(self.keys["seed"], table["prefix"] + name, tuple(shape))
                * np.float32(table["scale"].get(name, 1))
            )
            for name, shape in table["tensors"].items()
        }

    def _wanted(self, file: str, variant: Variant) -> bool:
        part = file.partition("--")[0]
        head = "diffusion" if file.endswith(DIFFUSION_FILE) else "l1"
        wanted = {
            "action_head": head == variant.head,
            "proprio_projector": variant.proprio,
            "noisy_action_projector": variant.head == "diffusion",
            "vision_backbone": variant.film,
        }
        return wanted.get(part, True)

    def write(self, variant: Variant) -> Path:
        """The folder as its training leaves it."""
        place = self.scratch / f"{len(list(self.scratch.iterdir()))}"
        place.mkdir()
        for file in self.keys["files"]:
            if not self._wanted(file, variant):
                continue
            target = place / file.removesuffix(DIFFUSION_FILE)
            if target.suffix == ".safetensors":
                save_file(self.tensors(file), target, metadata={"format": "pt"})
            else:
                torch.save(self.tensors(file), target)
        (place / "config.json").write_bytes((self.folder / "config.json").read_bytes())
        settings = {**self.settings, "images": variant.images}
        settings |= {} if variant.proprio else {"proprio_dim": 0}
        settings |= {"diffusion_steps": variant.steps} if variant.steps else {}
        settings |= {"head": "parallel"} if not list(place.glob("action_head--*")) else {}
        (place / "oft.json").write_text(json.dumps(settings))
        (place / "lora_adapter").mkdir()
        adapter = {"r": self.settings["lora_rank"], "lora_alpha": self.settings["lora_alpha"], "peft_type": "LORA"}
        (place / "lora_adapter" / "adapter_config.json").write_text(json.dumps(adapter))
        return place

    def _loaded(self, variant: Variant) -> Loaded:
        loaded = load(self.write(variant))
        loaded.network.eval().requires_grad_(True)
        return loaded

    def network(self, variant: Variant) -> Any:
        return self.loaded(variant).network

    def batch(self, variant: Variant) -> Batch:
        """The training batch, with the actions as the original's step had them: normalised already."""
        loaded, actions = self.loaded(variant), self.tensor("actions")
        pixels = self.tensor("pixel_values").float()
        channels = pixels.shape[1] // self.settings["images"]
        cameras = dict(zip(loaded.processor.settings.cameras, pixels.split(channels, dim=1), strict=False))
        ids, mask, labels = (self.tensor(name) for name in ("input_ids", "attention_mask", "labels"))
        return Batch(
            pixels={camera: image[:, None] for camera, image in cameras.items()},
            window_mask=torch.ones(len(ids), 1, dtype=torch.bool),
            datasets=[self.settings["unnorm_key"]] * len(ids),
            action_shape=(actions.shape[1], actions.shape[2]),
            proprio=self.tensor("proprio")[:, None] if variant.proprio else None,
            text=TextBatch(ids, mask.long(), labels),
            actions=actions,
            normalized=actions,
            chunk_mask=torch.ones(actions.shape[:2], dtype=torch.bool),
            keys=[""] * len(ids),
        )

    def asked(self, variant: Variant, row: int) -> Inputs:
        """One row as an observation: its prompt, up to and with the lone space before the first action."""
        batch = self.batch(variant)
        text, length = text_of(batch), self.settings["prompt_lengths"][row]
        ids = text.ids[row : row + 1, :length]
        return Inputs(
            pixels={camera: image[row : row + 1] for camera, image in batch.pixels.items()},
            window_mask=batch.window_mask[row : row + 1],
            datasets=batch.datasets[row : row + 1],
            action_shape=batch.action_shape,
            proprio=None if batch.proprio is None else batch.proprio[row : row + 1],
            text=TextBatch(ids, torch.ones_like(ids), torch.full_like(ids, -100)),
        )

    def predicted(self, variant: Variant, row: int) -> np.ndarray:
        """The actions in physical units."""
        loaded, inputs = self.loaded(variant), self.asked(variant, row)
        if isinstance(loaded.network, ParallelTokens):
            loaded.network.constrain = False  # as the original
        normalized = loaded.network.predict(inputs).numpy()
        return loaded.processor.physical(normalized, inputs.datasets)[0]

    def everything(self, head: str, **further: Any) -> Variant:
        return Variant(head, self.settings["images"], "proprio" in self.expected, **further)


@torch.no_grad()
def training_step(fixture: Fixture, variant: Variant, name: str) -> Iterator[tuple[str, Any]]:
    """What the L1 head makes of the training batch."""
    network, batch = fixture.network(variant), fixture.batch(variant)
    output = network(batch)
    error = (output.predicted - batch.normalized).abs()
    yield f"{name}_loss", output.loss
    yield f"{name}_loss_parts", torch.stack([error[:, 0].mean(), error[:, 1:].mean()])
    yield f"{name}_pred", output.predicted
    yield f"{name}_hidden", network.slot_states(network.context(batch), text_of(batch))
    text, context = network.asked(fixture.asked(variant, 0))
    yield f"{name}_predict_hidden_row0", network.slot_states(context, text)[0]
    for row in range(len(batch)):
        yield f"{name}_predict_row{row}", fixture.predicted(variant, row)


def l1(fixture: Fixture) -> Iterator[tuple[str, Any]]:
    """Every combination of images and proprioception that the fixture has, and FiLM."""
    names = {re.match(r"l1_(\d+)img(_proprio)?_", name) for name in fixture.expected}
    for match in sorted({match[0] for match in names if match}):
        images, proprio = int(match.split("_")[1].removesuffix("img")), "_proprio_" in match
        yield from training_step(fixture, Variant("l1", images, proprio), match.rstrip("_"))
    if "film_l1_loss" in fixture.expected:
        yield from training_step(fixture, fixture.everything("l1", film=True), "film_l1")


@torch.no_grad()
def senses(fixture: Fixture) -> Iterator[tuple[str, Any]]:
    """Attention, the context behind BOS, proprioception, FiLM."""
    variant = fixture.everything("l1")
    network, batch = fixture.network(variant), fixture.batch(variant)
    assert isinstance(network, Parallel)
    context = network.context(batch)
    yield "projected", context
    yield "attention_allowed", two_way(text_of(batch).mask, context.shape[1])[:, 0]
    if "proprio_raw" in fixture.expected:
        processor = fixture.loaded(variant).processor
        statistics = processor.statistics_of(fixture.settings["unnorm_key"])
        raw = fixture.expected["proprio_raw"]
        yield "proprio", normalize_proprio(raw, statistics, processor.settings.normalization)
    if "film_features" in fixture.expected:
        network = fixture.network(fixture.everything("l1", film=True))
        yield "film_language_mean", network.heard(text_of(batch))
        yield "film_features", network.features(batch)[..., ::8]


def gradients(fixture: Fixture) -> Iterator[tuple[str, Any]]:
    """Norms of the gradients of the L1 loss with all images and proprioception."""
    if "grad_names" not in fixture.expected:
        return
    variant = fixture.everything("l1")
    network = fixture.network(variant)
    network.zero_grad()
    network(fixture.batch(variant)).loss.backward()
    of = {name: parameter.grad for name, parameter in network.named_parameters()}
    names = [own_name(name.replace("/module.", ".")) for name in fixture.expected["grad_names"].tolist()]
    yield "grad_norms", torch.stack([of[name].double().norm() for name in names])
    network.zero_grad()


@torch.no_grad()
def discrete(fixture: Fixture) -> Iterator[tuple[str, Any]]:
    """No head: tokens, all at once."""
    if "discrete_loss" not in fixture.expected:
        return
    # Whether its one run saw proprioception is said nowhere: the loss tells, and the arrays must then agree.
    variants = [fixture.everything("parallel"), replace(fixture.everything("parallel"), proprio=False)]
    expected = float(fixture.expected["discrete_loss"])
    variant = min(variants, key=lambda one: abs(float(fixture.network(one)(fixture.batch(one)).loss) - expected))
    network, batch = fixture.network(variant), fixture.batch(variant)
    output, answers = network(batch), network.answers(batch)
    yield "discrete_loss", output.loss
    is_action = answers.targets >= network.tokens.begin
    ids = answers.logits.argmax(dim=-1)[is_action].view(batch.normalized.shape)
    targets = answers.targets[is_action].view(ids.shape)
    right, centers = (ids == targets).double(), network.tokens.decode(ids.numpy(), strict=False)
    error = np.abs(centers - network.tokens.decode(targets.numpy()))
    parts = [right[:, 0].mean(), error[:, 0].mean(), right[:, 1:].mean(), error[:, 1:].mean()]
    yield "discrete_metrics", np.array([float(part) for part in parts])
    network.constrain = False
    rows = range(len(batch))
    chosen = [network._log_probs(fixture.asked(variant, row)).argmax(dim=-1)[0] for row in rows]
    yield "discrete_tokens", torch.stack(chosen)
    for row in rows:
        yield f"discrete_predict_row{row}", fixture.predicted(variant, row)


@torch.no_grad()
def diffusion(fixture: Fixture) -> Iterator[tuple[str, Any]]:
    """The diffusion head's training step."""
    if "train_noise" not in fixture.expected:
        return
    network = fixture.network(fixture.everything("diffusion"))
    assert isinstance(network, Diffusion)
    actions, noise, timesteps = (fixture.tensor(name) for name in ("actions", "train_noise", "train_timesteps"))
    noisy = network.scheduler.add_noise(actions, noise, timesteps)
    yield "alphas_cumprod", network.scheduler.alphas_cumprod
    yield "train_noisy_actions", noisy
    yield "time_embedding", time_embedding(timesteps, network.hidden_size)
    for name in sorted(fixture.expected):
        match = re.fullmatch(r"diffusion_(\d+)img(_proprio)?_loss", name)
        if match is None:
            continue
        variant = Variant("diffusion", int(match[1]), match[2] is not None)
        network, batch = fixture.network(variant), fixture.batch(variant)
        yield name, network.noise_output(batch, noise, timesteps).loss
        yield (
            name.replace("loss", "noise_pred"),
            network.noise(network.context(batch), text_of(batch), noisy, timesteps),
        )


@torch.no_grad()
def sampling(fixture: Fixture) -> Iterator[tuple[str, Any]]:
    """Single sampler steps, and the whole run from its noise."""
    for steps in fixture.settings.get("ddim_steps", []):
        variant, name = fixture.everything("diffusion", steps=steps), f"ddim{steps}"
        if f"{name}_start" not in fixture.expected:
            continue
        loaded = fixture.loaded(variant)
        network, inputs = loaded.network, fixture.asked(variant, 0)
        assert isinstance(network, Diffusion)
        text, context = network.asked(inputs)
        network.scheduler.set_timesteps(steps)
        yield f"{name}_timesteps", network.scheduler.timesteps
        predicted, following = [], []
        for kept, x in zip(fixture.tensor(f"{name}_kept").tolist(), fixture.tensor(f"{name}_x"), strict=True):
            step = int(network.scheduler.timesteps[kept])
            noise = network.noise(context, text, x[None], torch.tensor([step]))
            predicted.append(noise[0])
            following.append(network.scheduler.step(noise, step, x[None]).prev_sample[0])
        yield f"{name}_noise_pred", torch.stack(predicted)
        yield f"{name}_next", torch.stack(following)
        normalized = network.denoised(context, text, fixture.tensor(f"{name}_start")[None])
        yield f"{name}_normalised", normalized[0]
        yield f"{name}_actions", loaded.processor.physical(normalized.numpy(), inputs.datasets)[0]


# Read, not computed: inputs, and what one computation names another's parts by.
GIVEN = {"pixel_values", "input_ids", "attention_mask", "labels", "actions", "proprio_raw", "grad_names"}
GIVEN |= {"train_noise", "train_timesteps"}
SECTIONS: list[Callable[[Fixture], Iterator[tuple[str, Any]]]] = [
    senses, l1, gradients, discrete, diffusion, sampling
]  # fmt: skip


def is_given(name: str) -> bool:
    return name in GIVEN or re.fullmatch(r"ddim\d+_(kept|x|start)", name) is not None


def check(folder: Path) -> tuple[list[str], bool]:
    """One line an array, and whether all are within tolerance; an array that nothing computes is a failure."""
    with tempfile.TemporaryDirectory() as scratch:
        fixture = Fixture(folder, Path(scratch))
        computed = (pair for section in SECTIONS for pair in section(fixture))
        return judged(computed, fixture.expected, is_given, TOLERANCE)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    printed, agreed = check(Path(sys.argv[1]))
    print("\n".join(printed))
    sys.exit(0 if agreed else 1)
