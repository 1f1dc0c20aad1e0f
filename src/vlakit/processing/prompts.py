"""The words around an instruction or a question, by name: a checkpoint stores the name.

They end in a colon, without a space.
"""

from collections.abc import Callable

from vlakit.errors import UnknownName, nearest
from vlakit.registry import Registry

PROMPTS: Registry[str] = Registry("prompt")
QUESTIONS: Registry[str] = Registry("prompt of a question")  # under the name of the instruction's
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


@QUESTIONS.register("openvla")
def openvla_question(question: str) -> str:
    r"""How the vision-language model under OpenVLA was asked: the same frame without talk of a robot.

    >>> openvla_question("Where is the pot?")
    'In: Where is the pot?\nOut:'
    """
    return f"In: {question}\nOut:"


@QUESTIONS.register("openvla_v01")
def openvla_v01_question(question: str) -> str:
    """The same in Vicuna's frame."""
    return f"{_VICUNA} USER: {question} ASSISTANT:"


def prompt_builder(name: str) -> Callable[[str], str]:
    """The builder of a named prompt: instruction -> text."""
    return PROMPTS.get(name)


def question_builder(name: str) -> Callable[[str], str]:
    """The builder of the prompt of questions that goes with a named prompt: question -> text.

    Raises UnknownName for a prompt that has none; one of a user's own code has not.
    """
    if name not in QUESTIONS.names():
        raise UnknownName(f"the prompt {name!r} has no words for questions", do=nearest(name, QUESTIONS.names()))
    return QUESTIONS.get(name)
