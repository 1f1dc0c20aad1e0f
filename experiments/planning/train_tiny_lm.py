"""The language model that ships with vlakit: about a million parameters, trained on a grammar, on one core.

python experiments/planning/train_tiny_lm.py OUT [STEPS]    (goes on from OUT/training.pt; the folder is what ships)

The same command gives the same weights on the same kind of processor. Windows of text hold one instruction with its
plan, later several, in the words of a prompt; the loss counts what the robot says.
"""

from __future__ import annotations

import random
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from grammar import COLOURS, NOUNS, examples
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vlakit.evaluation.suites.tabletop.axes import PHRASINGS
from vlakit.planning.prompts import EXAMPLES, block
from vlakit.planning.skills import DONE

N_EXAMPLES, STEPS, TOKENS, LEARNING_RATE, WARM_UP = 20_000, 2400, 960, 1e-3, 50
LENGTHS = {0.0: 0, 0.4: 96, 0.8: 240}  # from this share of the steps on, windows of so many tokens; 0: one example
SAVE_EVERY, SEED = 50, 0


def tokenizer() -> PreTrainedTokenizerFast:
    """A word, a mark or an end of line is a token; blanks are none."""
    texts = [*COLOURS, *NOUNS, *(word for pair in NOUNS.values() for word in pair), *PHRASINGS]
    texts += [word for pair in PHRASINGS.values() for word in pair]
    texts += ["left right forward back onto on to close near both and plates everything but all bottles the it"]
    texts += ["Human Robot 1 2 3 4 5 6 7 8 9", DONE, *(" ".join([asked, *plan]) for asked, plan in EXAMPLES)]
    words = sorted({word for text in texts for word in text.replace(",", " ").split()})
    known = ["<unk>", "<s>", "<pad>", "\n", ".", ",", ":", *words]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    split = pre_tokenizers.Split(Regex(" +"), "removed"), pre_tokenizers.Split(Regex(r"[.,:\n]"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence(list(split))
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", pad_token="<pad>")


def network(n_words: int) -> LlamaForCausalLM:
    """Four layers of 128."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=n_words,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config)


def encoded(words: PreTrainedTokenizerFast) -> list[tuple[list[int], list[bool]]]:
    """(ids, does the loss count it) of each example: what stands behind "Robot:"."""
    found = list[tuple[list[int], list[bool]]]()
    robot = words.convert_tokens_to_ids("Robot")
    for asked, plan in examples(N_EXAMPLES, SEED):
        ids = list(words(block(asked, plan) + "\n").input_ids)
        first = ids.index(robot) + 2
        found.append((ids, [place >= first for place in range(len(ids))]))
    return found


def windows(rows: list[tuple[list[int], list[bool]]], length: int, step: int) -> tuple[Tensor, Tensor]:
    """ids and labels (B, n) of about TOKENS in all; which rows follows from the step alone."""
    lot = random.Random(f"{SEED}/{step}")
    ids, labels = list[Tensor](), list[Tensor]()
    while sum(map(len, ids)) < TOKENS:
        one, counted = list[int](), list[bool]()
        while len(one) < length or not one:
            more = lot.choice(rows)
            one, counted = one + more[0], counted + more[1]
        ids.append(torch.tensor(one[: length or None]))
        labels.append(torch.where(torch.tensor(counted[: length or None]), ids[-1], -100))
    pad = nn.utils.rnn.pad_sequence
    return pad(ids, batch_first=True), pad(labels, batch_first=True, padding_value=-100)


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: up, then straight down."""
    return min((step + 1) / WARM_UP, (steps - step) / (0.6 * steps), 1.0)


def train(out: Path, steps: int) -> None:
    """Train, or go on; a line every SAVE_EVERY steps."""
    words = tokenizer()
    model, rows = network(len(words)), encoded(words)
    adam = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    begun, spent = 0, 0.0
    saved = out / "training.pt"
    if saved.is_file():
        state: dict[str, Any] = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        begun, spent = state["step"], state["seconds"]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(words)} words", flush=True)
    before = time.process_time() - spent
    for step in range(begun, steps):
        length = [n for share, n in LENGTHS.items() if step >= share * steps][-1]
        ids, labels = windows(rows, length, step)
        loss = nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.param_groups[0]["lr"] = LEARNING_RATE * rate(step, steps)
        adam.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            seconds = time.process_time() - before
            print(f"step {step + 1}: loss {loss.item():.4f} nats a token, {seconds:.0f} CPU-seconds", flush=True)
            state = {"model": model.state_dict(), "adam": adam.state_dict(), "step": step + 1, "seconds": seconds}
            torch.save(state, saved)
    model.half().save_pretrained(out)
    words.save_pretrained(out)
    facts = {"parameters": sum(p.numel() for p in model.parameters()), "words": len(words), "examples": N_EXAMPLES}
    digest = sha256((out / "model.safetensors").read_bytes()).hexdigest()
    card = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    (out / "README.md").write_text(card.format(**facts, steps=steps, sha256=digest), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    train(place, int(sys.argv[2]) if len(sys.argv) > 2 else STEPS)
