"""A Python process of its own that answers in lines of JSON."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def json_lines(arguments: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[Iterator[Any]]:
    """Start Python with arguments, yield what each line of its output says, and end it in any case.

    Args:
        arguments: Those of Python: ``-m`` and a module, or ``-c`` and a program.
        env: The environment; None: that of this process.
    Raises:
        RuntimeError: the process ended with a status other than 0.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,  # Ctrl-C is for this process, which then ends the other
    )
    assert process.stdout is not None
    try:
        yield map(json.loads, process.stdout)
        status = process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if status != 0:
        raise RuntimeError(f"the measuring process ended with status {status}")
