"""The `worldflux` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; errors of ours are one message and exit code 2."""
    from worldflux.cli import completion
    from worldflux.cli.app import build_app, show_error
    from worldflux.errors import WorldFluxError

    try:
        completion.main(lambda: build_app()())
    except WorldFluxError as error:
        show_error(str(error))
        sys.exit(2)
