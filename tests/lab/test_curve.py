from __future__ import annotations

from pathlib import Path

from service.lab.curve import plot


def test_a_run_is_drawn_to_its_last_step(tmp_path: Path) -> None:
    rows = [f"{step}\t{4 - step / 50}\t{3 - step / 60}\t0\t0" for step in range(1, 101)]
    (tmp_path / "curve.tsv").write_text("\n".join(rows) + "\n")
    plot(tmp_path / "curve.tsv", tmp_path / "curve.png", smooth=10)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
