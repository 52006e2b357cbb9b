"""What is read of the sizes of caches, and another processor than this one."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from normkit.backends import processor
from tests.documents.blocks import ROOT


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


STEP = """
import hashlib, torch, normkit
torch.manual_seed(0)
bits = hashlib.sha256()
with normkit.use_backend("numba"):
    for layout in (torch.contiguous_format, torch.channels_last):
        x = (torch.randn(6, 5, 23, 23) + 100).to(memory_format=layout).requires_grad_()
        layer = normkit.BatchNorm2d(5)
        y = layer(x)
        y.backward(torch.randn_like(y))
        for tensor in (y, x.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var):
            bits.update(tensor.detach().contiguous().numpy().tobytes())
print(bits.hexdigest())
"""


@pytest.mark.slow
def test_the_processor_that_the_docs_name_gives_the_same_bits(tmp_path: Path) -> None:
    line = re.search(r"^ENV (NUMBA_CPU_NAME=.*)$", (ROOT / "docs" / "production.md").read_text(), re.MULTILINE)
    assert line is not None
    named = dict(setting.split("=") for setting in line[1].split())
    if platform.machine() != "x86_64" or not all(
        processor.has(feature[1:]) for feature in named["NUMBA_CPU_FEATURES"].split(",")
    ):
        pytest.skip("this processor cannot stand in for it")
    printed = set()
    for settings in ({}, named):
        environment = {**os.environ, **settings}
        done = subprocess.run(
            [sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        printed.add(done.stdout)
    assert len(printed) == 1
