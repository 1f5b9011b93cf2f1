"""The recordings: some to choose a setting on, others to report it on, noise and other languages.

Each alone, as the paper has them as far as is known (most of such a window is padding), and
packed to full windows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from service.errors import ConfigError
from service.lab.material import Domain, Material
from service.lab.packing import Item, evenly
from service.lab.reproduce.record import digest

FULL, SINGLE = "full windows", "single utterances"


class Role(StrEnum):
    """What a set of recordings is there for."""

    SEARCH = "to choose on"
    HELD = "to report on"
    NOISE = "in noise"
    OTHER = "others"


@dataclass(frozen=True, slots=True)
class Recordings:
    """`name` is for people, and no other set has it; `digest` is of all that is in it."""

    name: str
    role: Role
    full: bool
    items: tuple[Item, ...]
    digest: str = ""

    @property
    def kind(self) -> str:
        return FULL if self.full else SINGLE


@dataclass(frozen=True, slots=True)
class Source:
    """Where the recordings are. The first of `domains` is chosen and reported on, in noise too at
    so many dB; the others are reported on.

    `material`: of the split to report on, and all noise; `search`: of what to choose on, by its
    `search_domain`; `languages`: those the model knows.
    """

    material: Material
    domains: tuple[Domain, ...]
    search: Material
    search_domain: Domain
    levels: tuple[float, ...]
    languages: Collection[str]


@dataclass(frozen=True, slots=True)
class Gathered:
    """The sets there are, and what people have to know about them."""

    sets: tuple[Recordings, ...]
    notes: tuple[str, ...]

    def of(self, role: Role, full: bool | None = None) -> list[Recordings]:
        return [s for s in self.sets if s.role == role and full in (None, s.full)]


def gather(source: Source, limit: int | None) -> Gathered:
    """At most `limit` recordings of a set. Decodes each once, whatever the limit is.

    Raises ConfigError where there is nothing to choose or to report on.
    """
    first, *others = source.domains
    sets: list[Recordings] = []
    notes: list[str] = []
    for full in (True, False):
        chosen, held, note = _apart(source, full)
        notes += [note] if note else []
        sets += _set(first, Role.SEARCH, full, chosen, limit)
        sets += _set(first, Role.HELD, full, held, limit)
    if not sets:
        raise ConfigError(f"{first.name}: nothing to choose or to report on")
    if not any(s.full for s in sets):
        notes.append(
            f"{first.name} has too little of each speaker to fill a window: there are "
            "single utterances only. A column or key `speaker` says what belongs together."
        )
    for snr_db in source.levels:
        noisy = replace(source.material, limit=limit)
        domain = Domain(first.folder, any(s.full for s in sets), snr_db)
        name = f"{_name(first, domain.packed)}, noise at {snr_db:g} dB"
        mixed = tuple(noisy.items(domain))
        sets.append(Recordings(name, Role.NOISE, domain.packed, mixed, digest(mixed)))
    for other in others:
        items = _items(source.material, other, full=True)
        full = bool(items)
        items = items or _items(source.material, other, full=False)
        known = [item for item in items if item.language in source.languages]
        if not known:
            spoken = ", ".join(sorted({item.language for item in items}))
            notes.append(f"{other.name} was left out: the model does not know {spoken}.")
        sets += _set(other, Role.OTHER, full, known, limit)
    return Gathered(tuple(sets), tuple(dict.fromkeys(notes)))


def _apart(source: Source, full: bool) -> tuple[list[Item], list[Item], str]:
    """What to choose on, what to report on, and a note where these are of one set."""
    held = _items(source.material, source.domains[0], full)
    try:
        chosen = _items(source.search, source.search_domain, full)
    except ConfigError:  # nothing of its split
        chosen = held
    if {item.name for item in chosen}.isdisjoint(item.name for item in held):
        return chosen, held, ""
    note = (
        "There are no recordings apart to choose on (--search, or rows of split train): a setting "
        "was chosen on every other recording, and reported on the rest, of the same speakers."
    )
    return held[::2], held[1::2], note


def _items(material: Material, domain: Domain, full: bool) -> list[Item]:
    """[] where full windows cannot be filled."""
    asked = replace(domain, packed=False)
    alone = material.items(asked)
    if not full:
        return alone
    try:
        return material.items(replace(asked, packed=True))
    except ConfigError:
        return []


def _set(
    domain: Domain, role: Role, full: bool, items: Sequence[Item], limit: int | None
) -> list[Recordings]:
    if not items:
        return []
    if not any(item.text for item in items):
        raise ConfigError(f"{domain.name}: nothing is said in it; noise is for --snr")
    some = tuple(evenly(items, limit or len(items)))
    name = _name(domain, full) + (", to choose on" if role == Role.SEARCH else "")
    return [Recordings(name, role, full, some, digest(some))]


def _name(domain: Domain, full: bool) -> str:
    return f"{domain.folder}, {FULL if full else SINGLE}"
