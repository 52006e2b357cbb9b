"""The command line: parse, call, print, exit code. No logic lives here.

Exit codes: 0 done and fine, 1 done and something is wrong with what was examined, 2 bad usage or bad input,
130 interrupted.
"""

import sys


def main() -> None:
    """Run the ``normkit`` command."""
    try:
        from normkit.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"typer", "rich", "click"}:
            raise
        print(f"error: the command line needs {error.name}: pip install 'normkit[cli]'", file=sys.stderr)
        sys.exit(2)

    from normkit.errors import UserError

    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
