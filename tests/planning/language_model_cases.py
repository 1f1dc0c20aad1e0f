"""Small language models and a tokenizer that merges over blanks and ends of lines, as local folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

TEXTS = [
    "lift red cube\n2. done\n",
    "put red cube on white plate\n3. done\n",
    "push blue ball left\n",
    "Human: lift it.\n",
]


def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(TEXTS * 9, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def llama(vocab_size: int, **further: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **{**sizes, **further})).eval()


def gpt2(vocab_size: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4)).eval()


def bloom(vocab_size: int) -> BloomForCausalLM:
    """Its positions follow from the mask, so that it cannot take a tree."""
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=vocab_size, hidden_size=32, n_layer=2, n_head=4)).eval()


def folder(place: Path, *, tokenized: bool = True) -> Path:
    words = tokenizer()
    llama(len(words)).save_pretrained(place)
    if tokenized:
        words.save_pretrained(place)
    return place
