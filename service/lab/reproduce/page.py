"""A report for people: one HTML file that needs nothing else, or Markdown."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from service.lab.reproduce.claim import Claim, Verdict, counted

# Of verdicts, dark enough to be read on white, and told apart without colour by their words.
COLOURS = {Verdict.HOLDS: "#00614a", Verdict.FAILS: "#a13c00", Verdict.OPEN: "#555555"}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem; }
.wide { overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .35rem .6rem; text-align: left;
  vertical-align: top; }
td.figure, th.figure { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
td:first-child { min-width: 9rem; }
.verdict { font-weight: 600; white-space: nowrap; }
details { font-size: .9rem; color: #444; } summary { cursor: pointer; }
code { overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, slots=True)
class Table:
    """`head` and rows of cells; all but the first `texts` columns are figures."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, what is seen in a sentence or two, a plot (PNG) and tables."""

    heading: str
    said: tuple[str, ...] = ()
    png: bytes | None = None
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    said: tuple[str, ...]
    claims: tuple[Claim, ...]
    sections: tuple[Section, ...]
    about: tuple[tuple[str, str], ...]


def to_html(page: Page) -> str:
    """All of it, with plots inside."""
    title = html.escape(page.title)
    body = [
        f"<h1>{title}</h1>",
        *map(_paragraph, page.said),
        "<h2>What was claimed, and what was found</h2>",
        _paragraph(counted(page.claims)),
        _claims(page.claims),
        *(_section(section) for section in page.sections),
        "<h2>How this was made</h2>",
        _table(Table(("", ""), page.about, texts=2)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _claims(claims: Sequence[Claim]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(claim.said)}<br><small>{html.escape(claim.by)}</small></td>"
        f'<td class="verdict" style="color: {COLOURS[claim.verdict]}">{claim.verdict}</td>'
        f"<td>{html.escape(claim.found)}{_tried(claim.tried)}</td></tr>"
        for claim in claims
    )
    head = "<tr><th>Claim</th><th>Verdict</th><th>Found</th></tr>"
    return f'<div class="wide"><table>{head}{rows}</table></div>'


def _tried(tried: Sequence[str]) -> str:
    if not tried:
        return ""
    points = "".join(f"<li>{html.escape(one)}</li>" for one in tried)
    return f"<details><summary>What else was tried</summary><ul>{points}</ul></details>"


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.heading)}</h2>", *map(_paragraph, section.said)]
    if section.png is not None:
        data = base64.b64encode(section.png).decode()
        alt = html.escape(section.heading, quote=True)
        parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
    return "\n".join([*parts, *map(_table, section.tables)])


def _table(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{'' if n < table.texts else ' class=figure'}>{html.escape(cell)}</{tag}>"
            for n, cell in enumerate(cells)
        )

    rows = "".join(f"<tr>{line(row, 'td')}</tr>" for row in table.rows)
    head = f"<tr>{line(table.head, 'th')}</tr>" if any(table.head) else ""
    return f'<div class="wide"><table>{head}{rows}</table></div>'


def to_markdown(page: Page) -> str:
    """The same without plots: what was claimed and found, and every table."""
    claims = Table(
        ("claim", "by", "verdict", "found"),
        tuple((claim.said, claim.by, str(claim.verdict), claim.found) for claim in page.claims),
        texts=4,
    )
    parts = [
        f"# {page.title}",
        *page.said,
        "## What was claimed, and what was found",
        counted(page.claims),
        _markdown(claims),
    ]
    for section in page.sections:
        parts += [f"## {section.heading}", *section.said, *map(_markdown, section.tables)]
    parts += ["## How this was made", _markdown(Table(("", ""), page.about, texts=2))]
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    """Figures to the right; a bar inside a cell is no border."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    rule = ["---" if n < table.texts else "---:" for n in range(len(table.head))]
    return "\n".join([line(table.head), line(rule), *map(line, table.rows)])
