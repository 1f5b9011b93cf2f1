"""The names by which openai-whisper and faster-whisper know models, and where each is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """A model with a name. `name` is what answers carry, `hub_id` where the hub has it."""

    name: str
    hub_id: str
    owner: str
    license: str = "MIT"


_OPENAI = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en",
    "large-v2", "large-v3", "large-v3-turbo",
)  # fmt: skip
_DISTIL = ("large-v2", "medium.en", "small.en", "large-v3", "large-v3.5")
# Who published them in CTranslate2's format for faster-whisper, where it is not Systran.
_CONVERTERS = {"large-v3-turbo": "mobiuslabsgmbh", "distil-large-v3.5": "distil-whisper"}
# What a folder of factors says of itself: of which model, by which theta.
LOW_RANK = "low_rank.json"
_ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}


def known_model(name: str) -> Known | None:
    """The model that `base`, `whisper-base`, `turbo`, `distil-large-v3`, ... mean, or None."""
    short = name.removeprefix("whisper-")
    return _KNOWN.get(_ALIASES.get(short, short))


def other_names(name: str) -> tuple[str, ...]:
    """What else a model that answers as `name` is called: its name, the hub's, faster-whisper's.

    () for a model of one's own, and for somebody else's of the same name.
    """
    owner, _, last = name.rpartition("/")
    known = known_model(last.removeprefix("faster-"))
    if known is None:
        return ()
    short = known.name.removeprefix("whisper-")
    converter = _CONVERTERS.get(short, "Systran")
    hubs = (known.hub_id, f"{converter}/faster-{known.name}")
    if owner and name not in hubs:
        return ()
    aliases = [alias for alias, meant in _ALIASES.items() if meant == short]
    return tuple(other for other in (known.name, *hubs, short, *aliases) if other != name)


def known_names() -> tuple[str, ...]:
    """Every name without its optional `whisper-`."""
    return (*_KNOWN, *_ALIASES)


_KNOWN = {
    **{size: Known(f"whisper-{size}", f"openai/whisper-{size}", "openai") for size in _OPENAI},
    # The hub's name for the first large one, as there was no other.
    "large-v1": Known("whisper-large-v1", "openai/whisper-large", "openai"),
    **{
        f"distil-{size}": Known(f"distil-{size}", f"distil-whisper/distil-{size}", "distil-whisper")
        for size in _DISTIL
    },
}
