"""The words around an instruction, by name: a checkpoint stores the name. They end in a colon, without a space."""

from collections.abc import Callable

from vlakit.registry import Registry

PROMPTS: Registry[str] = Registry("prompt")
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@PROMPTS.register("openvla")
def openvla(instruction: str) -> str:
    r"""The prompt of the released models.

    >>> openvla("Lift the Pot")
    'In: What action should the robot take to lift the pot?\nOut:'
    """
    return f"In: What action should the robot take to {instruction.lower()}?\nOut:"


@PROMPTS.register("openvla_v01")
def openvla_v01(instruction: str) -> str:
    """The prompt of openvla-v01-7b, whose language model is Vicuna."""
    return f"{_VICUNA} USER: What action should the robot take to {instruction.lower()}? ASSISTANT:"


def prompt_builder(name: str) -> Callable[[str], str]:
    """The builder of a named prompt: instruction -> text."""
    return PROMPTS.get(name)
