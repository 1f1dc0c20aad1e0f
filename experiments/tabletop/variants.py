"""What each variant of an axis looks like: the first starts of each, one row a variant, under what is said.

python experiments/tabletop/variants.py experiments/tabletop/variants.png
"""

import sys
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.axes import variant_of
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite

AXES = ("none", "visual", "motion", "physical", "semantic", "language")
COLUMNS, SIZE, CAPTION, TITLE, GAP = 8, 104, 24, 84, 3  # pictures a row; pixels
N = 40  # starts a task, from which the first of each task in turn are taken


def rows(suite: TabletopSuite) -> dict[str, list[InitialState]]:
    """Variant -> COLUMNS starts, the tasks taking turns; of a pair both."""
    columns = [suite.initial_states(task, N) for task in suite.tasks]
    by_turn = [state for turn in zip(*columns, strict=True) for state in turn]
    if suite.axes == ("language",):
        pairs = [pair for column in columns for pair in column[:2]]
        return {"listening: pairs": pairs[:COLUMNS]}
    variants = dict.fromkeys(variant_of(state) for state in by_turn if variant_of(state))
    every = {v: [s for s in by_turn if variant_of(s) == v] for v in variants} or {"as trained": by_turn}
    return {variant: list(islice(states, COLUMNS)) for variant, states in every.items()}


def wrapped(text: str) -> str:
    """In two lines of about equal length."""
    words = text.split()
    half = next(i for i in range(len(words) + 1) if len(" ".join(words[:i])) >= len(text) / 2)
    return f"{' '.join(words[:half])}\n{' '.join(words[half:])}"


def main(file: str) -> None:
    """Write the sheet."""
    shown = {}
    for axis in AXES:
        suite = TabletopSuite("target", [axis])
        environment = suite.environment()
        for variant, states in rows(suite).items():
            pictures = []
            for state in states:
                environment.reset(state)
                pictures.append((environment.picture(2 * SIZE), state.instruction))
            shown[variant] = pictures
    size = TITLE + COLUMNS * (SIZE + GAP), len(shown) * (SIZE + CAPTION + GAP)
    sheet, font = Image.new("RGB", size, "white"), ImageFont.load_default(8)
    draw = ImageDraw.Draw(sheet)
    for row, (variant, pictures) in enumerate(shown.items()):
        top = row * (SIZE + CAPTION + GAP)
        draw.text((GAP, top + CAPTION + SIZE // 2), variant.replace(": ", ":\n"), fill="black", font=font)
        for column, (picture, instruction) in enumerate(pictures):
            left = TITLE + column * (SIZE + GAP)
            draw.multiline_text((left, top), wrapped(instruction), fill="black", font=font, spacing=0)
            sheet.paste(Image.fromarray(picture).resize((SIZE, SIZE)), (left, top + CAPTION))
    sheet.quantize(160, kmeans=2).save(Path(file), optimize=True)  # fewer colours turn cyan into green


if __name__ == "__main__":
    main(*sys.argv[1:])
