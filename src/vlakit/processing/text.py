"""Text to token ids: Llama-2's own tokenizer from local files, or the small word list that ships with vlakit.

Both keep Llama's id scheme: 1 = BOS, 2 = EOS, actions are the last 256 ids below the padding id, 64 ids of padding end
the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from vlakit.errors import PartMissing
from vlakit.files import ASSETS
from vlakit.registry import Registry

TOKENIZERS: Registry["TextTokenizer"] = Registry("tokenizer")
TABLE = "table"  # the language of a policy that learns words; else it is the folder of a frozen text encoder


@dataclass
class TextTokenizer:
    """The ids a sequence is built from, and a `tokenizers` Tokenizer that is read when text is first encoded.

    vocab_size counts the padding rows. Decoding actions needs no tokenizer files.
    """

    load: Callable[[], Tokenizer]
    padding_id: int
    vocab_size: int
    empty_id: int  # the lone space that stands between `Out:` and the first action (29871 in Llama-2)
    bos_id: int = 1
    eos_id: int = 2

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises PartMissing when its files are not here."""
        return self.load()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` without BOS or EOS."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def unknown(self, text: str) -> list[str]:
        """The words of `text` that become the one unknown id, so that no others can be told from them."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        pieces = zip(encoding.offsets, encoding.tokens, strict=True)
        spans = [span for span, piece in pieces if piece in ("<unk>", "[UNK]")]  # Llama's and T5's, BERT's
        words: list[str] = []
        for number, (start, stop) in enumerate(spans):
            joined = number > 0 and spans[number - 1][1] == start  # writing without spaces is cut at every character
            words[-1:] = [words[-1] + text[start:stop]] if joined else [*words[-1:], text[start:stop]]
        return words

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, for people to read."""
        return self.tokenizer.decode(ids)


@TOKENIZERS.register("words")
@lru_cache(maxsize=1)
def words(path: str | None = None) -> TextTokenizer:
    """Words of tabletop manipulation in lower case, one id each; others are spelt from known pieces and letters.

    1,536 ids: text below 1,216, actions 1,216 to 1,471, padding from 1,472.
    """
    vocabulary = {word: i for i, word in enumerate((ASSETS / "words.txt").read_text(encoding="utf-8").split())}
    return TextTokenizer(lambda: _word_pieces(vocabulary), padding_id=1472, vocab_size=1536, empty_id=vocabulary["▁"])


def _word_pieces(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()  # lower case, accents off
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


@TOKENIZERS.register("llama2")
def llama2(path: str | None = None) -> TextTokenizer:
    """Llama-2's tokenizer from a local folder with tokenizer.json; nothing is downloaded."""
    return TextTokenizer(lambda: _from_folder(path), padding_id=32000, vocab_size=32064, empty_id=29871)


@TOKENIZERS.register("t5")
def t5(path: str | None = None) -> TextTokenizer:
    """T5's tokenizer from the local Hugging Face folder of a T5 model; nothing is downloaded."""
    load = partial(_from_folder, path, "T5's", "as Hugging Face has it for t5-base")
    return TextTokenizer(load, padding_id=0, vocab_size=32128, empty_id=3, bos_id=0, eos_id=1)


def _from_folder(path: str | None, whose: str = "Llama-2's", such: str = "that of openvla-7b will do") -> Tokenizer:
    file = Path(path or "") / "tokenizer.json"
    if path is None or not file.is_file():
        raise PartMissing(
            f"{whose} tokenizer is not here",
            where=str(file) if path else "model.processor.tokenizer_path is not set",
            do=f"pass model.processor.tokenizer_path=DIR, a folder with tokenizer.json ({such})",
        )
    return Tokenizer.from_file(str(file))


def build_tokenizer(name: str, path: str | None = None) -> TextTokenizer:
    """The tokenizer called `name`; `path` is the folder of one whose files do not ship with vlakit."""
    return TOKENIZERS.build(name, path=path)


def lacking_files(place: Path) -> list[str]:
    """What the folder of a Hugging Face text encoder lacks: settings, tokenizer, weights under any of their names."""
    lacking = [name for name in ("config.json", "tokenizer.json") if not (place / name).is_file()]
    weights = any(file for name in ("*.safetensors", "pytorch_model*.bin") for file in place.glob(name))
    return lacking if weights else [*lacking, "model.safetensors"]


def check_folder(folder: str) -> None:
    """Raise PartMissing where a text encoder's files are not here."""
    place = Path(folder).expanduser()
    lacking = lacking_files(place)
    if lacking:
        raise PartMissing(
            f"the text encoder's files are not here: no {', '.join(lacking)}",
            where=str(place),
            do=f"copy the folder of a Hugging Face text encoder there, or learn words: language={TABLE}",
        )
