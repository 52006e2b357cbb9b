"""What all commands print alike."""

import math
from pathlib import Path

import pytest

from normkit.cli import console

CLI = Path(console.__file__).parent


def test_json_is_one_line_that_every_reader_takes(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"gap": math.nan, "layers": [{"shift": math.inf}, (1.5, -math.inf)], "name": "é"})
    assert capsys.readouterr().out == '{"gap": null, "layers": [{"shift": null}, [1.5, null]], "name": "\\u00e9"}\n'


def test_every_command_prints_json_so() -> None:
    assert [file.name for file in sorted(CLI.glob("*.py")) if "json.dumps" in file.read_text()] == ["console.py"]
