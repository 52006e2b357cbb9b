"""Many targets side by side: what is found in files and folders, what comes of it, and that nothing is left behind."""

import json
import multiprocessing
import textwrap
from pathlib import Path
from typing import Any

import pytest

from normkit.checking.candidates import Candidate, candidates
from normkit.checking.options import Options
from normkit.checking.process import check_targets
from normkit.checking.rules.output import OutputShape
from normkit.checking.summary import Entry, Summary, aligned, check_many

GOOD = """
    import numpy as np
    def layer_norm(x, gamma, beta, eps=1e-5):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return ((x - mean) / np.sqrt(var + eps) * gamma + beta).astype(x.dtype)
"""
BAD = GOOD.replace("np.sqrt(var + eps)", "(np.sqrt(var) + eps)")
CANNOT_BE_JUDGED = """
    import numpy as np
    def layer_norm(x, gamma, beta, eps=1e-5):
        if x.size and np.abs(x).max() > 50:
            raise ValueError("too large")
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return ((x - mean) / np.sqrt(var + eps) * gamma + beta).astype(x.dtype)
"""


def write(folder: Path, **files: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return str(folder)


def run(*given: str, **options: Any) -> Summary:
    return check_many(candidates(given), Options(), **{"jobs": 2, "fork": True, **options})


# What is found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("class BatchNorm2d: ...\nclass Net: ...\ndef main(): ...", ["BatchNorm2d"]),
        ("def batchnorm_forward(x): ...\ndef batchnorm_backward(dy, cache): ...", ["batchnorm_forward"]),
        ("class LayerNorm: ...\nclass RMSNorm: ...", ["LayerNorm", "RMSNorm"]),
        ("class Mine(nn.BatchNorm2d): ...", ["Mine"]),
        ("class MyNorm: ...", ["MyNorm"]),
        ("class MyNorm: ...\ndef normalize_rows(x): ...\ndef layer_norm(x): ...", ["layer_norm"]),
        ("class BatchNormNet: ...\nclass TestBatchNorm: ...\nclass LayerNormLSTM: ...", []),
        ("class BatchNormFunction(torch.autograd.Function): ...\nclass BNTest(unittest.TestCase): ...", []),
        ("def test_batch_norm(): ...\ndef init_layer_norm(size): ...\ndef plot_norms(x): ...", []),
        ("def batch_norm(): ...", []),
        ("class _LayerNorm: ...\nclass LayerNorm(_LayerNorm): ...", ["LayerNorm"]),
        ("class _LayerNorm: ...", ["_LayerNorm"]),
        ("try:\n    import torch\n    class LayerNorm: ...\nexcept ImportError:\n    pass", ["LayerNorm"]),
        ("class LayerNorm: ...\nclass LayerNorm: ...", ["LayerNorm"]),
    ],
)
def test_layers_of_a_file_are_found_by_their_names(tmp_path: Path, text: str, names: list[str]) -> None:
    file = tmp_path / "layers.py"
    file.write_text(text)
    found = candidates([str(file)])
    if names:
        assert found == [Candidate(f"{file}:{name}") for name in names]
    else:
        assert found[0].target == str(file)
        assert found[0].problem.startswith("no name tells of a normalization; it defines ")


def test_files_that_hold_no_layer_are_listed(tmp_path: Path) -> None:
    folder = write(tmp_path / "all", one=GOOD, two="def main(): ...", three="def layer_norm(x:", four="")
    (tmp_path / "all" / "sub").mkdir()
    (tmp_path / "all" / "sub" / "__init__.py").write_text("")
    (tmp_path / "all" / ".hidden").mkdir()
    write(tmp_path / "all" / ".hidden", five=GOOD)
    found = {Path(candidate.target).name: candidate for candidate in candidates([folder])}
    assert list(found) == ["four.py", "one.py:layer_norm", "three.py", "two.py"]
    assert found["four.py"].problem.endswith("it defines nothing")
    assert found["two.py"].problem.endswith("it defines main")
    assert found["three.py"].problem == "SyntaxError: '(' was never closed, line 1"
    assert found["three.py"].unreadable
    assert not any(candidate.named for candidate in found.values())


def test_a_file_or_folder_without_anything(tmp_path: Path) -> None:
    (nowhere, empty) = candidates([str(tmp_path / "nowhere.py"), str(tmp_path)])
    assert "No such file" in nowhere.problem
    assert empty.problem == "the folder holds no Python file"
    assert (nowhere.unreadable, empty.unreadable) == (True, True)


def test_a_name_or_a_module_stays_as_it_is_and_nothing_is_checked_twice(tmp_path: Path) -> None:
    folder = write(tmp_path / "all", one=GOOD)
    given = ["torch.nn:LayerNorm", f"{folder}/one.py:layer_norm", f"{folder}/one.py", folder]
    assert [candidate.target for candidate in candidates(given)] == given[:2]


# What comes of it


def test_each_target_has_a_line(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "all",
        a=GOOD,
        b=BAD,
        c=CANNOT_BE_JUDGED,
        d="import nowhere_at_all\ndef layer_norm(x): ...\ndef rms_norm(x): ...",
        e="import os\ndef layer_norm(x): os.abort()",
        f="def main(): ...",
    )
    seen: list[Entry] = []
    summary = run(folder, done=seen.append)
    lines = {Path(entry.target).name: entry.row() for entry in summary.entries}
    assert lines["a.py:layer_norm"][1:] == ("equivalent", "layer", "0", "0", "")
    assert lines["b.py:layer_norm"][1:] == ("not equivalent", "layer", "1", "0", "eps-misplaced")
    assert lines["c.py:layer_norm"][1:5] == ("not judged", "layer", "0", "0")
    assert "could not be measured" in lines["c.py:layer_norm"][5]
    assert lines["d.py"][1:5] == ("not run", "-", "-", "-")
    assert lines["d.py"][5].startswith("importing it raised ModuleNotFoundError: No module named 'nowhere")
    assert "crashed the process with SIGABRT" in lines["e.py:layer_norm"][5]
    assert lines["f.py"][1:] == ("no layer", "-", "-", "-", "no name tells of a normalization; it defines main")
    assert [Path(entry.target).name[0] for entry in summary.entries] == list("abcdef"), "d.py is said once"
    assert len(seen) == 6, "two layers of d.py were tried"
    expected = {"equivalent": 1, "not equivalent": 1, "not judged": 1, "not run": 2, "no layer": 1}
    assert summary.counts == expected
    assert summary.exit_status == 2
    plain = json.loads(json.dumps(summary.to_dict()))
    assert (plain["counts"], plain["interrupted"]) == (expected, False)
    assert [target["verdict"] for target in plain["targets"]] == [entry.status for entry in summary.entries]
    assert plain["targets"][1]["findings"][0]["code"] == "eps-misplaced"
    assert "SIGABRT" in plain["targets"][4]["error"]
    text = str(summary).splitlines()
    assert len(text) == 1 + 6 + 2
    assert all(line == line.rstrip() for line in text)
    assert text[-1] == "6 targets: 1 equivalent, 1 not equivalent, 1 not judged, 2 not run, 1 no layer."


def test_columns_stand_below_one_another() -> None:
    rows = aligned([("target", "verdict", "why"), ("a.py", "not run", "it failed"), ("longer.py", "equivalent", "")])
    assert rows == [
        ("target     verdict     ", "why"),
        ("a.py       not run     ", "it failed"),
        ("longer.py  equivalent  ", ""),
    ]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["equivalent"], 0),
        (["equivalent", "not equivalent"], 1),
        (["not equivalent", "not judged"], 2),
        (["not run", "not equivalent"], 2),
        (["bug", "not run", "equivalent"], 3),
        ([], 2),
    ],
)
def test_the_highest_exit_status_counts(statuses: list[Any], expected: int) -> None:
    assert Summary(tuple(Entry(str(n), status) for n, status in enumerate(statuses))).exit_status == expected


def test_a_file_without_a_layer_counts_only_where_it_was_named() -> None:
    good, other = Entry("a.py:f", "equivalent"), Entry("b.py", "no layer", named=False)
    assert Summary((good, other)).exit_status == 0
    assert Summary((good, Entry("b.py", "no layer"))).exit_status == 2
    assert Summary((other,)).exit_status == 2, "nothing was checked"


def test_what_hangs_is_stopped_and_what_crashes_beside_it_is_seen_at_once(tmp_path: Path) -> None:
    hangs = "def layer_norm(x):\n    while True: pass"
    folder = write(tmp_path / "all", a=hangs, b="import os\ndef layer_norm(x): os._exit(4)", c=hangs)
    summary = run(folder, timeout=4.0, jobs=3)
    assert [entry.status for entry in summary.entries] == ["not run"] * 3
    first, crashed, last = (entry.error for entry in summary.entries)
    assert "did not finish within 4 s" in first
    assert "did not finish within 4 s" in last
    assert "ended the process with exit status 4" in crashed
    assert multiprocessing.active_children() == []


def test_a_bug_of_ours_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, probe: Any) -> Any:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(OutputShape, "check", fail)
    summary = run(write(tmp_path / "all", a=GOOD))
    (entry,) = summary.entries
    assert (entry.status, summary.exit_status) == ("bug", 3)
    assert "normkit's own code failed while checking output-shape" in entry.row()[5]
    assert entry.to_dict()["bug"] is True


def test_an_interruption_keeps_what_there_is_and_ends_the_rest(tmp_path: Path) -> None:
    def interrupt(entry: Entry) -> None:
        raise KeyboardInterrupt

    hangs = "def layer_norm(x):\n    while True: pass"
    summary = run(write(tmp_path / "all", a=GOOD, b=hangs, c=hangs, d=hangs), done=interrupt)
    assert [entry.status for entry in summary.entries] == ["equivalent", *["interrupted"] * 3]
    assert summary.interrupted
    assert summary.to_dict()["interrupted"] is True
    assert multiprocessing.active_children() == []


def test_fresh_interpreters_do_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path / "all", a=GOOD, b=BAD)
    targets = [f"{folder}/a.py:layer_norm", f"{folder}/b.py:layer_norm"]
    outcomes = dict(check_targets(targets, Options(), jobs=2))
    assert [outcomes[n].verdict for n in (0, 1)] == ["equivalent", "not equivalent"]  # type: ignore[union-attr]
