"""A planner from a file of conf/planner, its language model from a local folder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from vlakit.checked import Text, load
from vlakit.configs import config_file
from vlakit.errors import ConfigError
from vlakit.evaluation.subject import Subject
from vlakit.evaluation.suite import Suite
from vlakit.planning.affordances import AFFORDANCES, Given
from vlakit.planning.choosing import Choosing, Scorer
from vlakit.planning.language_models import CausalScorer, Uniform
from vlakit.planning.saycan import SayCan
from vlakit.planning.skills import skills_of


@dataclass(frozen=True)
class PlannerSettings(Choosing):
    """A file of conf/planner. lm: hf, of a folder; tiny, the shipped one or of a folder; uniform. end: of a skill."""

    lm: Literal["hf", "tiny", "uniform"] = "hf"
    gguf: Text | None = None
    end: str = "\n"
    affordances: Text = "detected"

    @property
    def choosing(self) -> Choosing:
        """How likelihoods and values are joined, alone."""
        return Choosing(**{one.name: getattr(self, one.name) for one in fields(Choosing)})


def load_planner(name: str) -> PlannerSettings:
    """planner/NAME.yaml of any folder. Raises UnknownName, ConfigError."""
    return load(PlannerSettings, config_file("planner", name))


def scorer_of(settings: PlannerSettings, folder: str | Path | None) -> Scorer:
    """The language model. Raises ConfigError where a folder is needed or is in the way, PartMissing."""
    if settings.lm == "uniform":
        if folder is not None:
            raise ConfigError("this planner asks no language model", where=f"lm={folder}", do="leave lm out")
        return Uniform()
    folder = folder or ("tiny" if settings.lm == "tiny" else None)
    if folder is None:
        raise ConfigError("no language model", where="planner", do="add lm=DIR, a Hugging Face folder, or lm=tiny")
    return CausalScorer.from_folder(folder, gguf=settings.gguf, end=settings.end)


def planner_of(
    settings: PlannerSettings,
    suite: Suite,
    subject: Subject,
    folder: str | Path | None,
    *,
    slots: int,
    out: Path,
    values: Path | None = None,
) -> SayCan:
    """The actor, the subject carrying out its skills. slots: rows of a policy's batch; out: where choices are
    kept; values: the file of learnt ones.

    Raises ConfigError for a suite without skills, UnknownName, and what a language model's folder raises.
    """
    skills = skills_of(suite)
    affordances = AFFORDANCES.build(settings.affordances, given=Given(skills, subject.trained, values))
    scorer = scorer_of(settings, folder)
    if (trained := subject.trained) is not None:  # one width keeps answers to the bit
        trained.pad_to = trained.processor.text_width(skills.options)
    return SayCan(subject, skills, scorer, affordances, settings.choosing, slots=slots, out=out)
