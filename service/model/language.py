"""Which language a window is in, by the decoder's logits after start-of-transcript."""

from __future__ import annotations

from torch import Tensor

from service.model.tokens import Vocabulary

LanguageProbs = tuple[tuple[str, float], ...]


def language_probs(vocabulary: Vocabulary, logits_BV: Tensor) -> list[LanguageProbs]:
    """Each window's languages, likeliest first, with their share among all languages.

    As `detect_language` of openai-whisper has it. An English-only checkpoint hears English.
    """
    if not vocabulary.languages:
        return [(("en", 1.0),)] * len(logits_BV)
    ids = list(vocabulary.languages.values())
    shares_BL = logits_BV[:, ids].softmax(-1).tolist()
    return [
        tuple(sorted(zip(vocabulary.languages, shares, strict=True), key=lambda p: -p[1]))
        for shares in shares_BL
    ]
