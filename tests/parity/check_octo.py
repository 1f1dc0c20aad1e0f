"""Compare vlakit with the outputs that Octo's own code gave: python tests/parity/check_octo.py DIR

DIR holds config.json, keys.json (part -> Flax path -> shape), seeded_params.py, masks.json and expected.npz. Sizes are
read from the shapes, as a released checkpoint's must be; parameters go through vlakit's own map of Flax names. Prints
`array deviation ok|FAIL`, the deviation over the largest value; exits with 1 beyond 1e-4 (sampled chunks: 1e-3).
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vlakit.models.octo.attention import Layout, attention_table
from vlakit.models.octo.bins import Bins
from vlakit.models.octo.diffusion import Diffusion, cosine_betas
from vlakit.models.octo.flax import load_flax
from vlakit.models.octo.heads import L1, ActionHead, Discrete, Regression, masked_mean
from vlakit.models.octo.stem import Stem
from vlakit.models.octo.trunk import Read, Seen, Trunk, TrunkSettings
from vlakit.serving.sessions import Memory, Session
from vlakit.strategies.optim import rsqrt_share

TOLERANCE, SAMPLED = 1e-4, 1e-3
HEAD, TRUNK = "heads_action/", "octo_transformer/"
MODULE = TypeVar("MODULE", bound=nn.Module)
Pairs = Iterator[tuple[str, Any]]


class Fixture:
    """The fixture's settings, arrays and parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())
        self.keys: dict[str, dict[str, list[int]]] = json.loads((folder / "keys.json").read_text())
        self.masks = json.loads((folder / "masks.json").read_text())
        self.expected = dict(np.load(folder / "expected.npz"))
        self.shape = self.config["chunk"], self.config["adim"]
        spec = importlib.util.spec_from_file_location("seeded_params", folder / "seeded_params.py")
        assert spec is not None
        assert spec.loader is not None
        self.seeded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.seeded)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.expected[name])

    def pictures(self, name: str) -> Tensor:
        """(..., H, W, C) uint8 to (..., C, H, W) in [-1, 1]."""
        return (self.tensor(name).float() / 127.5 - 1).movedim(-1, -3)

    def parameters(self, part: str) -> dict[str, np.ndarray]:
        seed = self.config["seed"]
        return {k: self.seeded.seeded_param(seed, f"{part}/{k}", tuple(s)) for k, s in self.keys[part].items()}

    def shapes(self, part: str, prefix: str = "") -> dict[str, list[int]]:
        """Path -> shape of what lies under a prefix of a part."""
        return {k.removeprefix(prefix): shape for k, shape in self.keys[part].items() if k.startswith(prefix)}

    def filled(self, module: MODULE, part: str, prefix: str = "") -> MODULE:
        own = {k.removeprefix(prefix): x for k, x in self.parameters(part).items() if k.startswith(prefix)}
        load_flax(module, own, where=f"{self.folder}/{part}")
        return module.eval()

    def width(self, part: str) -> int:
        """Of the readouts that a head was given."""
        return self.expected["head/embeddings"].shape[-1] if part.startswith("head_") else self.trunk.settings.width

    @property
    def trunk(self) -> Trunk:
        """The module's trunk, without parameters."""
        with torch.device("meta"):
            return Trunk(trunk_settings(self))


def stem_sizes(shapes: dict[str, list[int]]) -> dict[str, Any]:
    """What a stem is built of, from the shapes of its parameters."""
    kernels = [shapes[f"StdConv_{i}/kernel"] for i in range(sum(k.endswith("/scale") for k in shapes))]
    patch, _, _, width = shapes["embedding/kernel"]
    return {"widths": [k[3] for k in kernels], "width": width, "kernel": kernels[0][0], "patch": patch}


def named(shapes: dict[str, list[int]], pattern: str) -> dict[str, list[int]]:
    """First group of a pattern -> shape, of the paths that match it."""
    matches = ((re.fullmatch(pattern, path), shape) for path, shape in shapes.items())
    return {match[1]: shape for match, shape in matches if match}


def trunk_settings(fixture: Fixture, **options: Any) -> TrunkSettings:
    """Of the module, from the shapes of its parameters and of its pictures."""
    shapes = fixture.shapes("module", TRUNK)
    places = named(shapes, r"obs_(\w+)_pos_embedding")
    cameras = {
        c: fixture.expected[f"module/image_{c}"].shape[2] for c in places if f"module/image_{c}" in fixture.expected
    }
    stem = {
        k.split("/", 2)[2]: s
        for k, s in shapes.items()
        if k.startswith(f"observation_tokenizers_{next(iter(cameras))}/")
    }
    sizes, text = stem_sizes(stem), shapes["task_language_projection/kernel"][0]
    layers = named(shapes, r"BlockTransformer_0/Transformer_0/encoderblock_(\d+)/MlpBlock_0/Dense_0/kernel")
    heads = named(
        shapes, r"BlockTransformer_0/Transformer_0/(encoderblock_0)/MultiHeadDotProductAttention_0/query/kernel"
    )
    return TrunkSettings(
        width=shapes["task_language_projection/kernel"][1],
        layers=len(layers),
        heads=heads["encoderblock_0"][1],
        mlp=layers["0"][1],
        cameras=cameras,
        language=(shapes["task_language_pos_embedding"][1], text),
        proprio=places["proprio"][2] if "proprio" in places else 0,
        readouts={name: shape[2] for name, shape in named(shapes, r"readout_(\w+)_pos_embedding").items()},
        positions=places[next(iter(cameras))][1],
        stem=sizes["widths"],
        stem_width=sizes["width"],
        stem_kernel=sizes["kernel"],
        stem_patch=sizes["patch"],
        goals=stem["StdConv_0/kernel"][2] == 6,
        **options,
    )


def head_of(fixture: Fixture, part: str, prefix: str = "") -> Any:
    """The head of a part, from the shapes of its parameters."""
    shapes, shape, numbers = fixture.shapes(part, prefix), fixture.shape, int(np.prod(fixture.shape))
    width, pooling = fixture.width(part), "attention" if "map_head/probe" in shapes else "mean"
    head: ActionHead
    if "vocab_proj/bias" in shapes:
        answers = (
            shapes["map_head/probe"][1] if pooling == "attention" else fixture.expected["head/embeddings"].shape[2]
        )
        kind, per = part.rsplit("_", 1)[1], {numbers: "number", shape[0]: "action", 1: "chunk"}
        n_bins = shapes["vocab_proj/bias"][0] * answers // numbers
        head = Discrete(width, shape, pooling, per[answers], kind, n_bins, (0.0, 1.0), clip=False)
    elif "mean_proj/bias" in shapes:
        head = (L1 if part == "head_l1" else Regression)(width, shape, pooling)
    else:
        net = "diffusion_model/"
        hidden = shapes[f"{net}reverse_network/Dense_0/bias"][0]
        blocks = len(named(shapes, net + r"reverse_network/MLPResNetBlock_(\d+)/Dense_0/bias"))
        time = 2 * shapes[f"{net}time_preprocess/kernel"][0]
        head = Diffusion(width, shape, pooling, time, blocks, hidden, fixture.config["steps"])
    return fixture.filled(head, part, prefix)


def masks(fixture: Fixture) -> Pairs:
    for i, case in enumerate(fixture.masks):
        layout = case["layout"]
        own = Layout(layout["n_task"], layout["obs"], layout["readouts"], layout["W"])
        task = torch.tensor(layout.get("task_mask", [True] * own.task))
        steps = torch.tensor(layout.get("obs_mask", [True] * own.window))
        seen, read = sum(own.observations.values()), sum(own.readouts.values())
        present = torch.cat([steps[:, None].expand(-1, seen), torch.ones(len(steps), read, dtype=torch.bool)], dim=1)
        keys = torch.cat([task, present.flatten()])
        for name in (one for one in ("correct", "released") if one in case):
            fixture.expected[f"masks/{i}/{name}"] = np.array([[c == "1" for c in row] for row in case[name]])
            yield f"masks/{i}/{name}", attention_table(own, off_by_one=name == "released") & keys


def stems(fixture: Fixture) -> Pairs:
    for part in (one for one in fixture.keys if one.startswith("stem")):
        pictures, expected = fixture.pictures(f"{part}/image"), fixture.expected[f"{part}/features"]
        stem = fixture.filled(Stem(pictures.shape[1], **stem_sizes(fixture.keys[part])), part)
        features = stem(pictures).view(*expected.shape[:3], -1)
        yield f"{part}/features", features[..., :: -(-features.shape[-1] // expected.shape[-1])]


def bins(fixture: Fixture) -> Pairs:
    for name in (one.removesuffix("/x") for one in fixture.expected if re.fullmatch(r"bins/\w+/\d+/x", one)):
        _, kind, n = name.split("/")
        own = Bins(int(n), kind, 0.0, 1.0, clip=False)
        tokens = own.encode(fixture.tensor(f"{name}/x"))
        yield f"{name}/tokens", tokens
        yield f"{name}/decoded", own.decode(torch.from_numpy(fixture.expected[f"{name}/tokens"]).long())


def heads(fixture: Fixture) -> Pairs:
    """Those without diffusion; large outputs are stored for the last timestep alone."""
    readouts, actions = fixture.tensor("head/embeddings"), fixture.tensor("head/actions")
    mask = fixture.tensor("head/timestep_pad_mask")[:, :, None, None] & fixture.tensor("head/action_pad_mask")
    for part in (one for one in fixture.keys if one.startswith("head_") and one != "head_diffusion"):
        head = head_of(fixture, part)
        output = head.logits(readouts) if isinstance(head, Discrete) else head.actions(readouts)
        full = fixture.expected[f"{part}/output"].ndim == output.ndim
        yield f"{part}/output", output if full else output[:, -1]
        yield f"{part}/action", head.act(readouts)
        errors = head.errors(readouts, actions)
        for name, own in (("loss", "loss"), ("mse", "mse"), ("accuracy", "token_accuracy")):
            if own in errors:
                yield f"{part}/{name}", masked_mean(errors[own], mask)


def diffusion(fixture: Fixture) -> Pairs:
    """The schedule, the noise, the loss, and whole chunks from their noise."""
    for name in (one for one in fixture.expected if one.startswith("betas/")):
        yield name, cosine_betas(int(name.split("/")[1]))
    part = "head_diffusion"
    head, readouts = head_of(fixture, part), fixture.tensor("head/embeddings")
    assert isinstance(head, Diffusion)
    yield f"{part}/betas", head.betas
    yield f"{part}/alpha_hats", head.kept
    yield f"{part}/eps", head.noise(readouts, fixture.tensor(f"{part}/noisy"), fixture.tensor(f"{part}/time"))
    mask = fixture.tensor("head/timestep_pad_mask")[:, :, None, None] & fixture.tensor("head/action_pad_mask")
    given = (fixture.tensor(f"{part}/{name}") for name in ("loss_time", "loss_noise"))
    errors = head.errors_at(
        readouts, fixture.tensor("head/actions"), *(x if x.is_floating_point() else x.long() for x in given)
    )
    yield f"{part}/loss", masked_mean(errors["loss"], mask)
    yield f"{part}/loss_mse", masked_mean(errors["mse"], mask)
    for name, dimensions in (("sample", None), ("sample_dim", fixture.shape[1] - 2)):
        drawn = fixture.tensor(f"{part}/{name}_noise")[:, :, -1]
        yield f"{part}/{name}", head.denoised(readouts, drawn, dimensions)


def seen(fixture: Fixture, *, goal: bool = True) -> Seen:
    """The inputs of the module."""
    cameras = trunk_settings(fixture).cameras
    given = fixture.expected

    def there(kind: str) -> dict[str, Tensor]:
        return {c: fixture.tensor(f"module/{c}_{kind}") for c in cameras if f"module/{c}_{kind}" in given}

    language, told = fixture.tensor("module/language"), fixture.tensor("module/language_present")
    goals = {c: fixture.pictures(f"module/goal_{c}") for c in cameras if f"module/goal_{c}" in given and goal}
    return Seen(
        fixture.tensor("module/timestep_pad_mask"),
        {camera: fixture.pictures(f"module/image_{camera}") for camera in cameras},
        there("present"),
        goals,
        fixture.tensor("module/proprio") if "module/proprio" in given else None,
        language,
        told[:, None].expand(language.shape[:2]),
    )


def module(fixture: Fixture) -> Pairs:
    """The whole transformer in each of its modes, and its head on what it reads."""
    modes = {match[1] for name in fixture.expected if (match := re.match(r"module/(repeat\d_\w+?)/", name))}
    for mode in sorted(modes):
        options = {"repeat_task": mode.startswith("repeat1"), "off_by_one": mode.endswith("released")}
        trunk = fixture.filled(Trunk(trunk_settings(fixture, **options)), "module", TRUNK)
        read: Read = trunk(seen(fixture))
        camera, size = next(iter(trunk.settings.cameras.items()))
        n = trunk.stems[camera].tokens(size)  # pyright: ignore[reportCallIssue]
        expected = fixture.expected[f"module/{mode}/obs_primary"].shape[1]
        readout = read.readouts["action"]
        yield f"module/{mode}/readout", readout
        yield f"module/{mode}/task", read.task
        yield f"module/{mode}/obs_mean", read.observations.mean(dim=-1)
        yield f"module/{mode}/obs_primary", read.observations[:, -1, :n][:, :expected]
        given = f"module/{mode}/time", f"module/{mode}/noisy"
        if given[0] in fixture.expected:
            head = head_of(fixture, "module", HEAD)
            yield f"module/{mode}/eps", head.noise(readout, fixture.tensor(given[1]), fixture.tensor(given[0]))
        if f"module/{mode}/readout_no_goal" in fixture.expected:
            yield f"module/{mode}/readout_no_goal", trunk(seen(fixture, goal=False)).readouts["action"]


def learning_rate(fixture: Fixture) -> Pairs:
    rate = fixture.config["learning_rate"]
    shares = [rsqrt_share(step, rate["warmup"], rate["timescale"]) for step in rate["steps"]]
    yield "learning_rate", rate["peak"] * np.array(shares)


def ensemble(fixture: Fixture) -> Pairs:
    chunks = fixture.expected["ensemble/chunks"]
    for name in (one for one in fixture.expected if re.fullmatch(r"ensemble/(?!chunks$).+", one)):
        served = Session(Memory(ensemble=float(name.split("/")[1])), number=0)
        yield name, np.concatenate([served.answer(chunk) for chunk in chunks])


# Read, not computed.
GIVEN = re.compile(
    r"stem\w*/image|bins/.*/x|head/.*|head_diffusion/(time|noisy|loss_time|loss_noise|sample(_dim)?_noise)"
    r"|module/(image_\w+|goal_\w+|\w+_present|proprio|language|timestep_pad_mask)|module/.*/(time|noisy)|ensemble/chunks"
)
SECTIONS: list[Callable[[Fixture], Pairs]] = [
    masks, stems, bins, heads, diffusion, module, learning_rate, ensemble
]  # fmt: skip


def deviation(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest value; of integers and truths, the share unequal."""
    if actual.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind in "biu":
        return float((actual != expected).mean())
    return float(np.abs(actual.astype(np.float64) - expected).max() / max(float(np.abs(expected).max()), 1e-8))


@torch.no_grad()
def check(folder: Path) -> tuple[list[str], bool]:
    """One line an array, and whether all are within tolerance; an array that nothing computes is a failure."""
    fixture, lines, passed, done = Fixture(folder), [], True, set[str]()
    for section in SECTIONS:
        for name, value in section(fixture):
            if name not in fixture.expected:
                continue
            error, _ = deviation(np.asarray(value), fixture.expected[name]), done.add(name)
            within = error <= (SAMPLED if re.search(r"/sample(_dim)?$", name) else TOLERANCE)
            lines.append(f"{name:<40} {error:.2e} {'ok' if within else 'FAIL'}")
            passed &= within
    for name in sorted(name for name in fixture.expected.keys() - done if not GIVEN.fullmatch(name)):
        lines.append(f"{name:<40} not computed FAIL")
        passed = False
    return lines, passed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    lines, passed = check(Path(sys.argv[1]))
    print("\n".join(lines))
    sys.exit(0 if passed else 1)
