"""Profiles side by side under load: `python -m loadtest.compare --help`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from loadtest.options import parse

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for and returns the exit status."""
    options = parse(argv)
    # It puts gevent under the standard library, and has to come before whatever uses sockets.
    import locust  # noqa: F401

    from loadtest.own_service import ServiceFailed
    from loadtest.run import run
    from service.errors import ConfigError

    given = sys.argv[1:] if argv is None else argv
    try:
        return run(options, f"python -m loadtest.compare {shlex.join(given)}")
    except ConfigError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return USAGE
    except ServiceFailed as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("loadtest: interrupted before the first step", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
