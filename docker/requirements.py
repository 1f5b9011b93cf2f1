"""Prints the requirements of pyproject.toml: those of the service, or of the extras it is given.

So that they are installed before the code is copied, and a change of code installs nothing.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = sys.argv[1:]
for extra in extras:
    print(*project["optional-dependencies"][extra], sep="\n")
if not extras:
    print(*project["dependencies"], sep="\n")
