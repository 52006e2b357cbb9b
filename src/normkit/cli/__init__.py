"""The command line: parse, call, print, exit code. No logic lives here.

Exit codes: 0 done and fine, 1 done and something is wrong with what was examined, 2 bad usage or bad input,
3 a bug of ours, 130 interrupted.
"""

import io
import sys
import traceback
from typing import Any, NoReturn


def main() -> None:
    """Run the ``normkit`` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows "?" in its place
    from normkit.cli.app import app
    from normkit.errors import REPORT_TO, BugError, UserError

    try:
        status = app(prog_name="normkit", standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except BugError as error:
        _fail(str(error), status=3)
    except Exception as error:
        if hasattr(error, "format_message"):  # what the parser raises has it, in every version of it
            _fail(_usage(error))
        traceback.print_exc()
        _fail(f"normkit's own code failed; please report the lines above at {REPORT_TO}", status=3)
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:
    """Return the fault of a command line, and where its help is; nothing where the help itself was printed."""
    message = str(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if message and context else message


def _fail(message: str, status: int = 2) -> NoReturn:
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
