"""The process that runs a target: loads it, examines it, writes the report. ``python -m normkit.checking.worker``."""

import ast
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from normkit.checking import surroundings
from normkit.checking.errors import CannotRunError, describe
from normkit.checking.options import Options
from normkit.checking.report import Finding, Report
from normkit.checking.run import Progress, examine
from normkit.checking.target import load


def main(folder: Path) -> None:
    """Read ``request`` in a folder, write ``result`` there, and ``progress`` while at work."""
    request: dict[str, Any] = ast.literal_eval((folder / "request").read_text())

    def progress(stage: str, findings: Sequence[Finding]) -> None:
        fresh = folder / "progress.new"
        fresh.write_text(json.dumps({"stage": stage, "findings": [asdict(finding) for finding in findings]}))
        fresh.replace(folder / "progress")

    with capturing() as printed:
        options = Options(**request["options"])
        result = outcome(lambda: load_and_examine(request["target"], options, progress, printed))
    (folder / "result").write_text(json.dumps(result))
    os._exit(0)  # whatever threads or exit handlers the target left behind do not matter any more


def load_and_examine(target: str, options: Options, progress: Progress, printed: "capturing") -> Report:
    """Import what ``target`` names and check it, in a process that serves nothing else."""
    import torch

    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # the arrays are tiny: compiling is what takes time
    torch.get_rng_state()
    progress("importing it", ())
    before, generators = surroundings.snapshot(), repr(np.random.get_state())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load(target)
    changed = surroundings.changes(before, surroundings.snapshot())
    if repr(np.random.get_state()) != generators and "jax" not in sys.modules:  # importing JAX draws from it
        changed.append("NumPy's random generator was seeded or used")
    return examine(
        loaded,
        options,
        name=target,
        import_changes=tuple(changed),
        import_output=printed.text(),
        isolation="process",
        progress=progress,
    )


def outcome(action: Callable[[], Report]) -> dict[str, Any]:
    """The report as plain data, or the message of what stopped it."""
    try:
        return {"report": action().to_dict()}
    except CannotRunError as error:
        return {"cannot_run": str(error)}
    except BaseException as error:
        if not isinstance(error, Exception):  # KeyboardInterrupt and the like: nothing here raises them
            return {"cannot_run": f"the target raised {describe(error)}"}
        import traceback  # an exception that is not the target's is ours: keep its traceback

        return {"bug": "".join(traceback.format_exception(error))}


class capturing:  # noqa: N801
    """Everything written to standard output and error goes to a file: by print, compiled code or a notebook.

    For a process of its own only: nothing is put back.
    """

    def __enter__(self) -> "capturing":
        self._file = tempfile.TemporaryFile()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number in (1, 2):
            os.dup2(self._file.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        return self

    def text(self) -> str:
        """What was written so far."""
        end = self._file.tell()
        self._file.seek(0)
        written = self._file.read(100_000).decode(errors="replace")
        self._file.seek(end)
        return written

    def __exit__(self, *error: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
