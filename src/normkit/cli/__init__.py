"""The command line: parse, call, print, exit code. No logic lives here.

Exit codes: 0 done and fine, 1 done and something is wrong with what was examined, 2 bad usage or bad input,
3 a bug of ours, 130 interrupted.
"""

import contextlib
import io
import os
import sys
import tempfile
import traceback
from typing import Any, NoReturn


def main() -> None:
    """Run the ``normkit`` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows "?" in its place
    try:
        status = _run()
        sys.stdout.flush()  # a reader that has gone is noticed here, and not when Python ends
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # what is still to be written has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(status)


def _run() -> int:
    from normkit.cli.app import app
    from normkit.errors import BugError, UserError

    try:
        status = app(prog_name="normkit", standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        raise
    except BugError as error:
        first, _, trace = str(error).partition("\n")
        _fail(f"{first}{_where(trace)}", status=3)
    except Exception as error:
        if hasattr(error, "format_message"):  # what the parser raises has it, in every version of it
            _fail(_usage(error))
        _fail(_bug(error), status=3)
    return status if isinstance(status, int) else 0


def _usage(error: Any) -> str:
    """Return the fault of a command line, and where its help is; nothing where the help itself was printed."""
    message = str(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    if not message or not context:
        return message
    return f"{message}{' See' if message.endswith('?') else '; see'} {context.command_path} --help"


def _bug(error: Exception) -> str:
    from normkit.errors import REPORT_TO

    said = traceback.format_exception_only(error)[-1].strip()
    return f"normkit's own code failed ({said}); please report it at {REPORT_TO}{_where(traceback.format_exc())}"


def _where(trace: str) -> str:
    """Write a traceback to a file, and return the end of an error that names it."""
    try:
        descriptor, name = tempfile.mkstemp(".txt", "normkit-traceback-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(trace.rstrip() + "\n")
    except OSError:  # no place for it: then here
        return f"\n{trace.rstrip()}"
    return f" with the traceback in {name}"


def _fail(message: str, status: int = 2) -> NoReturn:
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
