"""What is read of the sizes of caches."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from normkit.backends import caches


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    for answer in (caches.own_is_large, caches.together):
        answer.cache_clear()
    yield
    for answer in (caches.own_is_large, caches.together):
        answer.cache_clear()


@pytest.mark.parametrize(
    ("told", "held"),
    [
        ("2048K\n", 1 << 20),
        ("3072K\n", 3 << 19),
        ("1024K\n", caches.SHARED),
        ("", caches.SHARED),
        ("2M", caches.SHARED),
    ],
)
def test_half_of_a_large_cache_of_its_own(
    told: str, held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "size").write_text(told)
    monkeypatch.setattr(caches, "_SECOND", tmp_path / "size")
    assert caches.together() == held


def test_where_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_SECOND", tmp_path / "missing")
    assert caches.together() == caches.SHARED
