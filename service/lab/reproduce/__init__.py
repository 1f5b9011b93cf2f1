"""Published claims, tried again: `winnow reproduce NAME`, a folder here for each of them.

What they share is here: `record` (finished parts, so that a run goes on where it was stopped),
`claim` (what was claimed, and what became of it) and `page` (the report for people).
"""
