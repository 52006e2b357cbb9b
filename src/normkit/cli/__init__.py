"""The command line: parse, call, print, exit code. No logic lives here.

Exit codes: 0 done and fine, 1 done and something is wrong with what was examined, 2 bad usage or bad input,
130 interrupted.
"""

import sys
from typing import Any, NoReturn


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
        status = app(prog_name="normkit", standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser raises has it, in every version of it
            raise
        _fail(_usage(error))
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:
    """Return the fault of a command line, and where its help is; nothing where the help itself was printed."""
    message = str(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if message and context else message


def _fail(message: str) -> NoReturn:
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
