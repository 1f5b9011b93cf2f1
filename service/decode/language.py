"""Which language a window is in, by the decoder's logits after start-of-transcript."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from service.model.tokens import Vocabulary

LanguageProbs = tuple[tuple[str, float], ...]


def language_probs(
    vocabulary: Vocabulary, logits_BV: Tensor, among: Sequence[Sequence[str]]
) -> list[LanguageProbs]:
    """Each window's languages, likeliest first, with their share among those considered.

    `among`: for each window the only languages to consider; all, where it names none. As
    `detect_language` of openai-whisper has it. An English-only checkpoint hears English.
    """
    if not vocabulary.languages:
        return [(("en", 1.0),)] * len(logits_BV)
    considered = [names or tuple(vocabulary.languages) for names in among]
    return [
        _shares(names, logits_V[[vocabulary.languages[name] for name in names]])
        for names, logits_V in zip(considered, logits_BV, strict=True)
    ]


def _shares(names: Sequence[str], logits_L: Tensor) -> LanguageProbs:
    shares = zip(names, logits_L.softmax(-1).tolist(), strict=True)
    return tuple(sorted(shares, key=lambda share: -share[1]))
