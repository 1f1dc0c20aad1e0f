"""Compare vlakit with the outputs that robotics_transformer's own code gave: python tests/parity/check_rt1.py DIR

DIR holds config.json, keys.json (part -> Keras path -> shape), seeded_params.py, masks.json, expected.npz. Parameters
come through the map of Keras names in rt1_keras.py. Prints `array deviation ok|FAIL`: the largest difference over the
largest value, of integers the share that differs; exits with 1 beyond 1e-4 (EfficientNet 1e-3, integers 0).
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rt1_keras import PARTS, from_keras
from torch import Tensor, nn

from vlakit.checkpoints.file import load_strictly
from vlakit.models.rt1.rt1 import grown
from vlakit.models.rt1.transformer import Decoder, DecoderSizes, attention_allowed, logit_positions
from vlakit.models.rt1.vision import EncoderSizes, Film, FilmEfficientNet, TokenLearner
from vlakit.processing.images import to_unit
from vlakit.processing.parted_actions import Part, PartedTokenizer
from vlakit.processing.pixels import PictureChain
from vlakit.processing.settings import ProcessorSettings

TOLERANCE, OF_EFFICIENTNET = 1e-4, 1e-3
B3 = {"width": 1.2, "depth": 1.4, "padding": "even"}
B3_PIXELS = 300
MODULE = Any  # a network part, its parameters loaded
Named = Iterator[tuple[str, Any]]


class Fixture:
    """The fixture's settings and arrays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())
        self.keys = json.loads((folder / "keys.json").read_text())
        self.masks = json.loads((folder / "masks.json").read_text())
        self.expected: dict[str, np.ndarray] = dict(np.load(folder / "expected.npz"))
        spec = importlib.util.spec_from_file_location("seeded_params", folder / "seeded_params.py")
        assert spec is not None
        assert spec.loader is not None
        self.seeded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.seeded)
        parts = [Part.of(row) for row in self.config["spec"]]
        self.tokenizer = PartedTokenizer(parts, self.config["vocab"])

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.expected[name])

    def shape(self, part: str, path: str) -> list[int]:
        return self.keys[part][path]

    def filled(self, module: nn.Module, part: str) -> MODULE:
        """The module in evaluation mode with the fixture's parameters."""
        seed = self.config["seed"]
        arrays = {
            path: self.seeded.seeded_param(seed, f"{part}/{path}", tuple(shape))
            for path, shape in self.keys[part].items()
        }
        kind = next(name for name in PARTS if part.startswith(name))
        load_strictly(module, from_keras(arrays, kind), where=part)
        return module.eval()

    def decoder(self) -> MODULE:
        token_width, width = self.shape("transformer", "token_emb/kernel")
        config = self.config
        sizes = DecoderSizes(width, config["layers"], config["heads"], config["key"])
        slots = self.tokenizer.n_tokens(self.tokenizer.action_size)
        decoder = Decoder(config["T"], config["img_tokens"], slots, config["vocab"], sizes, token_width)
        return self.filled(decoder, "transformer")

    def encoder(self, part: str, sizes: dict[str, Any]) -> MODULE:
        keys = self.keys[part]
        channels = keys["conv1x1/kernel"][-1] if "conv1x1/kernel" in keys else None
        context = self.shape(part, "film_0/add/kernel")[0]
        return self.filled(FilmEfficientNet(context, EncoderSizes(channels=channels, **sizes)), part)


def original_loss(logits: Tensor, ids: Tensor, image_tokens: int) -> Tensor:
    """The original's loss (B, T) of logits (B, T, A, V) and ids (B, T, A): the mean over A, divided by B T (A + n).

    vlakit descends the mean cross-entropy itself.
    """
    batch, steps, action_tokens = ids.shape
    losses = F.cross_entropy(logits.flatten(0, 2), ids.flatten(), reduction="none").view(ids.shape)
    return losses.mean(dim=-1) / (batch * steps * (image_tokens + action_tokens))


def film(fixture: Fixture) -> Named:
    context, channels = fixture.shape("film", "film_add/kernel")
    layer = fixture.filled(Film(context, channels), "film")
    y = layer(fixture.tensor("film/x").movedim(-1, 1), fixture.tensor("film/context"))
    yield "film/y", y.movedim(1, -1)


def token_learner(fixture: Fixture) -> Named:
    bottleneck, tokens = fixture.shape("token_learner", "final_dense/kernel")
    width = fixture.shape("token_learner", "layernorm/gamma")[0]
    learner = fixture.filled(TokenLearner(width, tokens, bottleneck), "token_learner")
    yield "token_learner/y", learner(fixture.tensor("token_learner/x").flatten(1, 2))


def tokeniser(fixture: Fixture) -> Named:
    tokenizer, prefix = fixture.tokenizer, "tokeniser/in/"
    actions = {name.removeprefix(prefix): a for name, a in fixture.expected.items() if name.startswith(prefix)}
    ids = tokenizer.encode(tokenizer.joined(actions))
    yield "tokeniser/tokens", ids
    for name, value in tokenizer.split(tokenizer.decode(ids)).items():
        yield f"tokeniser/out/{name}", value


def masks(fixture: Fixture) -> Named:
    """Of masks.json, which `check` reads as arrays."""
    for number, case in enumerate(fixture.masks):
        sizes = case["T"], case["image_tokens"], case["action_tokens"]
        yield f"masks/{number}/mask", attention_allowed(*sizes)
        yield f"masks/{number}/logit_positions", logit_positions(*sizes)


def expected_masks(fixture: Fixture) -> dict[str, np.ndarray]:
    tables: dict[str, np.ndarray] = {}
    for number, case in enumerate(fixture.masks):
        tables[f"masks/{number}/mask"] = np.array([[digit == "1" for digit in row] for row in case["mask"]])
        tables[f"masks/{number}/logit_positions"] = np.array(case["logit_positions"])
    return tables


def network(fixture: Fixture) -> Named:
    tokenizer, prefix = fixture.tokenizer, "network/action/"
    actions = {name.removeprefix(prefix): a for name, a in fixture.expected.items() if name.startswith(prefix)}
    labels = torch.from_numpy(tokenizer.encode(tokenizer.joined(actions)))  # (B, T, A)
    decoder, image_tokens = fixture.decoder(), fixture.tensor("network/image_tokens")
    logits = decoder.action_logits(image_tokens)  # (B, T, A, V)
    chosen = logits.argmax(dim=-1)
    yield "network/labels", labels
    yield "network/logits", decoder(image_tokens)
    yield "network/predictions", chosen
    yield "network/loss", original_loss(logits, labels, image_tokens.shape[2])
    yield "network/mean_cross_entropy", F.cross_entropy(logits.flatten(0, 2), labels.flatten())
    yield "network/log_prob", logits.log_softmax(dim=-1).gather(3, labels[..., None])[..., 0].sum(dim=-1)
    for name, value in tokenizer.split(tokenizer.decode(chosen[:, -1].numpy())).items():
        yield f"network/output/{name}", value


def stepwise(fixture: Fixture) -> Named:
    """Each moment as an observation shows it: a window, its first frame again where the episode is younger."""
    frames, steps = fixture.tensor("stepwise/frames"), fixture.config["T"]
    wanted = torch.arange(len(frames))[:, None] + torch.arange(1 - steps, 1)  # (moments, T)
    tokens, present = grown(frames[wanted.clamp(min=0)], wanted >= 0)
    logits = fixture.decoder().action_logits(tokens)[torch.arange(len(frames)), present]
    yield "stepwise/tokens", logits.argmax(dim=-1)


def crop(fixture: Fixture) -> Named:
    yield "crop/eval", to_unit(fixture.expected["crop/image"])


def normalized(pictures: np.ndarray) -> Tensor:
    """(B, H, W, 3) in [0, 255] as the policy's own chain normalises them."""
    chain = PictureChain(ProcessorSettings(image_size=pictures.shape[1], channel_statistics=("imagenet",)), None, 0)
    return chain.normalized(pictures[:, None])


def kept_channels(features: Tensor, expected: np.ndarray) -> Tensor:
    """(B, C, s, s) as stored: channels last, every so manieth."""
    return features.movedim(1, -1)[..., :: -(-features.shape[1] // expected.shape[-1])]


def efficientnet_small(fixture: Fixture) -> Named:
    part, sizes = "efficientnet_small", {"width": fixture.config["width"], "depth": fixture.config["depth"]}
    encoder = fixture.encoder(part, {**sizes, "padding": "same"})
    features = encoder(normalized(fixture.expected[f"{part}/image"]), fixture.tensor(f"{part}/context"))
    yield f"{part}/features", kept_channels(features, fixture.expected[f"{part}/features"])


def efficientnet_b3(fixture: Fixture) -> Named:
    part = "efficientnet_b3"
    if part not in fixture.keys:
        return  # a small folder may leave out the published size
    small = next(value for name, value in fixture.expected.items() if re.fullmatch(rf"{part}/image_\d+", name))
    times = B3_PIXELS // small.shape[1]
    pixels = normalized(small.repeat(times, axis=1).repeat(times, axis=2) * np.float32(255))
    features = fixture.encoder(part, B3)(pixels, fixture.tensor(f"{part}/context"))
    yield f"{part}/features", kept_channels(features, fixture.expected[f"{part}/features"])


SECTIONS: list[Callable[[Fixture], Named]] = [
    *(film, token_learner, tokeniser, masks, network, stepwise, crop, efficientnet_small, efficientnet_b3)
]
GIVEN = r"(film|token_learner)/x|.*/context|tokeniser/in/.*|network/(image_tokens|action/.*)|stepwise/frames|.*/image.*"


def deviation(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest value; of integers, the share unequal."""
    if actual.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind in "bi":
        return float((actual != expected).mean())
    return float(np.abs(actual.astype(np.float64) - expected).max() / max(float(np.abs(expected).max()), 1e-8))


def tolerance(name: str, expected: np.ndarray) -> float:
    if expected.dtype.kind in "bi":
        return 0.0
    return OF_EFFICIENTNET if name.startswith("efficientnet") else TOLERANCE


@torch.no_grad()
def check(folder: Path) -> tuple[list[str], bool]:
    """One line an array, and whether all are within tolerance; an array that nothing computes is a failure."""
    fixture = Fixture(folder)
    expected = {**fixture.expected, **expected_masks(fixture)}
    lines, passed, done = [], True, set[str]()
    for section in SECTIONS:
        for name, value in section(fixture):
            if name not in expected:
                continue
            error = deviation(np.asarray(value), expected[name])
            within = error <= tolerance(name, expected[name])
            passed &= within
            done.add(name)
            lines.append(f"{name} {error:.2e} {'ok' if within else 'FAIL'}")
    rest = sorted(name for name in expected if name not in done and not re.fullmatch(GIVEN, name))
    return [*lines, *(f"{name} nan FAIL" for name in rest)], passed and not rest


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    printed, agreed = check(Path(sys.argv[1]))
    print("\n".join(printed))
    sys.exit(0 if agreed else 1)
