"""Side-by-side measurements, as ratios within one run. `python -m bench.<name> --help`."""
