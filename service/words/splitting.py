"""Text tokens -> words, as openai-whisper splits them (`tokenizer.py`, `timing.py`)."""

from __future__ import annotations

import codecs
import string
from collections.abc import Sequence
from dataclasses import dataclass

from service.model.tokens import Vocabulary

# Here every character is a word: where words end would take a dictionary.
WRITTEN_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


@dataclass(frozen=True, slots=True)
class WordTokens:
    """A word and its tokens, `[first, end)` among the text tokens of a hypothesis.

    `opens`: it is the first of a segment.
    """

    text: str
    first: int
    end: int
    opens: bool


def split_words(vocabulary: Vocabulary, tokens: Sequence[int], language: str) -> list[WordTokens]:
    """The words of a hypothesis, in order; their texts joined are its text.

    A word begins at a space, at punctuation or after a timestamp; in languages without spaces,
    at every character. No word begins inside a character, though that may be several tokens.
    """
    spaced = language not in WRITTEN_WITHOUT_SPACES
    words: list[WordTokens] = []
    for piece in _characters(vocabulary, tokens):
        if words and (not piece.text or (spaced and not _begins_word(piece))):
            last = words[-1]
            words[-1] = WordTokens(last.text + piece.text, last.first, piece.end, last.opens)
        else:
            words.append(piece)
    return words


def _begins_word(piece: WordTokens) -> bool:
    return piece.opens or piece.text.startswith(" ") or piece.text.strip() in string.punctuation


def _characters(vocabulary: Vocabulary, tokens: Sequence[int]) -> list[WordTokens]:
    """Tokens in the smallest groups that hold whole characters.

    What is no UTF-8 has no text, as `Vocabulary.split_text` has it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    groups: list[WordTokens] = []
    first = number = 0
    opens, text = True, ""
    for token in tokens:
        if token >= vocabulary.eot:
            opens = opens or vocabulary.is_timestamp(token)
            continue
        text += decoder.decode(vocabulary.text_bytes[token])
        number += 1
        if not decoder.getstate()[0]:
            groups.append(WordTokens(text, first, number, opens and bool(text)))
            opens, text, first = opens and not text, "", number
    if first < number:
        groups.append(WordTokens(text, first, number, opens and bool(text)))
    return groups
