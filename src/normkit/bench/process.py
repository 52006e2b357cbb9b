"""Python processes: one that answers in lines of JSON, and others that keep the machine busy meanwhile."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

_BUSY: Final = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
while True:
    pass
"""


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


@contextmanager
def busy_processes(number: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Start processes that compute until the block ends, or until this process does."""
    command = [sys.executable, "-P", "-c", _BUSY]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        while len(processes) < number:
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
