"""Which back end runs, why, and how one is forced."""

import threading

import pytest
import torch

import normkit
from normkit.backends import NAMES, choose, first_look, use_backend
from normkit.backends.crossover import SMALLEST, crossover
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


def test_reasons_are_sentences() -> None:
    reasons = [choose(x).reason for x in (LARGE, LARGE[:, :9], *(x for x, _ in IMPOSSIBLE.values() if x.numel()))]
    with torch.autocast("cpu", torch.bfloat16):
        reasons.append(choose(LARGE).reason)
    reasons.append(choose(LARGE, LARGE[0].double()).reason)
    assert len(set(reasons)) == len(reasons)
    assert [reason for reason in reasons if len(reason.split()) < 4 or "None" in reason] == []


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["batch", "layer", "group", "instance", "channel"])
def test_small_inputs_are_left_to_torch(kind: str, dtype: torch.dtype, channels_last: bool) -> None:
    norm = Norm(kind, num_groups=1, normalized_shape=(256,))
    size = crossover(norm, dtype, 4, channels_last, 2 if channels_last else 1)
    assert SMALLEST <= size <= 1 << 24
    for fraction, name in ((2, "aten"), (1, "numba")):
        x = torch.empty(2, 1, size // fraction // 512, 256, dtype=dtype)
        if channels_last:
            x = torch.empty(2, 2, size // fraction // 1024, 256, dtype=dtype, memory_format=torch.channels_last)
        assert choose(x, norm=norm).name == name
        assert first_look(x, norm) in (name, None if name == "aten" and channels_last else name)


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
