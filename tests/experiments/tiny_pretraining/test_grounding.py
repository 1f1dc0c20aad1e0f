"""Stage 2: captions name every object and its place, and the language model learns to read them off the image."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scene_folder import scene_batch, write_scenes
from tiny_recipe.captions import CaptionData, Captions
from tiny_recipe.grounding import Grounding, place_marks
from tiny_recipe.muon import MuonAdamW
from tiny_recipe.scenes import SceneFolder
from tiny_recipe.towers import Towers
from tiny_runs import Trace, built, trainer_of

from vlakit.errors import ConfigError
from vlakit.models.openvla.heads import Answers
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import NO_LOSS, TextBatch
from vlakit.strategies.full import Full
from vlakit.strategies.optim import wsd


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "some", 24)


@pytest.fixture
def captions(folder: Path, tiny_processor: TokenProcessor) -> Captions:
    return Captions(tiny_processor, SceneFolder.open(folder), 24)


def data_of(folder: Path, processor: TokenProcessor, **options: object) -> CaptionData:
    options = {"batch_size": 8, "seed": 0, "val_fraction": 0.2, "augment": False} | options
    return CaptionData(processor, str(folder), **options)  # pyright: ignore[reportArgumentType]


def test_a_caption_says_colour_shape_and_place_and_the_gripper_last(
    captions: Captions, tiny_processor: TokenProcessor
) -> None:
    objects = np.array([[0, 1, 0.5, 0.999], [-1, 0, 0, 0]], np.float32)
    before, ids = captions.caption(objects, np.array([0.0, 0.26, 1], np.float32), np.random.default_rng(0))
    assert (before, ids[-1]) == ([tiny_processor.text.bos_id], tiny_processor.text.eos_id)
    assert tiny_processor.text.decode(ids[:-1]) == "red ball x12 y23 gripper x00 y06 open"


def test_what_is_out_of_view_is_not_named(captions: Captions) -> None:
    nothing = np.full((2, 4), -1, np.float32), np.array([-1, -1, 0], np.float32)
    assert captions.caption(*nothing, np.random.default_rng(0)) == ([captions.text.bos_id], [captions.text.eos_id])


def test_everything_behind_bos_carries_a_loss_and_padding_none(captions: Captions) -> None:
    scenes = scene_batch([[1, 0, 0.2, 0.3], [-1.0] * 4], [-1.0, -1, 0], n=2, position=7)
    scenes.objects[1, 0, 0] = -1
    text = captions.text_of(scenes, seed=0)
    assert text.labels.tolist()[1] == [NO_LOSS, captions.text.eos_id, NO_LOSS, NO_LOSS, NO_LOSS, NO_LOSS]
    assert torch.equal(text.labels[0, 1:], text.ids[0, 1:])


def test_a_caption_depends_on_the_position_alone(captions: Captions) -> None:
    things = [[0, 1, 0.5, 0.9], [1, 0, 0.2, 0.3], [2, 1, 0.1, 0.6]]
    batches = [scene_batch(things, [0.1, 0.2, 1.0], n=8, position=position) for position in (8, 8, 16)]
    ids = [captions.text_of(batch, seed=1).ids for batch in batches]
    assert torch.equal(ids[0], ids[1])
    assert not torch.equal(ids[0], ids[2])


def test_more_bins_than_words_are_refused(folder: Path, tiny_processor: TokenProcessor) -> None:
    with pytest.raises(ConfigError, match="40 bins"):
        Captions(tiny_processor, SceneFolder.open(folder), 40)


def test_other_data_than_scenes_are_refused(tiny_processor: TokenProcessor, bridge_shards: Path) -> None:
    from tiny_runs import data_of as demonstrations

    with pytest.raises(ConfigError, match="learns from scenes"):
        trainer_of(1).fit(built(Grounding, tiny_processor), demonstrations(bridge_shards, tiny_processor))


def test_towers_stay_and_their_features_are_computed_once(folder: Path, tiny_processor: TokenProcessor) -> None:
    module, data = built(Grounding, tiny_processor), data_of(folder, tiny_processor)
    before = {name: t.clone() for name, t in module.model.state_dict().items()}
    trainer_of(2).fit(module, data)
    moved = {name for name, t in module.model.state_dict().items() if not torch.equal(t, before[name])}
    assert {name.split(".")[0] for name in moved} == {"projector", "language_model"}
    assert data.features is not None


def shallow(*args: Any, **options: Any) -> Grounding:
    """With one language layer of four: Muon takes half a second over all of them, on a CPU."""
    module = built(*args, **options)
    del module.model.language_model.model.layers[1:]
    return module


def test_a_resumed_run_ends_with_the_same_weights(folder: Path, tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    options = {"optimizer": partial(MuonAdamW, lr=1e-3), "scheduler": wsd}
    whole = shallow(Grounding, tiny_processor, **options)
    trainer_of(4).fit(whole, data_of(folder, tiny_processor))
    options["scheduler"] = lambda optimizer, n_steps: wsd(optimizer, 4)  # the first part is of the same run
    trainer = trainer_of(2)
    trainer.fit(shallow(Grounding, tiny_processor, **options), data_of(folder, tiny_processor))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest = shallow(Grounding, tiny_processor, seed=9, **options)
    trainer_of(4).fit(rest, data_of(folder, tiny_processor), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    pairs = zip(whole.model.parameters(), rest.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_places_are_learnt(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", 2000)
    muon = {"optimizer": partial(MuonAdamW, lr=4e-3), "scheduler": partial(wsd, warmup_steps=10)}
    towers = built(Towers, tiny_processor, **muon)
    trainer_of(80, precision="bf16-mixed").fit(towers, data_of(folder, tiny_processor, batch_size=64))
    module = built(Grounding, tiny_processor, **muon)
    module.model.vision_backbone.load_state_dict(towers.model.vision_backbone.state_dict())
    data = data_of(folder, tiny_processor, batch_size=64, val_fraction=0.05)
    trainer = trainer_of(120, limit_val_batches=1.0, precision="bf16-mixed")
    trainer.fit(module, data)
    (values,) = trainer.validate(module, data, verbose=False)
    print(values)
    assert values["val/within_one_bin"] > 0.25  # chance: 3 in 24, more at no place


def test_a_question_names_what_is_seen_and_only_its_answer_carries_a_loss(
    folder: Path, tiny_processor: TokenProcessor
) -> None:
    asking = Captions(tiny_processor, SceneFolder.open(folder), 24, questions=1.0)
    text = asking.text_of(scene_batch([[0, 0, 0.5, 0.25], [-1.0] * 4], [0.1, 0.9, 1.0], position=3), seed=0)
    ids, labels = text.ids[0].tolist(), text.labels[0].tolist()
    answer = [label for label in labels if label != NO_LOSS]
    assert answer[:2] == asking.place(0.5, 0.25)
    assert answer[-1] == asking.text.eos_id
    assert all(word in ids[: -len(answer)] for word in tiny_processor.text.encode("red cube"))


def test_a_place_word_is_marked_by_how_many_bins_it_is_off(captions: Captions) -> None:
    """Two captions and a question: right, one bin off, two off; a word that is no place is wrong."""
    x, bos, other = captions.x, captions.text.bos_id, captions.text.eos_id
    targets, predicted = torch.tensor([x[5], x[5], x[7], other, x[9]]), torch.tensor([x[5], x[6], x[5], other, other])
    labels = torch.tensor([[NO_LOSS, x[5]], [NO_LOSS, x[5]], [NO_LOSS, NO_LOSS]])
    answers = Answers(torch.tensor(0.0), F.one_hot(predicted, 1536).float(), targets, torch.tensor([0, 1, 2, 2, 2]))
    text = TextBatch(torch.full_like(labels, bos), torch.ones_like(labels), labels)
    marks = place_marks(answers, text, captions.place_bins)
    assert marks["exact"].tolist() == [1, 0, 0, 0]
    assert marks["within_one_bin"].tolist() == [1, 1, 0, 0]
    assert marks["answered"].tolist() == [0, 0]


def test_any_strategy_learns_from_captions(folder: Path, tiny_processor: TokenProcessor) -> None:
    """They are text, and rows without an action."""
    trace = Trace()
    trainer_of(2, trace, limit_val_batches=1).fit(built(Full, tiny_processor), data_of(folder, tiny_processor))
    assert len(trace.losses) == 2
