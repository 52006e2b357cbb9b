"""Which back end runs, why, and how one is forced."""

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import normkit
from normkit.backends import NAMES, choose, eligibility, set_backend, use_backend
from normkit.backends.eligibility import MANY_CHANNELS, MIN_NUMEL, NEVER, THRESHOLDS, Traits, min_numel
from normkit.spec import Norm

LARGE = torch.ones(2, 1 << 21)  # of the size from which on batches of vectors get a kernel


class Subclass(torch.Tensor):
    """A tensor with rules of its own."""


IMPOSSIBLE = {
    "meta": (LARGE.to("meta"), "meta"),
    "dtype": (LARGE.to(torch.complex64), "not torch.complex64"),
    "sparse": (LARGE.to_sparse(), "dense"),
    "subclass": (LARGE.as_subclass(Subclass), "Subclass"),
    "empty": (LARGE[:0], "empty"),
}
every_impossible = pytest.mark.parametrize(("x", "why"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)


@every_impossible
def test_an_impossible_input_gets_another_back_end(x: torch.Tensor, why: str) -> None:
    name, reason = choose(x)
    assert name == "aten"
    assert why in reason or (x.numel() == 0 and reason.startswith("fewer"))


@every_impossible
def test_forcing_the_kernels_on_it_says_why_not(x: torch.Tensor, why: str) -> None:
    with use_backend("numba"), pytest.raises(RuntimeError, match=f"numba back end was forced, but .*{why}"):
        choose(x)


def test_a_norm_that_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"expected a normkit\.spec\.Norm, such as .* got 'batch'"):
        choose(LARGE, norm="batch")  # type: ignore[arg-type]


def test_an_array_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"expected a torch\.Tensor; got ndarray: torch\.from_numpy"):
        choose(LARGE.numpy())  # type: ignore[arg-type]


def test_reasons_are_sentences() -> None:
    reasons = [choose(x).reason for x in (LARGE, LARGE[:, :9], *(x for x, _ in IMPOSSIBLE.values() if x.numel()))]
    with torch.autocast("cpu", torch.bfloat16):
        reasons.append(choose(LARGE).reason)
    reasons.append(choose(LARGE, LARGE[0].double()).reason)
    assert len(set(reasons)) == len(reasons)
    assert [reason for reason in reasons if len(reason.split()) < 4 or "None" in reason] == []


NORMS: dict[str, tuple[Norm, tuple[float, float] | None]] = {
    "batch": (Norm("batch"), None),
    "bounded": (Norm("batch"), (0.0, 6.0)),
    "layer": (Norm("layer", normalized_shape=(256,)), None),
    "rms": (Norm("layer", subtract_mean=False, normalized_shape=(256,)), None),
    "group": (Norm("group"), None),
    "instance": (Norm("instance"), None),
    "channel": (Norm("channel"), None),
}


@pytest.mark.parametrize("use_input_stats", [True, False], ids=["own statistics", "running ones"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_small_inputs_are_left_to_torch(
    name: str, dtype: torch.dtype, channels_last: bool, use_input_stats: bool
) -> None:
    (norm, bounds), running = NORMS[name], not use_input_stats
    channels = 2 if channels_last else 1
    size = min_numel(Traits(norm, dtype, 4, channels_last, channels, running, use_input_stats, bounds is not None))
    for short, backend in ((512, "aten"), (0, "numba")):
        x = torch.empty(2, 1, size // 512 - short // 512, 256, dtype=dtype)
        if channels_last:
            x = torch.empty(2, 2, size // 1024 - short // 512, 256, dtype=dtype, memory_format=torch.channels_last)
        assert choose(x, None, None, norm, running, use_input_stats, bounds).name == backend


@pytest.mark.parametrize(
    ("dtype", "use_input_stats", "backend"),
    [
        (torch.float32, False, "aten"),
        (torch.float32, True, "numba"),
        (torch.bfloat16, False, "numba"),
    ],
)
def test_an_evaluation_reads_transposed_channels_where_they_are(
    dtype: torch.dtype, use_input_stats: bool, backend: str
) -> None:
    x = torch.empty(64, 500, 128, dtype=dtype).transpose(1, 2)
    assert choose(x, running=True, use_input_stats=use_input_stats).name == backend
    assert choose(x.contiguous(), running=True, use_input_stats=use_input_stats).name == "numba"


@pytest.mark.parametrize("large", [False, True])
def test_many_channels_last_are_trained_earlier_where_a_core_has_a_large_cache(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eligibility, "has_large_l2", lambda: large)
    x = torch.empty(8, 256, 16, 16, memory_format=torch.channels_last)
    min_numel.cache_clear()
    found = [choose(x).name, choose(x, running=True, use_input_stats=False).name]
    min_numel.cache_clear()
    assert found == ["numba" if large else "aten", "aten"]


@pytest.mark.parametrize("large", [False, True])
def test_each_threshold_applies_to_something(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eligibility, "has_large_l2", lambda: large)
    min_numel.cache_clear()
    found = {
        min_numel(Traits(norm, dtype, axes, last, channels, running, own, bounds is not None, transposed))
        for norm, bounds in NORMS.values()
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
        for axes, last, transposed in ((2, False, False), (3, False, False), (3, False, True), (4, True, False))
        for channels in (1, MANY_CHANNELS - 1, MANY_CHANNELS, 1024)
        for running in (False, True)
        for own in (False, True)
    }
    min_numel.cache_clear()
    assert min(found) == MIN_NUMEL
    assert found <= {threshold.min_numel for threshold in THRESHOLDS}
    expected = {(1 << 18) if large else (1 << 21), NEVER, 1 << 14, 1 << 16, 3 << 20, 1 << 23}
    assert expected <= found


def test_the_documents_show_the_table_of_thresholds() -> None:
    text = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
    shown = re.findall(
        r"^\| (batch|instance|group|channel|rms|layer)([a-z, ]*) \| (.*?) \| ([\d,]+|never) \|$", text, re.M
    )
    expected = [
        (", ".join(row.norms), row.case or "else", "never" if row.min_numel == NEVER else f"{row.min_numel:,}")
        for row in THRESHOLDS
    ]
    assert [(first + rest, case, size) for first, rest, case, size in shown] == expected


def ran(x: torch.Tensor) -> str:
    """Which back end a batch norm of it runs in, as its graph tells."""
    y = normkit.functional.batch_norm(x.requires_grad_(), None, None, training=True)
    return "numba" if "Normalize" in type(y.grad_fn).__name__ else "aten"


@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 5, 5)])
def test_deterministic_algorithms_choose_kernels_at_every_size(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert (choose(x).name, ran(x)) == ("aten", "aten")
    torch.use_deterministic_algorithms(True)
    try:
        chosen = choose(x)
        assert (chosen.name, ran(x)) == ("numba", "numba")
        assert "use_deterministic_algorithms" in chosen.reason
        with use_backend("aten"):
            assert choose(x).name == "aten"
        assert choose(x.to(torch.complex64)).name == "aten"
    finally:
        torch.use_deterministic_algorithms(False)


def test_blocks_nest_and_end() -> None:
    found = [choose(LARGE).name]
    with use_backend("eager"):
        found.append(choose(LARGE).name)
        with use_backend("aten"):
            found.append(choose(LARGE).name)
            with use_backend("auto"):
                found.append(choose(LARGE).name)
        found.append(choose(LARGE).name)
    assert [*found, choose(LARGE).name] == ["numba", "eager", "aten", "numba", "eager", "numba"]


def test_an_error_ends_a_block() -> None:
    with pytest.raises(KeyError), use_backend("eager"):
        raise KeyError
    assert choose(LARGE).name == "numba"


def test_a_setting_of_the_process_holds_in_other_threads() -> None:
    found = []
    try:
        normkit.set_backend("eager")
        thread = threading.Thread(target=lambda: found.append(choose(LARGE).name))
        thread.start()
        thread.join()
        with use_backend("aten"):
            found.append(choose(LARGE).name)
        found.append(choose(LARGE).name)
        with use_backend("auto"):
            found.append(choose(LARGE).name)
    finally:
        normkit.set_backend("auto")
    assert [*found, choose(LARGE).name] == ["eager", "aten", "eager", "numba", "numba"]


def test_a_block_holds_in_its_own_thread_only() -> None:
    found = []
    with use_backend("eager"):
        thread = threading.Thread(target=lambda: found.append(choose(LARGE).name))
        thread.start()
        thread.join()
    assert found == ["numba"]


def test_a_block_holds_nowhere_before_it_is_entered() -> None:
    block = use_backend("eager")  # another thread may look now
    before = choose(LARGE).name
    with block:
        inside = choose(LARGE).name
    assert [before, inside, choose(LARGE).name] == ["numba", "eager", "numba"]


def test_a_block_that_is_never_entered_is_told_of() -> None:
    with pytest.warns(RuntimeWarning, match=r"use_backend\('eager'\) .* normkit\.set_backend\('eager'\)"):
        use_backend("eager")


def test_a_backward_pass_on_the_cpu_asks_in_the_thread_that_calls_it() -> None:
    asked = []

    class Ask(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> Tensor:
            asked.append(choose(LARGE).name)
            return dy

    x = torch.randn(3, requires_grad=True)
    with use_backend("eager"):
        Ask.apply(x).sum().backward()
    assert asked == ["eager"]


def test_a_block_in_one_task_does_not_hold_in_another() -> None:
    async def block() -> None:
        with use_backend("eager"):
            await asyncio.sleep(0)

    async def both() -> str:
        task = asyncio.create_task(block())
        await asyncio.sleep(0)  # the other is inside of its block
        found = choose(LARGE).name
        await task
        return found

    assert asyncio.run(both()) == "numba"


@pytest.mark.parametrize("function", [use_backend, set_backend])
def test_an_unknown_name_lists_the_known(function: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match=r"expected a back end .*got 'cuda'") as caught:
        function("cuda")
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize("where", ["x", "dy", "weight"])
def test_a_lazy_negation_is_read_as_what_it_stands_for(where: str) -> None:
    inputs = {"x": torch.randn(8, 4, 9), "dy": torch.randn(8, 4, 9), "weight": torch.randn(4)}
    results = []
    for lazy in (False, True):
        x, dy, weight = (torch._neg_view(t) if lazy and key == where else (-t if key == where else t)
                         for key, t in inputs.items())  # fmt: skip
        x = x.detach().requires_grad_()
        with use_backend("numba"):
            y = normkit.functional.batch_norm(x, None, None, weight, None, True)
        y.backward(dy)
        results.append((y.detach(), x.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
