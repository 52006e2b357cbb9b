"""Run a check in another process, with a time limit, so that whatever the target does stays there.

A TARGET on the command line is loaded and run by a process of its own. From Python that is a fresh interpreter; the
command line has nothing to lose, so it forks, which spares importing torch a second time.

An object in memory cannot always travel to another interpreter (a class from a notebook, a local function, a patched
module), so where the platform can fork, a forked child examines it exactly as it is. Elsewhere it runs in the calling
process, and the report says so.
"""

import contextlib
import copy
import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from normkit.checking.arrays import JAX
from normkit.checking.errors import CannotRunError
from normkit.checking.options import Options
from normkit.checking.report import Finding, Report
from normkit.checking.resolve import libraries_of
from normkit.checking.run import Progress, errors_first, examine
from normkit.checking.worker import capturing, load_and_examine, outcome

TIMEOUT = 60.0
"""Seconds that a target may take; a check of a usual layer takes two, nearly all of it for importing torch."""

_STARTING: tuple[str, tuple[Finding, ...]] = ("starting", ())


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
    """
    if fork and _CAN_FORK:
        return _in_fork(lambda progress, printed: load_and_examine(target, options, progress, printed), target, timeout)
    with tempfile.TemporaryDirectory(prefix="normkit-check-") as name:
        folder = Path(name)
        request = {
            "target": target,
            "options": {**asdict(options), "init": dict(options.init), "call": dict(options.call)},
        }
        (folder / "request").write_text(repr(request))
        command = [sys.executable, "-m", "normkit.checking.worker", name]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise _too_slow(target, timeout, *_progress(folder)) from None
        finally:
            _kill(process.pid, process.kill)
            process.wait()
        result = folder / "result"
        if not result.is_file():
            raise _crashed(target, code, *_progress(folder))
        return read_outcome(json.loads(result.read_text()), _progress(folder)[1])


def check_object(target: Any, options: Options, name: str, timeout: float = TIMEOUT) -> Report:
    """Check an object of this process: in a forked child, or here where the platform cannot fork safely.

    Raises:
        CannotRunError: the target cannot be built or called, crashes or takes too long.
    """
    target = _on_cpu(target)
    if not _CAN_FORK or ("jax" in sys.modules and JAX in libraries_of(target)):  # a fork cannot use JAX's threads
        return examine(target, options, name=name)
    return _in_fork(
        lambda progress, _: examine(target, options, name=name, isolation="fork", progress=progress), name, timeout
    )


_CAN_FORK = sys.platform.startswith("linux")

_Work = Callable[[Progress, capturing], Report]


def _in_fork(work: _Work, name: str, timeout: float) -> Report:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, work), daemon=True)
    with warnings.catch_warnings():  # forking a process with threads: the child starts none
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        process.start()
    sender.close()
    seen: tuple[str, Sequence[Finding]] = _STARTING
    deadline = time.monotonic() + timeout
    try:
        while receiver.poll(max(deadline - time.monotonic(), 0)):
            kind, value = receiver.recv()
            if kind == "outcome":
                return read_outcome(value, seen[1])
            seen = value
        raise _too_slow(name, timeout, *seen)
    except EOFError:
        process.join()
        raise _crashed(name, process.exitcode or 0, *seen) from None
    finally:
        _kill(process.pid, process.kill)
        process.join()
        receiver.close()


def _child(sender: Connection, work: _Work) -> None:
    os.setsid()  # whatever it starts ends with it
    faulthandler.disable()  # the calling process reports a crash

    def progress(stage: str, findings: Sequence[Finding]) -> None:
        sender.send(("progress", (stage, tuple(findings))))

    with capturing() as printed:
        result = outcome(lambda: work(progress, printed))
    sender.send(("outcome", result))
    sender.close()
    os._exit(0)


def _on_cpu(target: Any) -> Any:
    """A copy on the CPU of a module that lives elsewhere: a forked child cannot use another device."""
    tensors = (
        [*getattr(target, "parameters", list)(), *getattr(target, "buffers", list)()] if _is_module(target) else []
    )
    if any(tensor.device.type not in ("cpu", "meta") for tensor in tensors):
        return copy.deepcopy(target).cpu()
    return target


def _is_module(target: Any) -> bool:
    import torch

    return isinstance(target, torch.nn.Module)


def read_outcome(result: dict[str, Any], findings: Sequence[Finding]) -> Report:
    """The report out of what another process sent.

    Args:
        result: What it sent.
        findings: What it had found before that.
    Raises:
        CannotRunError: the target could not be run.
        RuntimeError: normkit itself failed there.
    """
    if "report" in result:
        return Report.from_dict(result["report"])
    if "cannot_run" in result:
        raise _stopped(result["cannot_run"], findings)
    raise RuntimeError(f"normkit's own code failed while checking; please report it:\n{result['bug']}")


def _progress(folder: Path) -> tuple[str, Sequence[Finding]]:
    file = folder / "progress"
    if not file.is_file():
        return _STARTING
    seen = json.loads(file.read_text())
    return seen["stage"], [Finding(**finding) for finding in seen["findings"]]


def _kill(process: int | None, alone: Callable[[], None]) -> None:
    """End a process and whatever it started."""
    if sys.platform == "win32" or process is None:
        alone()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        alone()


def _too_slow(name: str, timeout: float, stage: str, findings: Sequence[Finding]) -> CannotRunError:
    return _stopped(
        f"{name} did not finish within {timeout:g} s; it was stopped while {stage}. If it is slow rather than stuck, "
        'give --timeout SECONDS; if importing it trains a model, put that under if __name__ == "__main__":',
        findings,
    )


def _crashed(name: str, code: int, stage: str, findings: Sequence[Finding]) -> CannotRunError:
    if code < 0:
        how = f"crashed the process with {signal.Signals(-code).name}"
    else:
        how = f"ended the process with exit status {code}"
    return _stopped(f"{name} {how} while {stage}", findings)


def _stopped(message: str, findings: Sequence[Finding]) -> CannotRunError:
    if findings:
        message += f"\nFound before that: {', '.join(finding.code for finding in errors_first(findings))}"
    return CannotRunError(message, errors_first(findings))
