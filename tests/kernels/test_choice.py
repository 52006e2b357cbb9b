"""Which back end runs, why, and how one is forced."""

import sys
import threading

import pytest
import torch

import normkit
from normkit.backends import NAMES, choose, first_look, use_backend
from normkit.backends.crossover import FEW, LEAST, crossover
from normkit.backends.eager import HALF
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
        choose(LARGE, norm="batch")


def test_reasons_are_sentences() -> None:
    reasons = [choose(x).reason for x in (LARGE, LARGE[:, :9], *(x for x, _ in IMPOSSIBLE.values() if x.numel()))]
    with torch.autocast("cpu", torch.bfloat16):
        reasons.append(choose(LARGE).reason)
    reasons.append(choose(LARGE, LARGE[0].double()).reason)
    assert len(set(reasons)) == len(reasons)
    assert [reason for reason in reasons if len(reason.split()) < 4 or "None" in reason] == []


NORMS = {
    "batch": Norm("batch"),
    "bounded": Norm("batch", bounds=(0.0, 6.0)),
    "layer": Norm("layer", normalized_shape=(256,)),
    "rms": Norm("layer", centred=False, normalized_shape=(256,)),
    "group": Norm("group"),
    "instance": Norm("instance"),
    "channel": Norm("channel"),
}


def least_of(name: str, dtype: torch.dtype) -> int:
    field = {"bounded": "batch", "layer": "layer_half" if dtype in HALF else "layer"}.get(name, name)
    least: int = getattr(LEAST, field)
    return least


@pytest.mark.parametrize("use_input_stats", [True, False], ids=["own statistics", "running ones"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_small_inputs_are_left_to_torch(
    name: str, dtype: torch.dtype, channels_last: bool, use_input_stats: bool
) -> None:
    norm, running = NORMS[name], not use_input_stats
    size = crossover(norm, dtype, 4, channels_last, 2 if channels_last else 1, running, use_input_stats)
    for short, backend in ((512, "aten"), (0, "numba")):
        x = torch.empty(2, 1, size // 512 - short // 512, 256, dtype=dtype)
        if channels_last:
            x = torch.empty(2, 2, size // 1024 - short // 512, 256, dtype=dtype, memory_format=torch.channels_last)
        assert choose(x, norm=norm, running=running, use_input_stats=use_input_stats).name == backend
        if norm.kind != "instance" or not running:  # which this is not asked for
            look = first_look(x, least_of(name, dtype), norm, use_input_stats)
            assert look in (backend, None if backend == "aten" and channels_last else backend)


@pytest.mark.parametrize(
    ("dtype", "use_input_stats", "backend"),
    [
        (torch.float32, False, "aten"),
        (torch.float32, True, "numba"),
        (torch.bfloat16, False, "numba"),
    ],
)
def test_an_evaluation_reads_scattered_channels_where_they_are(
    dtype: torch.dtype, use_input_stats: bool, backend: str
) -> None:
    norm = Norm("batch")
    x = torch.empty(64, 500, 128, dtype=dtype).transpose(1, 2)
    assert choose(x, norm=norm, running=True, use_input_stats=use_input_stats).name == backend
    assert first_look(x, LEAST.batch, norm, use_input_stats) == backend
    assert choose(x.contiguous(), norm=norm, running=True, use_input_stats=use_input_stats).name == "numba"


@pytest.mark.parametrize("large", [False, True])
def test_many_channels_last_are_trained_earlier_where_a_core_has_a_large_cache(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[crossover.__module__], "has_large_l2", lambda: large)
    x = torch.empty(8, 256, 16, 16, memory_format=torch.channels_last)
    crossover.cache_clear()
    found = [choose(x).name, choose(x, running=True, use_input_stats=False).name]
    crossover.cache_clear()
    assert found == ["numba" if large else "aten", "aten"]


@pytest.mark.parametrize("name", NORMS)
def test_no_kernel_takes_less_than_the_least(name: str) -> None:
    sizes = [
        (crossover(NORMS[name], dtype, axes, channels_last, channels, running, use_input_stats), least_of(name, dtype))
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
        for axes, channels_last in ((2, False), (3, False), (4, False), (4, True), (5, True))
        for channels in (1, FEW - 1, FEW, 1024)
        for running in (False, True)
        for use_input_stats in (False, True)
    ]
    assert min(size - least for size, least in sizes) == 0
    assert max(sizes)[0] <= 1 << 24


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
        normkit.use_backend("eager")
        thread = threading.Thread(target=lambda: found.append(choose(LARGE).name))
        thread.start()
        thread.join()
        with use_backend("aten"):
            found.append(choose(LARGE).name)
        found.append(choose(LARGE).name)
    finally:
        normkit.use_backend("auto")
    assert [*found, choose(LARGE).name] == ["eager", "aten", "eager", "numba"]


def test_a_block_holds_in_its_own_thread_only() -> None:
    found = []
    with use_backend("eager"):
        thread = threading.Thread(target=lambda: found.append(choose(LARGE).name))
        thread.start()
        thread.join()
    assert found == ["numba"]


def test_blocks_of_threads_that_overlap_leave_nothing_behind() -> None:
    first, second = use_backend("eager"), use_backend("aten")  # both made before either is entered
    with first:
        pass
    with second:
        pass
    assert choose(LARGE).name == "numba"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"expected a back end .*got 'cuda'") as caught:
        use_backend("cuda")
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
