"""Plain settings of a processor: what old checkpoints say, what is refused, and which kind a description means."""

import pytest

from vlakit.errors import CheckpointMismatch, ConfigError, UnknownName
from vlakit.processing.processor import Processor, build_processor
from vlakit.processing.settings import ProcessorSettings, TokenSettings
from vlakit.processing.tokens import TokenProcessor

PICTURES = {"image_size": 64, "channel_statistics": ["imagenet", "half"]}
WORDS = {**PICTURES, "tokenizer": "words"}


def test_the_one_camera_of_0_1_0_is_the_only_one() -> None:
    settings = TokenSettings.from_dict({**WORDS, "camera": "wrist"})
    assert settings.cameras == ("wrist",)
    assert "camera" not in settings.to_dict()
    assert TokenSettings.from_dict(WORDS).cameras == ("primary",)


def test_settings_survive_their_plain_form() -> None:
    settings = ProcessorSettings(
        image_size=64, channel_statistics=("half",), cameras=("primary", "wrist"), window=2, proprio=8, chunk=4
    )
    assert ProcessorSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    "change", [{"cameras": []}, {"window": 0}, {"chunk": 0}, {"proprio": -1}], ids=lambda change: next(iter(change))
)
def test_a_value_that_no_policy_has_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        ProcessorSettings.from_dict({**PICTURES, **change})
    assert caught.value.where == "processor"
    (name,) = change
    assert name in caught.value.what
    assert name in caught.value.do or "camera" in caught.value.do


def test_a_misspelt_key_names_those_there_are() -> None:
    with pytest.raises(CheckpointMismatch, match="widow") as caught:
        ProcessorSettings.from_dict({**PICTURES, "widow": 2})
    assert "window" in caught.value.where


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ({"kind": "tokens", **WORDS}, TokenProcessor),
        (WORDS, TokenProcessor),  # as checkpoints of 0.1.0 say it
        ({"kind": "images", **PICTURES}, Processor),
        ({"kind": "vlakit.processing.processor:Processor", **PICTURES}, Processor),
    ],
    ids=["tokens", "no kind", "images", "by its place"],
)
def test_a_description_means_its_kind(description: dict[str, object], kind: type[Processor]) -> None:
    processor = build_processor(description)
    assert type(processor) is kind
    again = build_processor(processor.description)
    assert (type(again), again.settings) == (kind, processor.settings)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="tokns") as caught:
        build_processor({"kind": "tokns", **WORDS})
    assert "tokens" in caught.value.do


def test_what_is_no_processor_is_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="math:pi is no processor"):
        build_processor({"kind": "math:pi", **PICTURES})


def test_settings_of_words_do_not_fit_a_processor_of_pictures() -> None:
    with pytest.raises(CheckpointMismatch, match="tokenizer"):
        build_processor({"kind": "images", **WORDS})
