"""A checkpoint's vocabulary: every id from its own files, and tokens back to text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from service.errors import CheckpointError, InvalidRequest
from service.languages import NAMES, english_name
from service.model import pieces
from service.model.formats.bpe import lacks_merges, tokenizer_from_ids
from service.types import WINDOW_S, DecodeOptions, Piece

_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The ids and bytes of a Whisper vocabulary of `size` entries.

    Ids below `eot` are text, `text_bytes[id]` its UTF-8, which may be part of a character. Ids in
    `[timestamp_begin, timestamp_begin + num_timestamps)` are times, `precision_s` apart.
    `languages` maps codes to ids in id order, and is empty for an English-only checkpoint, as
    `transcribe` and `translate` are None where the model has no such task. `previous` opens the
    text that was said before.
    """

    size: int
    sot: int
    eot: int
    no_timestamps: int
    timestamp_begin: int
    num_timestamps: int
    precision_s: float
    text_bytes: tuple[bytes, ...]
    multilingual: bool
    languages: Mapping[str, int]
    transcribe: int | None = None
    translate: int | None = None
    no_speech: int | None = None
    previous: int | None = None
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    max_initial_timestamp_index: int | None = None

    @property
    def language_names(self) -> dict[str, str]:
        """Codes to English names in the checkpoint's order; English alone if it knows no other."""
        if not self.multilingual:
            return {"en": NAMES["en"]}
        return {code: english_name(code) for code in self.languages}

    def prompt(self, options: DecodeOptions) -> tuple[int, ...]:
        """What the decoder is given before its first own token.

        That is, what was said before after `previous`, start-of-transcript, language, task, and
        the prefix. With timestamps the prefix stands behind the first of them, as a text does.
        Raises InvalidRequest for a language or task that the checkpoint does not have. The
        language has to be known by now; ValueError where it is None and a choice exists.
        """
        ids = [self.previous, *options.prompt] if options.prompt and self.previous else []
        ids.append(self.sot)
        if self.multilingual:
            ids += [self._language_id(options.language), self._task_id(options.task)]
        elif options.language not in (None, "en") or options.task != "transcribe":
            param = "task" if options.language in (None, "en") else "language"
            raise InvalidRequest(
                "this model is English-only: language must be 'en' and task 'transcribe'", param
            )
        if not options.timestamps:
            ids.append(self.no_timestamps)
        return (*ids, *self.opening(options))

    def opening(self, options: DecodeOptions) -> tuple[int, ...]:
        """The prefix as the hypothesis begins with it, () where there is none."""
        if options.prefix and options.timestamps:
            return (self.timestamp_begin, *options.prefix)
        return options.prefix

    def _language_id(self, code: str | None) -> int:
        if code is None:
            raise ValueError("the language has to be detected before the prompt is written")
        if code not in self.languages:
            valid = ", ".join(self.languages)
            raise InvalidRequest(f"unknown language {code!r}; valid: {valid}", "language")
        return self.languages[code]

    def _task_id(self, task: str) -> int:
        tasks = {"transcribe": self.transcribe, "translate": self.translate}
        token = tasks.get(task)
        if token is None:
            valid = ", ".join(name for name, token in tasks.items() if token is not None)
            raise InvalidRequest(f"unknown task {task!r}; valid: {valid}", "task")
        return token

    def is_timestamp(self, token: int) -> bool:
        return self.timestamp_begin <= token < self.timestamp_begin + self.num_timestamps

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special and timestamp ones.

        Bytes that are no UTF-8, such as a character cut off by the token limit, are left out.
        """
        return b"".join(self.token_bytes(token) for token in tokens).decode(
            "utf-8", errors="ignore"
        )

    def split_text(self, tokens: Sequence[int]) -> list[Piece]:
        """The timestamped pieces of a hypothesis (`pieces.split`). A character whose bytes lie on
        both sides of a timestamp belongs to the piece in which it ends."""
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        return pieces.split(
            tokens, self._time_of, lambda token: decoder.decode(self.token_bytes(token))
        )

    def _time_of(self, token: int) -> float | None:
        if not self.is_timestamp(token):
            return None
        return round((token - self.timestamp_begin) * self.precision_s, 3)

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 of a text token, which may be part of a character; b"" for any other."""
        return self.text_bytes[token] if 0 <= token < self.eot else b""


def make_vocabulary(
    ids: Mapping[str, int], settings: Mapping[str, Any], vocab_size: int, num_frames: int
) -> Vocabulary:
    """A vocabulary of `vocab_size` entries from token strings and what the configs say.

    `ids` are in the byte-level alphabet, `settings` by the names of transformers' generation
    config, or of the model config of checkpoints too old to have one. Raises CheckpointError for
    what is not a Whisper vocabulary.
    """
    _check_settings(settings)
    eot, no_timestamps = _require(ids, "<|endoftext|>"), _require(ids, "<|notimestamps|>")
    if not 0 <= eot < vocab_size:
        raise _of_another(vocab_size)
    begin = ids.get("<|0.00|>", no_timestamps + 1)
    num_timestamps = sum(1 for token in ids if _TIMESTAMP.fullmatch(token)) or num_frames + 1
    languages = _languages(ids, settings)
    multilingual = _is_multilingual(settings, languages)
    vocabulary = Vocabulary(
        size=vocab_size,
        sot=_require(ids, "<|startoftranscript|>"),
        eot=eot,
        no_timestamps=no_timestamps,
        timestamp_begin=begin,
        num_timestamps=min(num_timestamps, vocab_size - begin),
        precision_s=WINDOW_S / num_frames,
        text_bytes=_text_bytes(ids, eot),
        multilingual=multilingual,
        languages=languages if multilingual else {},
        transcribe=ids.get("<|transcribe|>") if multilingual else None,
        translate=ids.get("<|translate|>") if multilingual else None,
        no_speech=ids.get("<|nospeech|>", ids.get("<|nocaptions|>")),
        previous=ids.get("<|startofprev|>"),
        suppress_tokens=_id_list(settings, "suppress_tokens", vocab_size),
        begin_suppress_tokens=_id_list(settings, "begin_suppress_tokens", vocab_size),
        max_initial_timestamp_index=settings.get("max_initial_timestamp_index"),
    )
    tasks = (vocabulary.transcribe, vocabulary.translate)
    optional = (*tasks, vocabulary.no_speech, vocabulary.previous)
    special = (vocabulary.sot, no_timestamps, begin, *vocabulary.languages.values(), *optional)
    if not all(token is None or 0 <= token < vocab_size for token in special):
        raise _of_another(vocab_size)
    return vocabulary


def _of_another(vocab_size: int) -> CheckpointError:
    return CheckpointError(
        f"the tokenizer has ids beyond the model's vocabulary of {vocab_size}; "
        "it belongs to another checkpoint"
    )


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raises CheckpointError for a setting of another type than transformers writes."""
    for key in ("suppress_tokens", "begin_suppress_tokens"):
        tokens = settings.get(key) or ()
        if not isinstance(tokens, list | tuple) or not all(type(token) is int for token in tokens):
            raise CheckpointError(f"{key} must be a list of tokens")
    latest = settings.get("max_initial_timestamp_index")
    if latest is not None and (type(latest) is not int or latest < 0):
        raise CheckpointError("max_initial_timestamp_index must be a whole number")
    if not isinstance(settings.get("lang_to_id") or {}, Mapping):
        raise CheckpointError("lang_to_id must map languages to tokens")
    forced = settings.get("forced_decoder_ids") or []
    if not isinstance(forced, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in forced
    ):
        raise CheckpointError("forced_decoder_ids must be a list of pairs")


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError where the file is missing, not JSON or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return value


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """What splits text as the checkpoint was trained on it, None without merges.

    Raises CheckpointError for files that are corrupt.
    """
    whole, parts = folder / "tokenizer.json", [folder / "vocab.json", folder / "merges.txt"]
    try:
        if whole.exists():
            model = read_json(whole).get("model") or {}
            if lacks_merges(model.get("vocab") or {}, model.get("merges") or ()):
                return tokenizer_from_ids(read_ids(folder))
            return Tokenizer.from_file(str(whole))
        if not all(part.exists() for part in parts):
            return None
        tokenizer = Tokenizer(BPE.from_file(*map(str, parts)))
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        return tokenizer
    except Exception as error:  # of the library's own, which are plain Exceptions
        raise CheckpointError(f"{folder}: the tokenizer cannot be read: {error}") from error


def read_ids(folder: Path) -> dict[str, int]:
    """Token strings, in the byte-level alphabet, to ids.

    Of tokenizer.json, or of vocab.json and added_tokens.json. Raises CheckpointError for files that
    are missing or corrupt.
    """
    try:
        if (folder / "tokenizer.json").exists():
            tokenizer = read_json(folder / "tokenizer.json")
            ids = dict(tokenizer["model"]["vocab"])
            ids |= {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
        else:
            ids = read_json(folder / "vocab.json")
            added = folder / "added_tokens.json"
            ids |= read_json(added) if added.exists() else {}
        return {str(token): int(number) for token, number in ids.items()}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{folder}: the tokenizer is not a byte-level BPE one") from error


def _require(ids: Mapping[str, int], token: str) -> int:
    if token not in ids:
        raise CheckpointError(f"the tokenizer has no {token}: not a Whisper vocabulary")
    return ids[token]


def _languages(ids: Mapping[str, int], settings: Mapping[str, Any]) -> dict[str, int]:
    """By the generation config; without one, every `<|code|>` whose code names a language."""
    codes = [token.strip("<|>") for token in settings.get("lang_to_id") or ()] or list(NAMES)
    found = {code: ids[f"<|{code}|>"] for code in codes if f"<|{code}|>" in ids}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _is_multilingual(settings: Mapping[str, Any], languages: Mapping[str, int]) -> bool:
    """English-only vocabularies carry the language tokens too, unused: the config decides."""
    if "is_multilingual" in settings:
        return bool(settings["is_multilingual"])
    if forced := settings.get("forced_decoder_ids"):
        return any(token is None or token in languages.values() for _, token in forced)
    return bool(languages)


def _id_list(settings: Mapping[str, Any], key: str, vocab_size: int) -> tuple[int, ...]:
    return tuple(token for token in settings.get(key) or () if 0 <= token < vocab_size)


def _text_bytes(ids: Mapping[str, int], eot: int) -> tuple[bytes, ...]:
    table = [b""] * eot
    alphabet = _byte_alphabet()
    for token, number in ids.items():
        if 0 <= number < eot:
            known = all(char in alphabet for char in token)
            raw = token.encode(errors="replace")
            table[number] = bytes(alphabet[c] for c in token) if known else raw
    return tuple(table)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: itself where printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + n): byte for n, byte in enumerate(others)}
