"""Run a check in another process, with a time limit, so that whatever the target does stays there.

The child sends messages through one pipe: what it does and has found so far, and at last its report or what stopped it.
Where nobody is left to read them the child ends, with all that it started, so it does not outlive a calling process
that is killed. It is started in one of two ways:

- A string ``path/to/file.py:Name`` is loaded by a fresh interpreter. The command line forks instead: it has nothing to
  lose, and a fork spares importing torch a second time.
- An object in memory cannot always travel to another interpreter: a class from a notebook, a local function, a patched
  module. So a fork examines it as it is. Where the platform cannot fork it is examined in the calling process, and the
  report says so.
"""

import contextlib
import copy
import faulthandler
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any

import numpy as np
import torch

from normkit.checking.options import Options
from normkit.checking.report import Finding, Report, errors_first
from normkit.checking.run import Progress, examine
from normkit.checking.target.arrays import JAX
from normkit.checking.target.callables import libraries_of, name_of
from normkit.checking.target.errors import CannotRunError, describe
from normkit.checking.target.global_state import changes, snapshot
from normkit.checking.target.load import ImportEffects, load
from normkit.errors import BugError

TIMEOUT = 60.0
"""Seconds that a target may take; a check of a usual layer takes two, nearly all of it for importing torch."""

_CAN_FORK = sys.platform.startswith("linux")


@dataclass(frozen=True)
class _Stage:
    """A message of the child: what it does now, and what it has found so far."""

    doing: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Failure:
    """A message of the child: what stopped it, the target or a bug of ours."""

    text: str
    is_bug: bool = False


@dataclass(frozen=True)
class _Child:
    """A process that runs; ``wait`` returns its exit status, negative for a signal."""

    pid: int
    wait: Callable[[], int]


_Work = Callable[[Progress, "_Captured"], Report]
_Start = Callable[[_Work, Connection, Connection], _Child]
"""Takes the work and both ends of the pipe: the one that is read here, the one that the child writes to."""

Outcome = Report | CannotRunError | BugError
"""A report, or what stopped a check: the target or a bug of ours."""


def check_target(target: str, options: Options, timeout: float = TIMEOUT, *, fork: bool = False) -> Report:
    """Load ``path/to/file.py:Name`` or ``package.module:Name`` in a process of its own and check it there.

    Args:
        target: What to load.
        options: What the user fixed.
        timeout: Seconds that it may take.
        fork: Whether the process may be a fork of this one, where the platform can fork: for a program that runs
            nothing else.
    Raises:
        CannotRunError: the target cannot be loaded, built or called, crashes or takes too long.
        BugError: our own code failed there.
    """
    start = _fork if fork and _CAN_FORK else _spawn
    return _run_apart(partial(_load_and_examine, target, options), start, target, timeout)


def check_object(target: Any, options: Options, timeout: float = TIMEOUT, *, isolated: bool = True) -> Report:
    """Check an object of this process: in a fork, or here where the platform cannot fork safely.

    Args:
        target: A class, an instance or a function.
        options: What the user fixed.
        timeout: Seconds that it may take in a fork.
        isolated: Whether to fork.
    Raises:
        CannotRunError: the target cannot be built or called, crashes or takes too long.
        BugError: our own code failed in the fork.
    """
    if not isolated:
        return examine(target, options)
    target = _on_cpu(target)
    if not _CAN_FORK or ("jax" in sys.modules and JAX in libraries_of(target)):  # a fork cannot use JAX's threads
        return examine(target, options)

    def work(progress: Progress, _: "_Captured") -> Report:
        return examine(target, options, isolation="fork", progress=progress)

    return _run_apart(work, _fork, name_of(target), timeout)


def check_anything(target: Any, options: Options, timeout: float = TIMEOUT, *, isolated: bool = True) -> Report:
    """Check what a string names, as ``check_target`` does, or else an object, as ``check_object`` does."""
    if isinstance(target, str):
        return check_target(target, options, timeout)
    return check_object(target, options, timeout, isolated=isolated)


class _Run:
    """A child at work.

    Args:
        work: What it does.
        start: How to start it.
        name: What the target is called.
        timeout: Seconds that it may take.
    """

    def __init__(self, work: _Work, start: _Start, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.receiver, sender = multiprocessing.Pipe(duplex=False)
        self._child = start(work, self.receiver, sender)
        sender.close()
        self._stage = _Stage("starting")
        self._deadline = time.monotonic() + timeout

    @property
    def seconds_left(self) -> float:
        """Until the time limit."""
        return max(self._deadline - time.monotonic(), 0.0)

    def receive(self) -> Outcome | None:
        """Take the next message, which must have arrived; return the outcome where it is the last one."""
        try:
            message = self.receiver.recv()
        except EOFError:
            return _crashed(self.name, self._child.wait(), self._stage)
        if isinstance(message, _Stage):
            self._stage = message
            return None
        return _error(message, self._stage) if isinstance(message, _Failure) else message

    def too_slow(self) -> CannotRunError:
        """Return the outcome of a run that has reached the time limit."""
        return _too_slow(self.name, self.timeout, self._stage)

    def end(self) -> None:
        """End the child and whatever it started."""
        _kill(self._child.pid)
        self._child.wait()
        self.receiver.close()


def _run_apart(work: _Work, start: _Start, name: str, timeout: float) -> Report:
    """Start a child and follow its messages until the last one, its end or the time limit."""
    run = _Run(work, start, name, timeout)
    try:
        outcome: Outcome | None = None
        while outcome is None:
            outcome = run.receive() if run.receiver.poll(run.seconds_left) else run.too_slow()
    finally:
        run.end()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def check_targets(
    targets: Sequence[str], options: Options, timeout: float = TIMEOUT, *, jobs: int, fork: bool = False
) -> Generator[tuple[int, Outcome], None, None]:
    """Check several targets side by side, each as ``check_target`` does; yield the outcomes as they come.

    Args:
        targets: What to load.
        options: What the user fixed.
        timeout: Seconds that each may take.
        jobs: How many run at a time.
        fork: As for ``check_target``.
    Yields:
        The position of a target, and its report or what stopped it.
    """
    start = _fork if fork and _CAN_FORK else _spawn
    waiting = list(enumerate(targets))[::-1]
    running: dict[Connection, tuple[int, _Run]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                position, target = waiting.pop()
                run = _Run(partial(_load_and_examine, target, options), start, target, timeout)
                running[run.receiver] = position, run
            arrived = wait_for(list(running), min(run.seconds_left for _, run in running.values()))
            for receiver, (position, run) in list(running.items()):
                outcome = run.receive() if receiver in arrived else None if run.seconds_left else run.too_slow()
                if outcome is not None:
                    running.pop(receiver)[1].end()
                    yield position, outcome
    finally:
        for _, run in running.values():
            run.end()


def _fork(work: _Work, receiver: Connection, sender: Connection) -> _Child:
    def run() -> None:
        receiver.close()  # a fork has it too, and the pipe would never be without a reader
        _run_child(work, sender)

    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    with warnings.catch_warnings():  # forking a process with threads: the child starts none
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        process.start()
    assert process.pid is not None

    def wait() -> int:
        process.join()
        return process.exitcode or 0

    return _Child(process.pid, wait)


def _spawn(work: _Work, _: Connection, sender: Connection) -> _Child:
    handle = sender.fileno()
    inherit: dict[str, Any] = {"pass_fds": [handle]}
    if sys.platform == "win32":
        inheritable = True
        os.set_handle_inheritable(handle, inheritable)
        inherit = {"close_fds": False}
    pickled = pickle.dumps(work)
    code = "from normkit.checking.process import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(handle)], stdin=subprocess.PIPE, start_new_session=True, **inherit
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(pickled)
    return _Child(process.pid, process.wait)


def main() -> None:
    """Run as the child in a fresh interpreter: the work comes by standard input, the handle of the pipe as argument."""
    handle = int(sys.argv[1])
    work = pickle.load(sys.stdin.buffer)
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection

        _run_child(work, PipeConnection(handle, readable=False))
    else:
        _run_child(work, Connection(handle, readable=False))


def _run_child(work: _Work, sender: Connection) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(PermissionError):  # a fresh interpreter has its own session already
            os.setsid()  # whatever it starts ends with it
        threading.Thread(target=_end_without_reader, args=(sender.fileno(),), daemon=True).start()
    faulthandler.disable()  # the calling process reports a crash

    def progress(doing: str, findings: Sequence[Finding]) -> None:
        sender.send(_Stage(doing, tuple(findings)))

    with _Captured() as printed:
        last = _outcome(partial(work, progress, printed))
    sender.send(last)
    sender.close()
    os._exit(0)  # whatever threads or exit handlers the target left behind do not matter any more


def _end_without_reader(handle: int) -> None:
    """Wait until nobody reads from a pipe any more, then end this process and whatever it started."""
    if sys.platform == "win32":
        return
    waiting = select.poll()
    waiting.register(handle, 0)  # 0: woken by its other end alone
    waiting.poll()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _load_and_examine(target: str, options: Options, progress: Progress, printed: "_Captured") -> Report:
    """Import what ``target`` names and check it, in a process that serves nothing else."""
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # the arrays are tiny: compiling is what takes time
    torch.get_rng_state()
    progress("importing it", ())
    before, generators = snapshot(), repr(np.random.get_state())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load(target)
    changed = changes(before, snapshot())
    if repr(np.random.get_state()) != generators and "jax" not in sys.modules:  # importing JAX draws from it
        changed.append("NumPy's random generator was seeded or used")
    effects = ImportEffects(tuple(changed), printed.text())
    return examine(loaded, options, name=target, import_effects=effects, isolation="process", progress=progress)


def _outcome(action: Callable[[], Report]) -> Report | _Failure:
    try:
        return action()
    except CannotRunError as error:
        return _Failure(str(error))
    except Exception:  # an exception that is not the target's is ours
        return _Failure(traceback.format_exc(), is_bug=True)
    except BaseException as error:  # KeyboardInterrupt and the like: nothing here raises them
        return _Failure(f"the target raised {describe(error)}")


class _Captured:
    """A file that takes everything written to standard output and error: by print, compiled code or a notebook.

    For a process of its own only: nothing is put back.
    """

    def __enter__(self) -> "_Captured":
        self._file = tempfile.TemporaryFile()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number in (1, 2):
            os.dup2(self._file.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        return self

    def text(self) -> str:
        """Return what was written so far."""
        end = self._file.tell()
        self._file.seek(0)
        written = self._file.read(100_000).decode(errors="replace")
        self._file.seek(end)
        return written

    def __exit__(self, *error: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()


def _on_cpu(target: Any) -> Any:
    """Copy a module that lives elsewhere to the CPU: a forked child cannot use another device."""
    if not isinstance(target, torch.nn.Module):
        return target
    if all(tensor.device.type in ("cpu", "meta") for tensor in (*target.parameters(), *target.buffers())):
        return target
    return copy.deepcopy(target).cpu()


def _kill(pid: int) -> None:
    """End a process and whatever it started."""
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
        return
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _error(failure: _Failure, stage: _Stage) -> CannotRunError | BugError:
    if failure.is_bug:
        return BugError(stage.doing, failure.text)
    return _stopped(failure.text, stage)


def _too_slow(name: str, timeout: float, stage: _Stage) -> CannotRunError:
    return _stopped(
        f"{name} did not finish within {timeout:g} s; it was stopped while {stage.doing}. If it is slow rather than "
        'stuck, pass --timeout SECONDS; if importing it trains a model, put that under if __name__ == "__main__":',
        stage,
    )


def _crashed(name: str, code: int, stage: _Stage) -> CannotRunError:
    if code < 0:
        how = f"crashed the process with {signal.Signals(-code).name}"
    else:
        how = f"ended the process with exit status {code}"
    return _stopped(f"{name} {how} while {stage.doing}", stage)


def _stopped(message: str, stage: _Stage) -> CannotRunError:
    findings = errors_first(stage.findings)
    if findings:
        message += f"\nFound before that: {', '.join(finding.code for finding in findings)}"
    return CannotRunError(message, findings)
