from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from PIL import Image

from service.explain.explanation import Explanation, explain
from service.explain.html import to_html
from service.profiles import BUILT_IN, Profile

from .made import PAIRS, Spoken, halves, one_window, reading, transcript, window

VOID = {"meta", "link", "img", "br"}
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """A page taken apart; raises AssertionError where tags are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


def evil() -> Explanation:
    same = (" <b>same</b>", 0, 1)
    spoken: list[Spoken] = [same, (' "&quot;', 1, 2), (f" {EVIL}", 3, 4)]
    profile = Profile("sly", layer=2, sparsity=0.5)
    return one_window(spoken, [same, (" </p>x", 1, 2)], halves(), profile, name=f'"{EVIL}.wav')


@pytest.mark.parametrize("audio", [False, True])
def test_text_is_text_whatever_it_says(audio: bool) -> None:
    page = Page(to_html(evil(), audio=audio))
    assert page.tags.count("script") == int(audio)
    assert "b" not in page.tags[page.tags.index("section") :]
    assert page.texts["mark"] == [EVIL, "</p>x"]
    assert page.texts["ins"] == ['"&quot;']
    assert page.values("lang")[1:] == ["en", "en"]
    assert page.texts["h1"] == [f'"{EVIL}.wav ']
    assert page.texts["title"] == [f'"{EVIL}.wav under sly - Winnow']
    assert sum(EVIL in text for text in page.texts["td"]) == 1


def test_it_needs_nothing_from_elsewhere() -> None:
    text = to_html(one_window([(" red", 1, 2)], [(" red", 1, 2)]))
    page = Page(text)
    sources = page.values("src")
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(link.startswith(("#", "data:")) for link in page.values("href"))
    assert not re.search(r"url\(|@import|https?:", text)
    assert "script" not in page.tags
    policy = page.values("content")[0]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_recording_is_in_it_only_where_asked() -> None:
    made = one_window([(" red", 1.5, 2)], [])
    assert "audio/flac" not in to_html(made)
    page = Page(to_html(made, audio=True))
    sound = next(value for tag, name, value in page.attributes if (tag, name) == ("audio", "src"))
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound.partition(",")[2])))
    assert (len(samples), rate) == (12 * 16000, 16000)
    assert page.values("data-at") == ["1.500"]


def test_the_log_mel_is_a_picture_that_others_can_read() -> None:
    page = Page(to_html(one_window([], [])))
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        for source in page.values("src")
    ]
    assert [picture.size for picture in pictures] == [(600, 80), (600, 80), (1800, 80)]
    opacity = [np.asarray(picture.convert("RGBA"))[..., 3] for picture in pictures]
    assert opacity[0].max() == 255
    assert opacity[2][:, 10:].max() == 0  # silence lets the paper through


def test_every_drawing_is_told_to_who_cannot_see_it() -> None:
    page = Page(to_html(one_window([], [], halves())))
    told = [value for value in page.values("aria-label") if "frames" in value]
    assert told == [
        "0:00.00 to 0:06.00: of 300 frames 150 kept as they are, 150 dropped",
        "0:06.00 to 0:12.00: of 300 frames 150 kept as they are, 150 dropped",
        "0:12.00 to 0:30.00: of 900 frames 450 kept as they are, 450 dropped",
    ]
    assert page.values("alt") == ["", "", ""]
    assert page.values("tabindex") == ["0"]  # what scrolls, scrolls by keys


def test_a_bar_for_each_state_and_a_veil_over_what_was_dropped() -> None:
    dropped = Page(to_html(one_window([], [], halves())))
    bars = {
        style: sum(path.count("M") for path in _paths(dropped, style))
        for style in ("kept", "merged", "dropped", "veil")
    }
    assert bars == {"kept": 750, "merged": 0, "dropped": 750, "veil": 750}
    merged = Page(to_html(one_window([], [])))
    assert sum(path.count("M") for path in _paths(merged, "merged")) == 750
    assert not _paths(merged, "veil")


def _paths(page: Page, style: str) -> list[str]:
    """What the paths of this class draw."""
    pairs = pairwise(page.attributes)
    return [drawn for (_, _, given), (tag, _, drawn) in pairs if (given, tag) == (style, "path")]


def test_dense_alone_shows_one_text_and_an_empty_recording_says_so() -> None:
    page = Page(to_html(one_window([(" red", 1, 2)], [], profile=BUILT_IN["dense"])))
    assert page.texts["h3"] == ["dense"]
    nothing = Page(to_html(explain("a.wav", PAIRS, transcript(), transcript())))
    assert "Nobody speaks" in "".join(nothing.texts["p"])


def test_several_windows_are_linked_to() -> None:
    readings = [reading(window(30 * i, 30, index=i), halves()) for i in range(3)]
    ours = transcript((" red", 31, 32), readings=readings)
    page = Page(to_html(explain("a.wav", PAIRS, ours, transcript())))
    links = [link for link in page.values("href") if link.startswith("#")]
    assert [link[1:] for link in links] == ["pane-0", "pane-1", "pane-2"]
    assert set(page.values("id")) >= {link[1:] for link in links}
    assert page.texts["small"] == ["1 added"]
