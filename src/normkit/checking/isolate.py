"""Run a check in another process, with a time limit, so that whatever the target does stays there.

A TARGET on the command line is loaded and run by a fresh interpreter. An object in memory cannot always travel to one
(a class from a notebook, a local function, a patched module), so where the platform can fork, a forked child examines
it exactly as it is. Elsewhere it runs in the calling process, and the report says so.
"""

import contextlib
import copy
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from normkit.checking.errors import CannotRunError
from normkit.checking.options import Options
from normkit.checking.report import Report

TIMEOUT = 60.0
"""Seconds that a target may take; a check of a usual layer takes two, nearly all of it for importing torch."""


def check_target(target: str, options: Options, timeout: float = TIMEOUT) -> Report:
    """Load ``path/to/file.py:Name`` or ``package.module:Name`` in a fresh interpreter and check it there.

    Raises:
        CannotRunError: the target cannot be loaded, built or called, crashes or takes too long.
    """
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
            raise CannotRunError(_too_slow(target, timeout, _stage(folder))) from None
        finally:
            _kill(process)
        result = folder / "result"
        if not result.is_file():
            raise CannotRunError(_crashed(target, code, _stage(folder)))
        return read_outcome(json.loads(result.read_text()))


def check_object(target: Any, options: Options, name: str, timeout: float = TIMEOUT) -> Report:
    """Check an object of this process: in a forked child, or here where the platform cannot fork safely.

    Raises:
        CannotRunError: the target cannot be built or called, crashes or takes too long.
    """
    from normkit.checking.run import examine

    target = _on_cpu(target)
    if not sys.platform.startswith("linux"):
        return examine(target, options, name=name)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, target, options, name), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads: the child starts none
        process.start()
    sender.close()
    stage = "starting"
    try:
        while receiver.poll(timeout):
            kind, value = receiver.recv()
            if kind == "outcome":
                return read_outcome(value)
            stage = value
        raise CannotRunError(_too_slow(name, timeout, stage))
    except EOFError:
        process.join()
        raise CannotRunError(_crashed(name, process.exitcode or 0, stage)) from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _child(sender: Connection, target: Any, options: Options, name: str) -> None:
    from normkit.checking.run import examine
    from normkit.checking.worker import capturing, outcome

    def progress(stage: str) -> None:
        sender.send(("stage", stage))

    with capturing():
        result = outcome(lambda: examine(target, options, name=name, progress=progress))
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


def read_outcome(result: dict[str, Any]) -> Report:
    """The report out of what another process sent.

    Raises:
        CannotRunError: the target could not be run.
        RuntimeError: normkit itself failed there.
    """
    if "report" in result:
        return Report.from_dict(result["report"])
    if "cannot_run" in result:
        raise CannotRunError(result["cannot_run"])
    raise RuntimeError(f"normkit's own code failed while checking; please report it:\n{result['bug']}")


def _stage(folder: Path) -> str:
    stage = folder / "stage"
    return stage.read_text() if stage.is_file() else "starting"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and whatever it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _too_slow(name: str, timeout: float, stage: str) -> str:
    return (
        f"{name} did not finish within {timeout:g} s; it was stopped while {stage}. If it is slow rather than stuck, "
        'give --timeout SECONDS; if importing it trains a model, put that under if __name__ == "__main__":'
    )


def _crashed(name: str, code: int, stage: str) -> str:
    if code < 0:
        how = f"crashed the process with {signal.Signals(-code).name}"
    else:
        how = f"ended the process with exit status {code}"
    return f"{name} {how} while {stage}"
