"""What is read of the sizes of caches."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from normkit.backends import processor


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    for answer in (processor.has_large_l2, processor.interleave_bytes):
        answer.cache_clear()
    yield
    for answer in (processor.has_large_l2, processor.interleave_bytes):
        answer.cache_clear()


@pytest.mark.parametrize(
    ("reported", "held"),
    [
        ("2048K\n", 1 << 20),
        ("3072K\n", 3 << 19),
        ("1024K\n", processor.SHARED_CACHE_BYTES),
        ("", processor.SHARED_CACHE_BYTES),
        ("2M", processor.SHARED_CACHE_BYTES),
    ],
)
def test_half_of_a_large_cache_of_its_own(
    reported: str, held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "size").write_text(reported)
    monkeypatch.setattr(processor, "_L2_SIZE", tmp_path / "size")
    assert processor.interleave_bytes() == held


def test_where_nothing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_L2_SIZE", tmp_path / "missing")
    assert processor.interleave_bytes() == processor.SHARED_CACHE_BYTES


def test_sizes_of_caches_need_no_compiler() -> None:
    code = "import sys, normkit.backends.processor as p; p.interleave_bytes(); print('llvmlite' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "False", done.stderr
