"""What openai-whisper's code knows of OpenAI's models, and their `.pt` files do not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from service.model.formats.bpe import tokenizer_from_ids
from service.model.formats.ct2_folder import MAX_INITIAL_TIMESTAMP_INDEX, MULTILINGUAL_SIZE
from service.model.weights import Dims

Settings = dict[str, Any]
Words = tuple[Mapping[str, int], Tokenizer]
Heads = tuple[tuple[int, int], ...]

# By decoder layers, heads and vocabulary (openai-whisper, `_ALIGNMENT_HEADS`, decoded).
_ALIGNMENT_HEADS: dict[tuple[int, int, int], Heads] = {
    (4, 6, 51865): ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)),
    (4, 6, 51864): ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)),
    (6, 8, 51865): ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)),
    (6, 8, 51864): ((3, 3), (4, 7), (5, 1), (5, 5), (5, 7)),
    (12, 12, 51865): (
        (5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5),
    ),
    (12, 12, 51864): (
        (6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8), (9, 10),
        (10, 0), (10, 1), (10, 2), (10, 3), (10, 6), (10, 11), (11, 2), (11, 4),
    ),
    (24, 16, 51865): ((13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4)),
    (24, 16, 51864): (
        (11, 4), (14, 1), (14, 12), (14, 14), (15, 4), (16, 0), (16, 4), (16, 9), (17, 12),
        (17, 14), (18, 7), (18, 10), (18, 15), (20, 0), (20, 3), (20, 9), (20, 14), (21, 12),
    ),
    (32, 20, 51865): (
        (10, 12), (13, 17), (16, 11), (16, 12), (16, 13), (17, 15), (17, 16), (18, 4), (18, 11),
        (18, 19), (19, 11), (21, 2), (21, 3), (22, 3), (22, 9), (22, 12), (23, 5), (23, 7),
        (23, 13), (25, 5), (26, 1), (26, 12), (27, 15),
    ),
    (32, 20, 51866): (
        (7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1),
        (25, 6),
    ),
    (4, 20, 51866): ((2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14)),
}  # fmt: skip
# Of the shape of large-v2, from which only its name tells it apart.
LARGE_V1 = "large-v1"
_HEADS_OF_LARGE_V1: Heads = (
    (9, 19), (11, 2), (11, 4), (11, 17), (22, 7), (22, 11), (22, 17), (23, 2), (23, 15),
)  # fmt: skip

_SYMBOLS_BY_SPACES = (
    '" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (\' (" '
    "(( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪"
)
_NOTES = "♩♪♫♬♭♮♯"
_SPECIAL = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev")
_NO_SPEECH = ("nospeech", "nocaptions")


def settings_of(dims: Dims, ids: Mapping[str, int], tokenizer: Tokenizer, name: str) -> Settings:
    """What transformers' configs say of a model of OpenAI's, by their names.

    Raises KeyError or IndexError for a vocabulary that is not Whisper's.
    """
    return {
        "is_multilingual": dims.vocab_size >= MULTILINGUAL_SIZE,
        "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP_INDEX,
        "suppress_tokens": suppressed(ids, tokenizer),
        "begin_suppress_tokens": suppressed_at_first(ids, tokenizer),
        "alignment_heads": alignment_heads(dims, name),
    }


def alignment_heads(dims: Dims, name: str) -> Heads | None:
    """The heads that follow the speech; None for a model that is not OpenAI's."""
    kind = (dims.decoder_layers, dims.decoder_heads, dims.vocab_size)
    if name == LARGE_V1 and kind == (32, 20, 51865):
        return _HEADS_OF_LARGE_V1
    return _ALIGNMENT_HEADS.get(kind)


def suppressed(ids: Mapping[str, int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that are never said: of notes, brackets and the like, and those that steer.

    openai-whisper, `Tokenizer.non_speech_tokens` and `DecodingTask._get_suppress_tokens`.
    """

    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return found

    # As part of a word, "-" and "'" are speech; at its beginning they are not.
    found = {encode(" -")[0], encode(" '")[0]}
    for symbol in (*_SYMBOLS_BY_SPACES.split(), *_NOTES):
        for tokens in (encode(symbol), encode(f" {symbol}")):
            if len(tokens) == 1 or symbol in _NOTES:
                found.add(tokens[0])
    found |= {ids[f"<|{name}|>"] for name in (*_SPECIAL, *_NO_SPEECH) if f"<|{name}|>" in ids}
    return tuple(sorted(found))


def suppressed_at_first(ids: Mapping[str, int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """A blank and the end (openai-whisper, `SuppressBlank`)."""
    return (*tokenizer.encode(" ", add_special_tokens=False).ids, ids["<|endoftext|>"])


def with_cantonese(ids: Mapping[str, int]) -> tuple[dict[str, int], Tokenizer]:
    """large-v3's vocabulary from the multilingual one: a language more, behind the others."""
    place = ids["<|translate|>"]
    more = {token: number + (number >= place) for token, number in ids.items()}
    more["<|yue|>"] = place
    return more, tokenizer_from_ids(more)
