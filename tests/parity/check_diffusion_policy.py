"""Compare vlakit with what Diffusion Policy's own code gave: python tests/parity/check_diffusion_policy.py DIR

DIR holds config.json, keys.json (policy -> tensor -> shape, and the seed), seeded_weights.py and expected.npz. Each
policy is written as a converted checkpoint folder, and loaded as a user's is. Prints `array deviation/sd ok|FAIL`;
exits with 1 beyond 1e-3.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from judging import judged
from safetensors.torch import save_file
from torch import Tensor, nn

from vlakit.checkpoints.diffusion_policy import SETTINGS
from vlakit.checkpoints.file import load_strictly
from vlakit.checkpoints.formats import Loaded, load
from vlakit.models.diffusion_policy.policy import DiffusionPolicy
from vlakit.models.diffusion_policy.sampler import Sampler
from vlakit.models.diffusion_policy.unet import Unet
from vlakit.processing.linear import Linear
from vlakit.processing.processor import Processor
from vlakit.schema import Inputs, Observation
from vlakit.strategies.ema import averaged, decay
from vlakit.strategies.optim import cosine, parameter_groups

TOLERANCE = 1e-3
IMAGE = "unet_image"
Arrays = dict[str, np.ndarray]
Section = Iterator[tuple[str, Any]]


class Fixture:
    """The fixture's settings and arrays, and its policies, each written and loaded when it is first asked for."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.scratch = scratch
        self.config = json.loads((folder / "config.json").read_text())
        self.keys = json.loads((folder / "keys.json").read_text())
        self.expected: Arrays = dict(np.load(folder / "expected.npz"))
        self.seed = self.keys["seed"]
        spec = importlib.util.spec_from_file_location("seeded_weights", folder / "seeded_weights.py")
        assert spec is not None
        assert spec.loader is not None
        self.seeded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.seeded)
        self.loaded, self.seen = lru_cache(self._loaded), lru_cache(self._seen)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.expected[name])

    def noise(self, name: str, shape: Any) -> Tensor:
        return torch.from_numpy(self.seeded.seeded_noise(self.seed, name, tuple(shape)))

    def seeded_state(self, prefix: str, shapes: dict[str, Any]) -> dict[str, Tensor]:
        scale = self.keys["scale"]
        return {
            name: torch.tensor(  # a count of batch norm is a lone number
                self.seeded.seeded_tensor(self.seed, f"{prefix}/{name}", tuple(shape))
                * np.float32(scale.get(f"{prefix}/{name}", 1)),
                dtype=torch.float32,
            )
            for name, shape in shapes.items()
        }

    def state(self, policy: str) -> dict[str, Tensor]:
        """Its tensors, as in state_dicts/model of a released file."""
        shapes = self.keys["models"][policy]
        fitted = [name for name in shapes if name.startswith("normalizer.")]
        state = self.seeded_state(policy, {name: shape for name, shape in shapes.items() if name not in fitted})
        return state | {name: self._normalizer(policy, name.removeprefix("normalizer.")) for name in fitted}

    def _normalizer(self, policy: str, name: str) -> Tensor:
        given = f"{policy}_normalizer/{name}"
        if given in self.expected:
            return self.tensor(given)
        key, _, number = name.removeprefix("params_dict.").partition(".")
        values = self.expected[f"lowdim_{key}"]
        values = values.reshape(-1, values.shape[-1]).astype(np.float64)
        linear = Linear.of_range(values.min(axis=0), values.max(axis=0))
        numbers = {"scale": linear.scale, "offset": linear.offset, "input_stats.std": values.std(axis=0, ddof=1)}
        fitted = numbers[number] if number in numbers else getattr(values, number.rpartition(".")[2])(axis=0)
        return torch.from_numpy(fitted.astype(np.float32))

    @property
    def policies(self) -> list[str]:
        return [name for name in self.keys["models"] if f"{name}_loss" in self.expected or self.runs(name)]

    def runs(self, policy: str) -> list[str]:
        return [kind for kind in ("ddpm", "ddim") if f"{policy}_{kind}_action" in self.expected]

    def _loaded(self, policy: str, kind: str) -> Loaded:
        place = self.scratch / f"{policy}_{kind}"
        place.mkdir()
        save_file(
            {name: tensor.contiguous() for name, tensor in self.state(policy).items()}, place / "model.safetensors"
        )
        (place / SETTINGS).write_text(json.dumps({"policy": _configuration(self, policy, kind)}))
        loaded = load(place)
        loaded.network.eval().requires_grad_(True)
        return loaded

    def network(self, policy: str, kind: str | None = None) -> DiffusionPolicy:
        network = self.loaded(policy, kind or self.runs(policy)[0]).network
        assert isinstance(network, DiffusionPolicy)
        return network

    def processor(self, policy: str) -> Processor:
        return self.loaded(policy, self.runs(policy)[0]).processor

    def inputs(self, policy: str) -> Inputs:
        """What the policy sees, through its own processor, from raw observations."""
        processor = self.processor(policy)
        settings, rows = processor.settings, len(self.expected["loss_t"])
        if policy == IMAGE:
            of = {name.partition("/")[2]: x for name, x in self.expected.items() if name.startswith("unet_image_obs/")}
            of = {name: x[:, : settings.window] for name, x in of.items()}
            images = {camera: np.moveaxis(of[camera], -3, -1) for camera in settings.cameras}
            numbers = [of[name] for name in sorted(of) if name not in settings.cameras]
            proprio = np.concatenate(numbers, axis=-1) if numbers else None
        else:
            images, proprio = {}, self.expected["lowdim_obs"][:rows, : settings.window]
        observations = [
            Observation({c: x[row] for c, x in images.items()}, "", proprio=None if proprio is None else proprio[row])
            for row in range(rows)
        ]
        return processor.observe(observations)

    def _seen(self, policy: str) -> Tensor:
        return self.network(policy).seen(self.inputs(policy))

    def actions(self, policy: str) -> Tensor:
        rows = len(self.expected["loss_t"])
        physical = self.expected["unet_image_batch_action" if policy == IMAGE else "lowdim_action"][:rows]
        return torch.from_numpy(self.processor(policy).normalized_actions(physical, None))


def _configuration(fixture: Fixture, policy: str, kind: str) -> dict[str, Any]:
    """The `policy` part of the run's own configuration; what config.json leaves open follows from tensors' shapes."""
    config, shapes = fixture.config, fixture.keys["models"][policy]
    lowdim, prefix = policy != IMAGE, "low_" if policy != IMAGE else ""
    steps = len(fixture.expected[f"{policy}_{kind}_timesteps"])
    scheduler = {"_target_": f"diffusers.{'DDPM' if kind == 'ddpm' else 'DDIM'}Scheduler", **config[kind]}
    names = {"horizon": "horizon", "n_obs_steps": "n_obs", "n_action_steps": "n_act"}
    common = {own: config[prefix + theirs] for own, theirs in names.items()}
    common |= {"noise_scheduler": scheduler, "num_inference_steps": steps}
    if policy.startswith("transformer"):
        model = _transformer_configuration(config, shapes)
        target = "DiffusionTransformerLowdimPolicy"
        return {"_target_": target, **common, "model": model, "obs_as_cond": "model.cond_obs_emb.weight" in shapes}
    unet = _unet_configuration(config, shapes)
    seen = shapes["model.mid_modules.0.cond_encoder.1.weight"][1] - unet["diffusion_step_embed_dim"]
    if lowdim:
        told = {"obs_as_global_cond": seen > 0, "obs_as_local_cond": any("local_cond" in name for name in shapes)}
        convention = _executes_present(fixture, policy, kind, common["n_obs_steps"] - 1)
        target = "DiffusionUnetLowdimPolicy"
        return {"_target_": target, **common, **told, "model": unet, "oa_step_convention": convention}
    encoder = {
        "rgb_model": {"name": _resnet(shapes)}, "crop_shape": config["crop"] and [config["crop"]] * 2,
        "random_crop": config.get("random_crop", True), "share_rgb_model": config["share"],
        "use_group_norm": not any(name.endswith("running_mean") for name in shapes),
        "imagenet_norm": config["imagenet_norm"],
    }  # fmt: skip
    target = "DiffusionUnetImagePolicy"
    told = {"obs_as_global_cond": seen > 0, "obs_encoder": encoder, "shape_meta": config["shape_meta"]}
    return {"_target_": target, **common, **unet, **told}


def _resnet(shapes: dict[str, Any]) -> str:
    """Which one, by its third stage: 2 blocks, 6, or 6 of three convolutions."""
    blocks = {name.partition(".layer3.")[2].split(".")[0] for name in shapes if ".layer3." in name}
    deep = any(name.endswith("layer3.0.conv3.weight") for name in shapes)
    return "resnet50" if deep else {2: "resnet18", 6: "resnet34"}[len(blocks)]


def _executes_present(fixture: Fixture, policy: str, kind: str, present: int) -> bool:
    """config.json does not say whether a low-dimensional U-Net has oa_step_convention."""
    whole, part = (fixture.expected[f"{policy}_{kind}_{name}"] for name in ("action_pred", "action"))
    return np.array_equal(whole[:, present : present + part.shape[1]], part)  # clipped actions may recur elsewhere


def _unet_configuration(config: dict[str, Any], shapes: dict[str, Any]) -> dict[str, Any]:
    widths: list[int] = []
    while (name := f"model.down_modules.{len(widths)}.0.blocks.0.block.1.weight") in shapes:
        widths.append(shapes[name][0])
    return {
        "down_dims": widths,
        "diffusion_step_embed_dim": shapes["model.diffusion_step_encoder.1.weight"][1],
        "kernel_size": shapes["model.final_conv.0.block.0.weight"][2],
        "n_groups": config["unet"]["n_groups"],
        "cond_predict_scale": shapes["model.mid_modules.0.cond_encoder.1.weight"][0] == 2 * widths[-1],
    }


def _transformer_configuration(config: dict[str, Any], shapes: dict[str, Any]) -> dict[str, Any]:
    def layers(part: str) -> int:
        return len({name.split(".")[3] for name in shapes if name.startswith(f"model.{part}.layers.")})

    memory = "model.cond_pos_emb" in shapes
    return {
        "n_emb": config["n_emb"], "n_head": config["n_head"], "time_as_cond": memory,
        "n_layer": layers("decoder") if memory else layers("encoder"),
        "n_cond_layers": layers("encoder") if memory else 0, "causal_attn": "model.mask" in shapes,
    }  # fmt: skip


def normalizers(fixture: Fixture) -> Section:
    """Fitting and applying."""
    if "norm_data_state" not in fixture.expected:
        return
    data, probe = fixture.expected["norm_data_state"].astype(np.float64), fixture.expected["norm_probe"]
    low, high, mean, std = data.min(axis=0), data.max(axis=0), data.mean(axis=0), data.std(axis=0, ddof=1)
    kinds = {
        "limits": Linear.of_range(low, high),
        "gaussian": Linear.of_moments(mean, std),
        "limits_no_offset": Linear.of_size(np.abs(data).max(axis=0)),
        "limits_0_1": Linear.of_range(low, high, onto=(0, 1)),
    }
    paired = data.reshape(len(data) // 2, -1)
    kinds["limits_last2"] = Linear.of_range(paired.min(axis=0), paired.max(axis=0))
    for kind, linear in kinds.items():
        shape = fixture.expected[f"norm_{kind}_out"].shape
        values = probe[: shape[0] * shape[1]].reshape(shape) if len(shape) > 2 else probe
        yield f"norm_{kind}_scale", linear.scale
        yield f"norm_{kind}_offset", linear.offset
        yield f"norm_{kind}_out", linear.there(values)
        yield f"norm_{kind}_back", linear.back(linear.there(values))
    told = Linear.of_range(low, high, narrow=1e-7)
    yield "norm_range_from_stat_scale", told.scale
    yield "norm_range_from_stat_offset", told.offset


def averages(fixture: Fixture) -> Section:
    """Decays, and six updates of a toy whose first bias is frozen."""
    kinds: dict[str, dict[str, Any]] = {
        "default": {}, "power075": {"power": 0.75}, "delayed": {"power": 0.75, "update_after": 5},
        "gamma2_min": {"power": 0.75, "inv_gamma": 2, "least": 0.2, "most": 0.99},
    }  # fmt: skip
    for kind, numbers in kinds.items():
        yield f"ema_{kind}", [decay(int(n), **numbers) for n in fixture.expected.get("ema_steps", ())]
    shapes = {
        name.removeprefix("ema_toy_"): x.shape for name, x in fixture.expected.items() if name.startswith("ema_toy")
    }
    if not shapes:
        return
    (last, inner), (_, first) = shapes["2.weight"], shapes["0.weight"]
    toy = nn.Sequential(nn.Linear(first, inner), nn.BatchNorm1d(inner), nn.Linear(inner, last))
    toy.load_state_dict(fixture.seeded_state("ema/0", shapes), strict=False)
    toy[2].bias.requires_grad_(False)
    average = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    for update in range(6):
        toy.load_state_dict(fixture.seeded_state(f"ema/{update + 1}", shapes), strict=False)
        averaged(average, toy, decay(update, power=0.75))
    for name in shapes:
        yield f"ema_toy_{name}", average[name]


def learning_rate(fixture: Fixture) -> Section:
    """A warm-up from zero, then half a cosine."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-4)
    schedule = cosine(optimizer, 400, warmup_steps=50, from_zero=True)
    rates = []
    for _ in range(401):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    yield "lr_cosine", rates[::10]


@contextmanager
def drawn(fixture: Fixture, run: str) -> Iterator[list[Tensor]]:
    """Let diffusers draw the fixture's noise; yields what was drawn."""
    draws: list[Tensor] = []

    def draw(shape: Any, **_: Any) -> Tensor:
        draws.append(fixture.noise(f"{run}/{len(draws)}", shape))
        return draws[-1]

    with patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", draw):
        yield draws


def schedules(fixture: Fixture) -> Section:
    """Adding noise, and single steps back."""
    if "sched_x0" not in fixture.expected:
        return
    x, eps = fixture.tensor("sched_x0"), fixture.noise("sched/eps", fixture.expected["sched_x0"].shape)
    sampler = Sampler("ddpm", **fixture.config["ddpm"])
    yield "ddpm_alphas_cumprod", sampler.scheduler.alphas_cumprod
    yield "sched_noisy", sampler.noisy(x, eps, fixture.tensor("sched_t"))
    for name in fixture.expected:
        if not name.startswith("sched_dd"):
            continue
        _, kind, prediction, step = name.split("_")
        options = {**fixture.config[kind], "prediction_type": prediction}
        scheduler = Sampler(kind, **options).scheduler
        scheduler.set_timesteps(options["num_train_timesteps"])
        with drawn(fixture, f"sched/{kind}/{prediction}/{step}"):
            yield name, scheduler.step(eps, int(step), x).prev_sample


@torch.no_grad()
def images(fixture: Fixture) -> Section:
    """The encoders, and one pass of the U-Net."""
    if "unet_image_noise_pred" not in fixture.expected:
        return
    network, seen = fixture.network(IMAGE), fixture.seen(IMAGE)
    yield "unet_image_features", seen.flatten(0, 1)
    noisy = fixture.noise("unet_image/x", fixture.expected["unet_image_noise_pred"].shape)
    yield "unet_image_noise_pred", network.said(noisy, fixture.tensor("unet_image_t"), seen)


@torch.no_grad()
def droid(fixture: Fixture) -> Section:
    """DROID's copy of the U-Net."""
    if "droid_unet_noise_pred" not in fixture.expected:
        return
    state = fixture.state("droid_unet")
    settings = _unet_configuration(fixture.config, {f"model.{name}": tuple(x.shape) for name, x in state.items()})
    seen = state["mid_modules.0.cond_encoder.1.weight"].shape[1] - settings["diffusion_step_embed_dim"]
    noisy = fixture.noise("droid/x", fixture.expected["droid_unet_noise_pred"].shape)
    unet = Unet(
        noisy.shape[2], seen=seen, widths=settings["down_dims"], time_width=settings["diffusion_step_embed_dim"],
        kernel=settings["kernel_size"], groups=settings["n_groups"], scale=settings["cond_predict_scale"],
    )  # fmt: skip
    load_strictly(unet, state, where="droid_unet")
    condition = fixture.noise("droid/cond", (len(noisy), seen))
    yield "droid_unet_noise_pred", unet(noisy, fixture.tensor("droid_unet_t"), condition)


def losses(fixture: Fixture) -> Section:
    """The loss under given noise, and the norms of some of its gradients."""
    for policy in fixture.policies:
        if f"{policy}_loss" not in fixture.expected:
            continue
        network, inputs = fixture.network(policy), fixture.inputs(policy)
        network.zero_grad()
        seen = network.seen(inputs)
        trajectory, known = network.trajectory(fixture.actions(policy), seen)
        if network.condition == "inpaint":  # in the original's training, observations of the whole horizon are denoised
            rows = fixture.expected["lowdim_obs"][: len(trajectory)]
            trajectory = torch.cat([fixture.actions(policy), _whole(fixture, policy, rows)], dim=2)
        noise = fixture.noise(f"loss/{policy}/0", trajectory.shape)
        loss = network.errors(trajectory, noise, fixture.tensor("loss_t"), seen, known).mean()
        yield f"{policy}_loss", loss.detach()
        if f"{policy}_grad_names" in fixture.expected:
            loss.backward()
            of = dict(network.named_parameters())
            gradients = (of[name].grad for name in fixture.expected[f"{policy}_grad_names"].tolist())
            yield f"{policy}_grad_norms", torch.stack([one.double().norm() for one in gradients if one is not None])
            network.zero_grad()


def _whole(fixture: Fixture, policy: str, rows: np.ndarray) -> Tensor:
    from vlakit.processing.normalizer import normalize_proprio

    processor = fixture.processor(policy)
    return torch.from_numpy(normalize_proprio(rows, processor.statistics_of(None), processor.settings.normalization))


@torch.no_grad()
def sampling(fixture: Fixture) -> Section:
    """Whole runs from their noise."""
    for policy in fixture.policies:
        for kind in fixture.runs(policy):
            yield from _run(fixture, policy, kind)


def _run(fixture: Fixture, policy: str, kind: str) -> Section:
    network, name, seen = fixture.network(policy, kind), f"{policy}_{kind}", fixture.seen(policy)
    said: list[Tensor] = []
    hook = network.model.register_forward_hook(lambda _, __, out: said.append(out) if not said else None)
    scheduler, left = network.sampler.scheduler, list[Tensor]()

    def step(*given: Any, **options: Any) -> Any:
        out = type(scheduler).step(scheduler, *given, **options)
        left.append(out.prev_sample)  # before what is known is put in again, the last one too
        return out

    with drawn(fixture, f"sample/{name}") as draws, patch.object(scheduler, "step", step):
        start = fixture.noise(f"sample/{name}/0", fixture.expected[f"{name}_trajectory"].shape[1:])
        draws.append(start)
        after = network.denoised(seen, start)
    hook.remove()
    yield f"{name}_timesteps", network.sampler.scheduler.timesteps
    yield f"{name}_draws", len(draws)
    yield f"{name}_first_noise_pred", said[0]
    quarter, kept = max(1, len(left) // 4), len(fixture.expected[f"{name}_trajectory"])
    yield f"{name}_trajectory", torch.stack(left)[::quarter][:kept]
    actions = after[-1][..., : network.action_size].numpy()
    nobody: list[str | None] = [None] * len(actions)
    yield f"{name}_action_pred", fixture.processor(policy).physical(actions, nobody)
    executed = network.executed(after[-1]).numpy()
    yield f"{name}_action", fixture.processor(policy).physical(executed, nobody)


def masks(fixture: Fixture) -> Section:
    """What steps see of each other and of the frames; which parameters do not decay."""
    if "transformer" not in fixture.policies:
        return
    network = fixture.network("transformer")
    for name in ("mask", "memory_mask"):
        mask = getattr(network.model, name)
        yield f"transformer_{name}", None if mask is None else ~mask
    groups: list[Any] = parameter_groups(network, decay_norms_and_biases=False)
    spared = {name.removeprefix("model.") for name in groups[1]["names"] if name.startswith("model.")}
    listed = set(fixture.config["transformer_no_decay"]) - {"_dummy_variable"}
    fixture.expected["transformer_no_decay"] = np.zeros(1)
    yield "transformer_no_decay", np.array([float(len(spared ^ listed))])


SECTIONS: list[Callable[[Fixture], Section]] = [
    normalizers, averages, learning_rate, schedules, images, droid, masks, losses, sampling
]  # fmt: skip
# Read, not computed: inputs, and what one computation names another's parts by.
GIVEN = ("norm_data_state", "norm_probe", "ema_steps", "sched_x0", "sched_t", "loss_t", "lowdim_obs", "lowdim_action")
GIVEN += ("unet_image_t", "unet_image_batch_action", "droid_unet_t")


def is_given(name: str) -> bool:
    return (
        name in GIVEN or name.startswith(("unet_image_obs/", "unet_image_normalizer/")) or name.endswith("_grad_names")
    )


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
