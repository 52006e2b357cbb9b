"""Attacks on kept kernels: files of others, under wrong names, damaged, in the way, and left by killed processes."""

import contextlib
import itertools
import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normkit.backends import processor
from normkit.backends.numba import kernel_cache, kernel_files

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have neither owner nor mode")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def keep(made: list[str], tmp_path: Path) -> Path:
    """The file of a kernel that was compiled and kept."""
    kernel_cache.find("module")
    (path,) = (tmp_path / "normkit").iterdir()
    return path


@pytest.fixture
def disown(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Give a file to another user; who is not the superuser becomes another one instead."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)

    return give


def refused(made: list[str], caplog: pytest.LogCaptureFixture) -> str:
    """Ask twice for the kernel that is kept: it is compiled in memory, and one warning says why."""
    before = len(made)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "normkit"):
        for _ in range(2):
            assert kernel_cache.find("module")
    assert len(made) == before + 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "NUMBA_CACHE_DIR" in record.getMessage()
    return record.getMessage()


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_nobody_else_can_read_what_is_kept(
    made: list[str], no_umask: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new" / "deeper"))
    kernel_cache.find("module")
    folder = tmp_path / "new" / "deeper" / "normkit"
    assert [mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3
    assert [mode(path) for path in folder.iterdir()] == [0o600]
    kernel_cache.find("module")
    assert len(made) == 1


@pytest.mark.parametrize("writable", [0o602, 0o620])
def test_a_file_that_others_may_write(
    writable: int, made: list[str], keep: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep.chmod(writable)
    before = keep.read_bytes()
    assert f"others may write to {keep} " in refused(made, caplog)
    assert (keep.read_bytes(), mode(keep)) == (before, writable)


@pytest.mark.parametrize("writable", [0o777, 0o1777, 0o770])
def test_a_folder_that_others_may_write_to(
    writable: int, made: list[str], keep: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep.parent.chmod(writable)
    assert f"others may write to {keep.parent} " in refused(made, caplog)
    keep.unlink()
    kernel_cache.find("module")
    assert not keep.exists()  # nor is anything written there


@pytest.mark.parametrize("of_file", [True, False])
def test_what_belongs_to_another_user(
    of_file: bool, made: list[str], keep: Path, disown: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    disown(keep if of_file else keep.parent)
    assert "belongs to user" in refused(made, caplog)


def test_what_the_superuser_has_left_is_used(made: list[str], keep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("it takes the superuser to leave something")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)  # as in an image that was built by root
    kernel_cache.find("module")
    assert len(made) == 1


def test_the_superuser_leaves_nothing_in_the_home_of_another(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if os.geteuid() != 0:
        pytest.skip("it takes the superuser")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, -1)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    assert f"{home} belongs to user 12345" in refused(made, caplog)
    assert list(home.iterdir()) == []


def _link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("put", [_link, _pipe, _folder])
def test_what_is_no_plain_file(
    put: Callable[[Path], None], made: list[str], keep: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(keep)
    refused(made, caplog)


KERNELS = [
    ("runs.forward", np.float32, np.float32, False),
    ("runs.forward", np.float32, np.float32, True),
    ("runs.forward", np.uint16, np.float32, False),
    ("runs.backward", np.float32, np.float32, False),
    ("columns.forward", np.float32, np.float32, False),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: f"{kernel[0]}-{kernel[1].__name__}-{kernel[3]}")
def test_a_file_of_another_kernel_is_compiled_anew(kernel: tuple[Any, ...], made: list[str], tmp_path: Path) -> None:
    files = {}
    for other in [*KERNELS, kernel]:  # which is written last
        shutil.rmtree(tmp_path / "normkit", ignore_errors=True)
        kernel_cache.find(*other)
        (path,) = (tmp_path / "normkit").iterdir()
        files[other] = path.read_bytes()
    whole = files.pop(kernel)
    for content in files.values():  # the code in all of them is the same here
        path.write_bytes(content)
        before = len(made)
        kernel_cache.find(*kernel)
        assert len(made) == before + 1
        assert path.read_bytes() == whole


def test_a_file_of_another_processor_is_compiled_anew(
    made: list[str], keep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "name", lambda: "another")
    kernel_cache.find("module")
    (other,) = set(keep.parent.iterdir()) - {keep}
    shutil.copy(keep, other)
    kernel_cache.find("module")
    assert len(made) == 3


def test_a_file_with_any_bit_flipped_is_compiled_anew(made: list[str], keep: Path) -> None:
    whole = keep.read_bytes()
    for at in (0, 31, 32, len(whole) // 2, len(whole) - 1):
        keep.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        before = len(made)
        kernel_cache.find("module")
        assert len(made) == before + 1, at
        assert keep.read_bytes() == whole


def test_what_killed_processes_have_left_is_removed(made: list[str], keep: Path) -> None:
    old, new = (keep.with_name(f"{keep.name}{name}{kernel_files._PART}") for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    before = time.time() - kernel_files._ABANDONED - 1
    os.utime(old, (before, before))
    kernel_cache.find("module", 1)
    assert not old.exists()
    assert new.exists()  # its writer may be at work


SIZE = 4_000_000  # takes some time


def write_until_killed() -> int:
    """The process id of a child that goes on writing a file."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read(1), "the child cannot write"
        return child
    signal.alarm(60)  # it must not outlive the test
    try:
        for number in itertools.count():
            kernel_files.write("kernel.o", bytes([number % 256]) * SIZE)
            if number == 0:
                os.write(writer, b"!")
    finally:
        os._exit(1)


def test_kills_at_random_moments_leave_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_files, "_ABANDONED", -1.0)  # at once
    folder, halves = kernel_files.prepare(), 0
    for _ in range(10):
        child = write_until_killed()
        time.sleep(random.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        content = kernel_files.read("kernel.o")
        assert content is not None
        assert (len(content), content.count(content[:1])) == (SIZE, SIZE)
        halves += len(list(folder.glob(f"*{kernel_files._PART}")))
        kernel_files.prepare()
        assert [path.name for path in folder.iterdir()] == ["kernel.o"]
    assert halves > 0  # else no kill came at a bad moment


STEP = """
import torch, normkit
x = torch.randn(4, 3, 50, 50, requires_grad=True)
with normkit.use_backend("numba"):
    y = normkit.functional.batch_norm(x, None, None, training=True)
torch.testing.assert_close(y, torch.nn.functional.batch_norm(x, None, None, training=True))
(y * torch.randn_like(y)).sum().backward()
print("right")
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_step_is_right_after_processes_were_killed_in_it(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", STEP], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    began = time.monotonic()
    with start() as process:
        assert process.communicate(timeout=200)[0] == "right\n"
    took = time.monotonic() - began
    for _ in range(2):
        shutil.rmtree(tmp_path / "normkit")
        for _ in range(3):  # each goes on from what the one before has left
            with start() as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=random.uniform(0.3 * took, took))
                process.kill()
        with start() as process:
            out, err = process.communicate(timeout=200)
        assert (process.returncode, out) == (0, "right\n"), err
