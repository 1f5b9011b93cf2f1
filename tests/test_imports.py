"""The ranks of the rooms: who may import whom. Imports for type checkers alone do not count."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).resolve().parents[1] / "service"
RANKS = (
    ("types", "errors", "languages", "cgroups", "memory", "threads", "transfer"),
    ("config", "profiles", "metrics"),
    ("evidence",),
    ("audio", "model", "text"),
    ("decode", "words"),
    ("families",),
    ("engine",),
    ("requests", "params", "find_files"),
    ("pipeline", "live", "explain"),
    ("models",),
    ("api", "files", "lab"),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
STRANGERS = {"audio", "model", "text"}
ENGINE_OF_AUDIO = "service.audio.mel."  # all that the engine may use of the audio room


def _imports(node: ast.AST) -> Iterator[str]:
    """Modules of `service` that are imported when the code runs, in functions too."""
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names if a.name.split(".")[0] == "service")
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "import from service.<room>, not by dots"
        if (node.module or "").split(".")[0] == "service":
            yield from (f"{node.module}.{a.name}" for a in node.names)
    else:
        inside: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = node.orelse
        for child in inside:
            yield from _imports(child)


def _room(module: str) -> str | None:
    """The room of a dotted name; None for the package itself and names in its `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANK else None


def _refusal(importer: str, module: str) -> str | None:
    """Why code of the room `importer` may not import `module`, or None if it may."""
    used = _room(module)
    if used is None or used == importer:
        return None
    if {used, importer} <= STRANGERS:
        return f"{importer} and {used} are strangers"
    if used == "lab":
        return None if importer == "cli" else "nobody but cli imports lab"
    if (importer, used) == ("engine", "audio") and not f"{module}.".startswith(ENGINE_OF_AUDIO):
        return f"engine uses {ENGINE_OF_AUDIO} alone of audio"
    if RANK[used] > RANK[importer]:
        return f"{importer} ranks below {used}"
    if RANK[used] == RANK[importer] and RANK[used] > 0 and importer != "lab":
        return f"{importer} and {used} are of one rank"
    return None


def _modules() -> list[Path]:
    return sorted(
        p for p in SERVICE.rglob("*.py") if p.name != "__init__.py" or p.parent != SERVICE
    )


def test_every_module_is_in_a_room_that_has_a_rank() -> None:
    rooms = {p.relative_to(SERVICE).parts[0].removesuffix(".py") for p in _modules()}
    assert rooms - {"assets"} <= set(RANK)


def test_rooms_import_downwards_only() -> None:
    refused = []
    for path in _modules():
        relative = path.relative_to(SERVICE)
        importer = relative.parts[0].removesuffix(".py")
        for module in _imports(ast.parse(path.read_text())):
            if reason := _refusal(importer, module):
                refused.append(f"service/{relative} imports {module}: {reason}")
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize(
    ("importer", "module", "allowed"),
    [
        ("types", "service.profiles.Profile", False),
        ("config", "service.errors.ConfigError", True),
        ("config", "service.metrics.Metrics", False),
        ("text", "service.model.protocol", False),
        ("model", "service.audio.mel", False),
        ("model", "service.decode.step.step", False),
        ("decode", "service.words.find.find_words", False),
        ("families", "service.decode.batch.WindowDecoder", True),
        ("engine", "service.requests.guard", False),
        ("engine", "service.audio.mel.log_mel", True),
        ("engine", "service.audio.decode.decode", False),
        ("engine", "service.model.protocol.SpeechModel", True),
        ("engine", "service.pipeline.Pipeline", False),
        ("pipeline", "service.audio.decode.decode", True),
        ("api", "service.lab.evaluate", False),
        ("api", "service.explain.html", True),
        ("explain", "service.pipeline.Pipeline", False),
        ("lab", "service.api.app", True),
        ("cli", "service.lab.cli", True),
        ("api", "service.__version__", True),
    ],
)
def test_the_rules_themselves(importer: str, module: str, allowed: bool) -> None:
    assert (_refusal(importer, module) is None) is allowed


def test_the_command_line_imports_no_torch() -> None:
    """It sets how OpenMP's threads wait, which is read once, when torch is imported."""
    code = "import sys, service.cli; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SERVICE.parent)
    assert done.stdout == "False\n"


def test_what_a_start_imports(mini_folder: Path) -> None:
    """Each of these takes longer to import than a model to load, and memory for good."""
    code = """
import sys
import service.api.app
from service.families.load import load_model
load_model(sys.argv[1], "cpu")
print(*sys.modules)
"""
    command = [sys.executable, "-c", code, str(mini_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SERVICE.parent)
    found = set(done.stdout.split())
    assert {"torch", "tokenizers"} <= found
    heavy = {"av", "transformers", "scipy", "sympy", "numba", "huggingface_hub._snapshot_download"}
    assert not heavy & found


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
from typing import TYPE_CHECKING
import service.errors, torch
if TYPE_CHECKING:
    from service.cli import main
else:
    from service import text
def late():
    from service.audio.mel import log_mel
"""
    assert list(_imports(ast.parse(source))) == [
        "service.errors",
        "service.text",
        "service.audio.mel.log_mel",
    ]
