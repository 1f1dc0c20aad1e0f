"""Co-fine-tuning: questions beside demonstrations in one batch, under one loss; without them nothing changes."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from question_folders import question_folder
from tiny_runs import TINY, Trace, built, data_of, trainer_of

from vlakit.data.stream.datamodule import VLADataModule
from vlakit.errors import ConfigError, PartMissing
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import NO_LOSS, Batch, Observation, Sample
from vlakit.strategies.frozen_vision import FrozenVision
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora
from vlakit.strategies.saving import LastCheckpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return question_folder(tmp_path_factory.mktemp("questions") / "asked")


@pytest.fixture
def question(samples: list[Sample]) -> Sample:
    asked = {"dataset": "asked", "instruction": "what color is the ball?", "answer": "dark green"}
    return replace(samples[1], **asked)


@pytest.fixture
def batch(tiny_processor: TokenProcessor, samples: list[Sample], question: Sample) -> Batch:
    """A demonstration, a question, a demonstration."""
    return tiny_processor.collate([tiny_processor.encode(one) for one in (samples[0], question, samples[2])])


class Logged(Callback):
    """Every scalar of training, and those of the last validation."""

    def __init__(self) -> None:
        self.training: list[dict[str, float]] = []
        self.validation: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        values = trainer.logged_metrics.items()
        self.training.append({name: float(value) for name, value in values if name.startswith("train/")})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validation = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}


def training(
    shards: Path, processor: TokenProcessor, *callbacks: Callback, kind: Any = Full, steps: int = 4, **options: Any
) -> tuple[Any, VLADataModule]:
    """The tiny model of one seed, and its data, after so many steps."""
    ckpt, more = options.pop("ckpt", None), options.pop("trainer", {})
    data = data_of(shards, processor, **{"batch_size": 8, "val_fraction": 0.2} | options)
    module = built(kind, data.processor, **({"rank": 4, "dropout": 0.2} if kind is Lora else {}))
    trainer_of(steps, *callbacks, **more).fit(module, data, ckpt_path=ckpt, weights_only=True)
    return module, data


def test_robot_data_alone_train_to_the_same_bits_as_without_questions(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path
) -> None:
    validated = {"val_check_interval": 4, "check_val_every_n_epoch": None, "limit_val_batches": 200}
    plain, beside, logs = Trace(), Trace(), (Logged(), Logged())
    one, _ = training(bridge_shards, tiny_processor, plain, logs[0], trainer=validated)
    with_questions = {"questions": {"asked": str(folder)}, "mix": {"robot": 1.0}}
    other, _ = training(bridge_shards, tiny_processor, beside, logs[1], trainer=validated, **with_questions)
    assert (plain.losses, plain.keys) == (beside.losses, beside.keys)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert logs[0].training == logs[1].training
    assert logs[0].validation.items() <= logs[1].validation.items()  # and what it forgets is seen
    assert {"val/loss/asked", "val/answer_accuracy/asked"} <= logs[1].validation.keys() - logs[0].validation.keys()


def test_the_losses_of_the_sources_add_up_to_the_whole_by_their_rows(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path
) -> None:
    log, trace = Logged(), Trace()
    training(bridge_shards, tiny_processor, log, trace, questions={"asked": str(folder)}, mix={"robot": 0.5})
    for values, loss, keys in zip(log.training, trace.losses, trace.keys, strict=True):
        share = sum(": " in key for key in keys) / len(keys)  # a question's key says what is asked
        assert 0 < share < 1
        total = (1 - share) * values["train/loss/bridge_orig"] + share * values["train/loss/asked"]
        assert total == pytest.approx(loss, rel=1e-5)
        assert {"train/token_accuracy/bridge_orig", "train/answer_accuracy/asked"} <= values.keys()
        assert "train/l1/asked" not in values


def test_every_row_weighs_the_same_however_long_its_answer(tiny_vla: OpenVLA, batch: Batch) -> None:
    assert batch.text is not None
    balanced = tiny_vla(replace(batch, text=batch.text.balanced()))
    assert balanced.loss.item() == pytest.approx(balanced.row_losses.mean().item(), rel=1e-6)
    counts = (batch.text.labels != NO_LOSS).sum(dim=1)
    by_ids = (balanced.row_losses * counts).sum() / counts.sum()
    assert tiny_vla(batch).loss.item() == pytest.approx(by_ids.item(), rel=1e-6)
    assert by_ids.item() != pytest.approx(balanced.loss.item(), rel=1e-6)


def test_rows_in_words_have_no_action_metrics_and_rows_of_actions_no_words(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, batch: Batch
) -> None:
    module = built(Full, tiny_processor)
    values = module.validation.row_values(tiny_vla(batch), batch)
    assert values.keys() >= {"l1", "l1_position_m", "token_accuracy", "answer_accuracy"}
    assert not values.pop("loss").isnan().any()
    for name, rows in values.items():
        assert rows.isnan().tolist() == ([True, False, True] if name == "answer_accuracy" else [False, True, False])
    module.validation.update(values, batch.datasets)
    assert "answer_accuracy/asked" in module.validation.compute()
    assert "answer_accuracy" not in module.validation.compute()


def test_a_question_beside_it_changes_no_demonstration(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, samples: list[Sample], batch: Batch
) -> None:
    alone = tiny_vla(tiny_processor.collate([tiny_processor.encode(samples[0])]))
    together = tiny_vla(batch)
    assert together.predicted is not None
    assert alone.predicted is not None
    assert torch.equal(together.predicted[0], alone.predicted[0])
    assert together.row_losses[0].item() == pytest.approx(alone.row_losses[0].item(), rel=1e-5)


def taught(model: OpenVLA, processor: TokenProcessor, samples: Sequence[Sample]) -> None:
    """The model learns these samples by heart."""
    batch = processor.collate([processor.encode(sample) for sample in samples])
    assert batch.text is not None
    batch = replace(batch, text=batch.text.balanced())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(batch).loss
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            return


def asked(samples: Sequence[Sample], processor: TokenProcessor) -> list[Observation]:
    """The samples as a policy would meet them."""
    from vlakit.processing.images import decode_jpeg

    return [Observation.of(decode_jpeg(one.images["primary"][0]), one.instruction) for one in samples]


def test_what_was_learnt_is_answered_in_words_and_acted_in_actions(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, samples: list[Sample], question: Sample
) -> None:
    longer = replace(samples[2], dataset="asked", instruction="where is it?", answer="left of the red cube")
    taught(tiny_vla, tiny_processor, [samples[0], question, longer])
    policy = TrainedPolicy(tiny_vla, tiny_processor)
    questions = asked([question, longer], tiny_processor)
    assert policy.answer(questions) == ["dark green", "left of the red cube"]
    assert policy.answer(questions[:1]) + policy.answer(questions[1:]) == policy.answer(questions)
    assert policy.answer(questions, longest=1) == ["dark", "left"]
    # The same words as an instruction are answered among actions alone: free, the model would say something else.
    instruction = asked([question], tiny_processor)
    ids = tiny_vla.sample(policy.observed(instruction)).ids
    assert tiny_processor.actions.is_action(ids.numpy()).all()
    assert np.isfinite(policy.act(instruction)).all()


def test_an_answer_counts_as_right_where_decoding_gives_it(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, samples: list[Sample], question: Sample
) -> None:
    wrong = replace(samples[0], dataset="asked", instruction="how many?", answer="three")
    taught(tiny_vla, tiny_processor, [question, replace(wrong, answer="two")])
    batch = tiny_processor.collate([tiny_processor.encode(one) for one in (question, wrong)])
    accuracy = tiny_vla(batch).answered.tolist()
    given = TrainedPolicy(tiny_vla, tiny_processor).answer(asked([question, wrong], tiny_processor))
    assert accuracy == [float(a == b) for a, b in zip(given, ("dark green", "three"), strict=True)] == [1.0, 0.0]


def test_a_resumed_mixed_run_is_the_one_that_was_never_interrupted(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path, tmp_path: Path
) -> None:
    mixed = {"questions": {"asked": str(folder)}, "mix": {"robot": 0.5}, "kind": Lora}
    last = LastCheckpoint(dirpath=tmp_path, filename="last", every_n_train_steps=2, enable_version_counter=False)
    saving = {"enable_checkpointing": True, "max_epochs": -1, "default_root_dir": tmp_path}
    whole, second = Trace(), Trace()
    training(bridge_shards, tiny_processor, whole, trainer=saving | {"enable_checkpointing": False}, **mixed)
    training(bridge_shards, tiny_processor, last, steps=2, trainer=saving, **mixed)
    training(bridge_shards, tiny_processor, second, ckpt=tmp_path / "last.ckpt", trainer=saving, **mixed)
    assert (second.keys, second.losses) == (whole.keys[2:], whole.losses[2:])


def test_a_head_without_words_is_told_before_the_first_step(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path
) -> None:
    data = data_of(bridge_shards, tiny_processor, questions={"asked": str(folder)}, mix={"robot": 0.5})
    module = built(Full, data.processor, network={**TINY, "head": "parallel"})
    with pytest.raises(PartMissing, match=r"data\.questions needs Answering"):
        trainer_of(1).fit(module, data)
    with pytest.raises(PartMissing, match="a question"):
        TrainedPolicy(module.model, data.processor).answer([])


def test_kept_features_are_of_frames_alone(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path, tmp_path: Path
) -> None:
    data = data_of(bridge_shards, tiny_processor, questions={"asked": str(folder)}, mix={"robot": 0.5})
    module = built(FrozenVision, data.processor, feature_cache=str(tmp_path / "features"))
    with pytest.raises(ConfigError, match=r"data\.questions"):
        trainer_of(1).fit(module, data)


def test_workers_make_the_batches_of_one_process(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path
) -> None:
    mixed = {"questions": {"asked": str(folder)}, "mix": {"robot": 0.5}}
    here, there = (
        list(islice(data_of(bridge_shards, tiny_processor, num_workers=n, **mixed).train_dataloader(), 3))
        for n in (0, 1)
    )
    for one, other in zip(here, there, strict=True):
        assert one.keys == other.keys
        assert one.text is not None
        assert other.text is not None
        assert one.text.weights is not None
        assert other.text.weights is not None
        assert torch.equal(one.text.weights, other.text.weights)
