"""The container's health check: ends with status 0 if the service answers 200 on a path.

In Python, as the image has no curl: `python health.py /readyz`.
"""

from __future__ import annotations

import os
import sys
import urllib.request

from service.config import load_config

TIMEOUT_S = 4


def main(path: str) -> int:
    """0 for a 200; else 1, and why in a line, which `docker inspect` shows."""
    port = load_config(os.environ).port
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT_S):
            return 0
    except OSError as error:  # an answer of 400 and above among them
        print(f"{path}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
