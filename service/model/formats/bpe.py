"""A byte-level BPE tokenizer from its vocabulary alone.

Whisper's vocabularies are numbered in the order in which their merges were learned (as tiktoken's
ranks), so that the merges need not be kept beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from service.errors import CheckpointError

_END = "<|endoftext|>"
# Whisper's longest is 128 spaces.
_LONGEST = 256


def tokenizer_from_ids(ids: Mapping[str, int]) -> Tokenizer:
    """What splits text, from tokens in the byte-level alphabet; those from the end on are special.

    Raises CheckpointError for a vocabulary that is not Whisper's.
    """
    end = ids.get(_END, 0)
    ranks = {token: number for token, number in ids.items() if number < end}
    known = all(char in ranks for char in ByteLevel.alphabet())
    if not known or max(map(len, ids)) > _LONGEST:
        raise CheckpointError("the vocabulary is not a byte-level BPE one")
    special = sorted((number, token) for token, number in ids.items() if number >= end)
    try:
        tokenizer = Tokenizer(BPE(vocab=ranks, merges=_merges(ranks)))
        tokenizer.add_tokens([AddedToken(token, normalized=False) for _, token in special])
    except Exception as error:  # of the library's own, which are plain Exceptions
        raise CheckpointError(f"the vocabulary is not a byte-level BPE one: {error}") from error
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


def lacks_merges(vocab: Mapping[str, int], merges: Sequence[str | Sequence[str]]) -> bool:
    """Whether there is a token that nothing can be merged to.

    Some copies of OpenAI's multilingual tokenizer have all merges but the first, a blank and "t":
    " the" is two tokens then, and a prompt is not what the model was trained on.
    """
    end = vocab.get(_END, len(vocab))
    made = {pair.replace(" ", "", 1) if isinstance(pair, str) else "".join(pair) for pair in merges}
    return any(
        len(token) > 1 and number < end and token not in made for token, number in vocab.items()
    )


def _merges(ranks: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pair that is left of each token when it is built from its characters by lower ranks."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = list(token)
        while len(parts) > 2:
            pairs = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
            best = pairs.index(min(pairs))
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges
