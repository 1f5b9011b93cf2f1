"""Side-by-side measurements, as ratios within one run. `winnow bench` has those of speed beside
other programs (docs/bench.md); the others are `python -m bench.<name> --help`."""
