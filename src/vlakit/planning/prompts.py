"""How an instruction and the skills so far are written for a language model: worked examples, then the question."""

from __future__ import annotations

from collections.abc import Sequence

from vlakit.planning.skills import DONE

EXAMPLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("lift white cube", ("lift white cube",)),
    ("place the brown ball onto the pink dish", ("put brown ball on pink plate",)),
    ("slide the white can to the left", ("push white cylinder left",)),
    ("tip over the brown flask", ("knock over brown bottle",)),
    ("put both white box and brown sphere on plates", ("put white cube on pink plate", "put brown ball on gray plate")),
    (
        "knock over white bottle, put brown cube on gray plate, lift pink ball",
        ("knock over white bottle", "put brown cube on gray plate", "lift pink ball"),
    ),
)


def written(instruction: str, history: Sequence[str]) -> str:
    """A prompt that ends where the next skill begins; skills are numbered lines, done the last."""
    blocks = [block(asked, [*skills, DONE]) + "\n" for asked, skills in EXAMPLES]
    lines = block(instruction, history)
    return "".join(blocks) + (f"{lines}\n{len(history) + 1}. " if history else f"{lines}1. ")


def block(instruction: str, skills: Sequence[str]) -> str:
    """An instruction and the skills said so far, without an end of line."""
    lines = "\n".join(f"{number}. {skill}" for number, skill in enumerate(skills, start=1))
    return f"Human: {instruction}.\nRobot: {lines}"
