"""An explanation as one HTML file that needs nothing else: no network, no script, no library."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from pathlib import Path

import soundfile

from service import __version__
from service.explain.differences import ADDED, CHANGED, MISSING, SAME
from service.explain.explanation import Explanation, Pane, ShownWord, clock
from service.explain.html_rows import rows_html
from service.explain.picture import data_uri
from service.types import SAMPLE_RATE

ASSETS = Path(__file__).parents[1] / "assets" / "explain"
TAGS = {SAME: "span", CHANGED: "mark", ADDED: "ins", MISSING: "del"}


def to_html(explanation: Explanation, *, audio: bool = False) -> str:
    """The page. `audio`: with what was said in it, to be played; without, and without a script."""
    style = _asset("style.css")
    script = f"<script>\n{_asset('play.js')}</script>\n" if audio else ""
    # Even if something got past the escaping, nothing would be fetched or sent.
    allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if audio:
        allowed += "; media-src data:; script-src 'unsafe-inline'"
    body = "\n".join(_body(explanation, audio=audio))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(explanation.name)} under {escape(explanation.profile.name)} - Winnow</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
{body}
<footer>Made by winnow {__version__}.</footer>
{script}</body>
</html>
"""


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text()


def _body(explanation: Explanation, *, audio: bool) -> Iterator[str]:
    profile = explanation.profile
    yield f"<h1>{escape(explanation.name)} <span>under {escape(profile.name)}</span></h1>"
    yield f"<p>{escape(profile.description)}</p>"
    facts = "".join(
        f"<span>{escape(what)} <b>{escape(it)}</b></span>" for what, it in explanation.facts
    )
    yield f'<div class="facts">{facts}</div>'
    if not explanation.panes:
        yield "<p>Nobody speaks in this recording: nothing of it went through the model.</p>"
        return
    yield _legend(explanation)
    if len(explanation.panes) > 1:
        yield _contents(explanation.panes)
    for number, pane in enumerate(explanation.panes):
        yield _pane(explanation, pane, number, audio=audio)


def _legend(explanation: Explanation) -> str:
    attention = escape(explanation.about_attention)
    lines = [
        'Frames, 20 ms each: <i class="kept"></i> kept as it is · <i class="merged"></i> merged, a '
        'bar for each mean · <i class="gone"></i> dropped, and the log-mel above it veiled.',
        attention,
    ]
    if not explanation.profile.is_dense:
        lines.append(
            "Words where they were said, compared with dense's after Whisper's normaliser: "
            f'<span class="{CHANGED}">changed</span> · <span class="{ADDED}">added</span> · '
            f'<span class="{MISSING}">missing</span>, which only dense has.'
        )
    return "".join(('<ul class="legend">', *(f"<li>{line}</li>" for line in lines), "</ul>"))


def _contents(panes: Sequence[Pane]) -> str:
    items = []
    for number, pane in enumerate(panes):
        different = pane.differences
        more = f" <small>{escape(different)}</small>" if different else ""
        style = ' class="differs"' if different else ""
        items.append(f'<li><a href="#pane-{number}"{style}>{clock(pane.start_s)}{more}</a></li>')
    return f'<nav aria-label="Windows"><ol>{"".join(items)}</ol></nav>'


def _pane(explanation: Explanation, pane: Pane, number: int, *, audio: bool) -> str:
    title = escape(pane.title)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in pane.notes)
    player = f'<audio controls preload="metadata" src="{_sound(pane)}"></audio>' if audio else ""
    return f"""<section class="pane" id="pane-{number}" aria-labelledby="title-{number}">
<header><h2 id="title-{number}">{title}</h2>
<p>{escape(pane.about_frames)}</p>{notes}{player}</header>
<div class="score" tabindex="0" role="region" aria-label="{title}, drawn">
{rows_html(explanation, pane, audio=audio)}
</div>
{_texts(explanation, pane)}
{_tables(explanation, pane)}
</section>"""


def _sound(pane: Pane) -> str:
    file = io.BytesIO()
    soundfile.write(file, pane.samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return data_uri(file.getvalue(), "audio/flac")


def _texts(explanation: Explanation, pane: Pane) -> str:
    texts = (pane.words, pane.dense_words)
    columns = "".join(
        f"<section><h3>{escape(heading)}</h3>{_text(explanation, words)}</section>"
        for heading, words in zip(explanation.text_headings(pane), texts, strict=False)
    )
    return f'<div class="texts">{columns}</div>'


def _text(explanation: Explanation, words: Sequence[ShownWord]) -> str:
    if not words:
        return "<p><em>(nothing)</em></p>"
    said = "".join(escape(word.text) if word.mark == SAME else _marked_text(word) for word in words)
    return f'<p lang="{escape(explanation.language)}">{said.strip()}</p>'


def _marked_text(word: ShownWord) -> str:
    tag, text = TAGS[word.mark], word.text.lstrip()
    space = word.text[: len(word.text) - len(text)]
    return f'{space}<{tag} class="{word.mark}">{escape(text)}</{tag}>'


def _tables(explanation: Explanation, pane: Pane) -> str:
    ours = _table(explanation.profile.name, pane.words)
    dense = "" if explanation.profile.is_dense else _table("dense", pane.dense_words)
    return (
        "<details><summary>Words with their times</summary>"
        f'<div class="tables">{ours}{dense}</div></details>'
    )


def _table(name: str, words: Sequence[ShownWord]) -> str:
    rows = "".join(
        f"<tr><td>{clock(word.start)}</td><td>{clock(word.end)}</td>"
        f"<td>{escape(word.text.strip())}</td><td>{word.probability:.2f}</td>"
        f"<td>{word.mark}</td></tr>"
        for word in words
    )
    return (
        f"<table><caption>{escape(name)}</caption><thead><tr><th>begins</th><th>ends</th>"
        f"<th>word</th><th>probability</th><th></th></tr></thead><tbody>{rows}</tbody></table>"
    )
