"""Batches of shards, and a resumed run that cannot be told from one that never stopped."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Trace, built, data_of, trainer_of

from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.source import SAMPLE, source_folder
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.data.stream.later import chosen
from vlakit.data.stream.mixture import MixtureEntry
from vlakit.errors import CheckpointMismatch, ConfigError, NotAShardFolder
from vlakit.processing.augment import Augmentation
from vlakit.processing.images import decode_jpeg
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.base import PolicyModule
from vlakit.strategies.last_layer import LastLayer
from vlakit.strategies.lora import Lora


def run(
    shards: Path,
    processor: TokenProcessor,
    n_steps: int,
    resume: Path | None = None,
    *,
    save: Path | None = None,
    kind: type[PolicyModule] = LastLayer,
    n_workers: int = 0,
    micro: int = 1,
) -> Trace:
    """Train with augmentation up to step `n_steps`; `micro` batches a step."""
    trace = Trace()
    trainer = trainer_of(n_steps, trace, accumulate_grad_batches=micro)
    data = data_of(shards, processor, num_workers=n_workers, augment=True)
    options = {"rank": 2} if kind is Lora else {}
    module = built(kind, data.processor, seed=0 if resume is None else 99, **options)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    if save is not None:
        trainer.save_checkpoint(save)
    return trace


SLOW = pytest.mark.slow  # two workers take 2 s to start


@pytest.mark.parametrize(
    "how",
    [
        {"kind": LastLayer},
        {"kind": Lora},
        {"kind": LastLayer, "micro": 2},
        pytest.param({"kind": LastLayer, "n_workers": 2}, marks=SLOW),
    ],
    ids=["last_layer", "lora", "accumulating", "two workers"],
)
def test_a_resumed_run_repeats_the_loss_trace(
    bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path, how: dict[str, Any]
) -> None:
    file = tmp_path / "third.ckpt"
    whole = run(bridge_shards, tiny_processor, 6, **how)
    first = run(bridge_shards, tiny_processor, 3, save=file, **how)
    second = run(bridge_shards, tiny_processor, 6, file, **how)
    assert len(whole.losses) == 6 * how.get("micro", 1)
    assert first.keys + second.keys == whole.keys
    assert first.losses + second.losses == whole.losses


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(bridge_shards: Path, tiny_processor: TokenProcessor) -> None:
    alone, helped = (run(bridge_shards, tiny_processor, 3, n_workers=n) for n in (0, 2))
    assert helped.keys == alone.keys
    assert helped.losses == alone.losses


def test_a_checkpoint_of_another_order_does_not_resume(
    bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    run(bridge_shards, tiny_processor, 1, save=tmp_path / "a.ckpt")
    data = data_of(bridge_shards, tiny_processor, seed=6)
    with pytest.raises(CheckpointMismatch, match="another mixture"):
        trainer_of(2).fit(built(LastLayer, data.processor), data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)


def test_training_is_the_same_twice_and_depends_on_the_seed(
    bridge_shards: Path, tiny_processor: TokenProcessor
) -> None:
    def first_keys(seed: int) -> list[list[str]]:
        loader = data_of(bridge_shards, tiny_processor, seed=seed).train_dataloader()
        return [batch.keys for batch in islice(loader, 3)]

    assert first_keys(1) == first_keys(1) != first_keys(2)


def test_validation_visits_every_held_out_frame_once_in_order(
    bridge_shards: Path, tiny_processor: TokenProcessor
) -> None:
    data = data_of(bridge_shards, tiny_processor, batch_size=7, augment=True)
    folder = ShardFolder.open(bridge_shards)
    n_frames = sum(n for _, n in folder.shards("val"))
    batches = list(data.val_dataloader())
    keys = [key for batch in batches for key in batch.keys]
    assert len(keys) == len(set(keys)) == n_frames
    assert [len(batch) for batch in batches[:-1]] == [7] * (len(batches) - 1)
    again = list(data.val_dataloader())
    assert all(torch.equal(a.pixels["primary"], b.pixels["primary"]) for a, b in zip(batches, again, strict=True))


def test_training_and_validation_share_no_episode(bridge_shards: Path) -> None:
    folder = ShardFolder.open(bridge_shards)
    train, val = ({row.episode for row in folder.episodes(split)} for split in ("train", "val"))
    assert train
    assert val
    assert not train & val


def test_the_processor_leaves_with_the_datasets_statistics(bridge_shards: Path, tiny_processor: TokenProcessor) -> None:
    data = data_of(bridge_shards, tiny_processor)
    own = ShardFolder.open(bridge_shards).statistics
    assert data.processor.statistics_of("bridge_orig").q01.tolist() == own.q01.tolist()
    assert tiny_processor.statistics_of("bridge_orig").q01.tolist() != own.q01.tolist()


def test_only_training_is_augmented(bridge_shards: Path, tiny_processor: TokenProcessor) -> None:
    plain, augmented = (
        next(iter(data_of(bridge_shards, tiny_processor, augment=augment).train_dataloader()))
        for augment in (False, True)
    )
    assert plain.keys == augmented.keys
    assert not torch.equal(plain.pixels["primary"], augmented.pixels["primary"])


def test_a_missing_dataset_is_converted_from_its_source(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    data = VLADataModule(
        tiny_processor,
        "bridge",
        str(tmp_path),
        batch_size=2,
        seed=0,
        sources={"bridge_orig": "sample"},
        val_fraction=0.2,
    )
    assert data.folders == {"bridge_orig": str(tmp_path / "bridge_orig")}
    assert len(data.hashes["bridge_orig"]) == 64
    assert ShardFolder.open(tmp_path / "bridge_orig").splits == ["train", "val"]


def test_a_missing_dataset_without_a_source_is_an_error(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    with pytest.raises(NotAShardFolder):
        VLADataModule(tiny_processor, {"bridge_orig": 1.0}, str(tmp_path), batch_size=2, seed=0)


def test_sample_means_the_shipped_episodes(tmp_path: Path) -> None:
    assert source_folder("sample") == SAMPLE
    assert (SAMPLE / "1.0.0/dataset_info.json").is_file()
    assert source_folder(str(tmp_path)) == tmp_path


def test_random_crops_in_training_mean_a_central_one_in_use(
    tiny_processor: TokenProcessor, bridge_shards: Path
) -> None:
    augmented = data_of(bridge_shards, tiny_processor, augment=True)
    assert augmented.processor.settings.center_crop == Augmentation().crop_area
    assert data_of(bridge_shards, tiny_processor).processor.settings.center_crop is None


def test_validation_prepares_a_frame_as_the_policy_will_see_it(
    tiny_processor: TokenProcessor, bridge_shards: Path
) -> None:
    data = data_of(bridge_shards, tiny_processor, augment=True)
    batch = next(iter(data.val_dataloader()))
    folder = data.shards["bridge_orig"]
    first = folder.episodes("val")[0]
    sample = folder.read_sample(SampleRef("bridge_orig", first.shard, first.first_frame))
    seen = data.processor.observed_pixels(decode_jpeg(sample.images["primary"][-1]))
    assert torch.equal(batch.pixels["primary"][0, -1], seen)
    assert not torch.equal(seen, data.processor.pixels(decode_jpeg(sample.images["primary"][-1])))


def test_shards_made_with_another_val_fraction_are_not_used_unseen(
    tiny_processor: TokenProcessor, bridge_shards: Path
) -> None:
    with pytest.raises(ConfigError, match=r"val_fraction is 0\.6") as caught:
        VLADataModule(
            tiny_processor,
            {"bridge_orig": 1.0},
            str(bridge_shards.parent),
            batch_size=2,
            seed=0,
            sources={"bridge_orig": "sample"},
            val_fraction=0.6,
        )
    assert "data.val_fraction=0.2" in caught.value.do


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ({"robot": 2.0, "asked": 0.7}, "a weight for the questions 'asked'"),  # as with_share leaves them
        ({"asked": 1.0}, "no robot data is drawn"),
    ],
)
def test_a_later_weight_that_would_change_nothing_is_refused(drawn: dict[str, float], said: str) -> None:
    entries = [MixtureEntry(name, ((0, 10),), weight) for name, weight in drawn.items()]
    weights = {"robot": 2.0} | ({"asked": 3.0} if "robot" in drawn else {})
    with pytest.raises(ConfigError, match=said) as caught:
        chosen({"mixture": weights, "step": 1}, lambda _: entries, 1)
    assert "data.mix.robot" in caught.value.do


def test_a_mixture_changes_at_an_optimizer_step(bridge_shards: Path, tiny_processor: TokenProcessor) -> None:
    both = bridge_shards.parent
    options: dict[str, Any] = {"batch_size": 2, "seed": 3, "later": {"mixture": {"bridge_orig": 2.0}, "step": 5}}
    data = VLADataModule(tiny_processor, "bridge_orig", str(both), **options)
    sampler = data.train_dataloader().batch_sampler
    order = sampler.order  # type: ignore[union-attr]
    assert (order.later.first, order.later.weights) == (5, {"bridge_orig": 2.0})
    with pytest.raises(ConfigError, match="only one half"):
        VLADataModule(tiny_processor, "bridge_orig", str(both), **{**options, "later": {"step": 5}}).train_dataloader()
    with pytest.raises(ConfigError, match="'kuka', which the first one lacks"):
        VLADataModule(
            tiny_processor, "bridge_orig", str(both), **{**options, "later": {"mixture": "kuka", "step": 5}}
        ).train_dataloader()
