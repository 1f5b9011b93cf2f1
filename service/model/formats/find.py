"""What an operator calls a model -> the model: a folder, a file, a name, or a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.errors import CheckpointError
from service.model.formats.cache import LAYOUT, default_cache, read_cached, through_cache
from service.model.formats.ct2_folder import BINARY, read_ct2_folder, read_words
from service.model.formats.hub import download
from service.model.formats.hub_folder import SAFETENSORS, read_hub_folder
from service.model.formats.names import Known, known_model
from service.model.formats.openai_facts import Words, with_cantonese
from service.model.formats.openai_file import read_openai_file
from service.model.formats.packages import DATA_PACKAGES, DataPackage, find_files, read_package
from service.model.formats.source import CTC_KINDS, Source
from service.model.tokens import read_json

# By size: the data package, and the model on the hub, that have the vocabulary.
_VOCABULARIES = {
    51864: ("whisper-tiny.en", "openai/whisper-tiny.en"),
    51865: ("whisper-base", "openai/whisper-tiny"),
    51866: ("whisper-base", "openai/whisper-tiny"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A model, the name that answers carry, and who made it under which licence, "" if unknown."""

    name: str
    source: Source
    origin: str = ""
    license: str = ""
    owner: str = ""


def find_model(name: str, cache_dir: Path | None = None) -> Found:
    """`cache_dir` is where models of data packages are kept converted, None for the user's cache.

    A folder comes before a name that means the same. Raises CheckpointError with one sentence that
    says what was tried.
    """
    path = path_of(name)
    known, cache = known_model(name), cache_dir or default_cache()
    if path.is_dir() and _goes_before(path, known):
        return Found(name_of(name), read_folder(path.resolve(), cache))
    if path.is_file():
        if path.suffix != ".pt":
            raise CheckpointError(f"model {name!r}: a file that is no .pt of openai-whisper's")
        return Found(name_of(name), read_openai_file(path, partial(_words, cache_dir=cache)))
    if known is not None:
        return _find_known(name, known, cache)
    if name.startswith((".", "/", "~")):
        raise CheckpointError(f"model {name!r}: no such folder or file")
    if name.count("/") != 1:
        raise CheckpointError(
            f"model {name!r}: no such folder or file, no name of a model like whisper-base, and "
            "not a hub id like openai/whisper-tiny"
        )
    try:
        folder = download(name)
    except CheckpointError as error:
        raise CheckpointError(f"model {name!r}: no such folder, and {error}") from error
    return Found(name, read_folder(folder, cache), f"https://huggingface.co/{name}")


def name_of(name: str) -> str:
    """What answers call a model that an operator calls so, whether it is there or not."""
    path, known = path_of(name), known_model(name)
    if path.is_dir() and _goes_before(path, known):
        return path.resolve().name
    if path.is_file():
        return path.stem
    return name if known is None else known.name


def shipped_as(name: str) -> str:
    """As what a model that an operator calls so has profiles, evidence and other names that are
    shipped: a folder with a CTC model as nothing, whatever it is called."""
    try:
        kind = read_json(path_of(name) / "config.json").get("model_type")
    except CheckpointError:  # what cannot be read is said when it is loaded
        return name
    return "" if kind in CTC_KINDS else name


def _goes_before(folder: Path, known: Known | None) -> bool:
    """A folder before a model that means the same, if there is a model in it."""
    return known is None or (folder / "config.json").exists()


def path_of(name: str) -> Path:
    """`~` is the user's home, if there is one."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # nobody's home
        return Path(name)


def read_folder(folder: Path, cache_dir: Path | None = None) -> Source:
    """In whichever format it is. Raises CheckpointError for a model that cannot be read."""
    if (folder / BINARY).exists() and not (folder / SAFETENSORS).exists():
        return read_ct2_folder(folder)
    return read_hub_folder(folder, partial(_words, cache_dir=cache_dir or default_cache()))


def _find_known(name: str, known: Known, cache_dir: Path) -> Found:
    package = DATA_PACKAGES.get(known.name)
    tried = ""
    if package is not None:
        if (source := _read_package(known.name, package, cache_dir)) is not None:
            return Found(known.name, source, package.origin, known.license, known.owner)
        tried = f"{package.not_installed}, and "
    try:
        folder = download(known.hub_id)
    except CheckpointError as error:
        raise CheckpointError(f"model {name!r}: {tried}{error}") from error
    origin = f"https://huggingface.co/{known.hub_id}"
    return Found(known.name, read_folder(folder, cache_dir), origin, known.license, known.owner)


def _read_package(name: str, package: DataPackage, cache_dir: Path) -> Source | None:
    """None where neither the cache nor this installation has it."""
    entry = _entry(name, package, cache_dir)
    if (cached := read_cached(entry)) is not None:
        return cached
    files = find_files(package)
    if files is None:
        return None
    return through_cache(entry, lambda: read_package(package, files))


def _entry(name: str, package: DataPackage, cache_dir: Path) -> Path:
    return cache_dir / f"{name}-{package.sha256[:12]}-{LAYOUT}"


def _words(vocab_size: int, cache_dir: Path) -> Words:
    """A vocabulary of as many entries, of any model that has it: all of OpenAI's share two.

    large-v3's is the multilingual one with a language more.
    """
    if vocab_size not in _VOCABULARIES:
        raise CheckpointError(
            f"no vocabulary of {vocab_size} entries is known: put the model's tokenizer.json "
            "beside it"
        )
    name, hub_id = _VOCABULARIES[vocab_size]
    package = DATA_PACKAGES[name]
    files = find_files(package)
    entry = _entry(name, package, cache_dir)
    if read_cached(entry) is not None:
        ids, tokenizer = read_words(entry)
    elif files is not None:
        ids, tokenizer = read_words(files[0].parent)
    else:
        try:
            ids, tokenizer = read_words(download(hub_id, weights=()))
        except CheckpointError as error:
            raise CheckpointError(
                "the model has no vocabulary: there is no tokenizer.json beside it, "
                f"{package.not_installed}, and {error}"
            ) from error
    return with_cantonese(ids) if vocab_size == 51866 else (ids, tokenizer)
