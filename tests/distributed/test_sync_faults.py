"""Ranks that disagree, stay away or die: an error on the others within the group's timeout, and never a hang."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

import normkit
from tests.distributed.ranks import run

TIMEOUT = 1.0
WAIT = 100.0  # how long a rank that stays away is there for the other; its patience ends in an error of the test
APART = {"other_channels": (3, 5), "other_wide_channels": (3, 2000), "two_wide_channels": (1500, 5000)}


def said(function: Callable[[], Any]) -> str:
    """The error that a function raises."""
    try:
        function()
    except (RuntimeError, ValueError) as error:
        return str(error)
    return "no error"


def stay_away(rank: int, name: str, other: Callable[[Any], Any], away: Callable[[Any], Any]) -> str:
    """Rank 0 does one thing, and rank 1 another that takes no part in it, then waits until rank 0 has its answer."""
    store = distributed.distributed_c10d._get_default_store()
    group = distributed.new_group([0, 1], timeout=timedelta(seconds=TIMEOUT), backend="gloo")
    if rank == 1:
        away(group)
        store.wait([name], timedelta(seconds=WAIT))
        return ""
    message = said(lambda: other(group))
    store.set(name, "answered")
    return message


def forward(group: Any) -> Tensor:
    """A forward pass of a layer of the group."""
    result: Tensor = normkit.SyncBatchNorm(3, process_group=group)(torch.randn(4, 3, requires_grad=True))
    return result


def does_not_call(rank: int) -> str:
    """Rank 1 does not reach the layer."""
    return stay_away(rank, "forward", forward, lambda group: None)


def evaluates(rank: int) -> str:
    """Rank 1 has the layer in evaluation mode."""
    layer = normkit.SyncBatchNorm(3).eval()
    return stay_away(rank, "evaluation", forward, lambda group: layer(torch.randn(4, 3)))


def skips_backward(rank: int) -> str:
    """Rank 1 takes no backward pass."""
    return stay_away(rank, "backward", lambda group: forward(group).sum().backward(), forward)


def channels_apart(rank: int, name: str) -> list[str]:
    """Other channels on each rank; the layer after it, of the same group, works."""
    group = distributed.new_group([0, 1])
    channels = APART[name][rank]
    layer = normkit.SyncBatchNorm(channels, process_group=group)
    return [said(lambda: layer(torch.randn(4, channels))), said(lambda: forward(group))]


class Refused(NamedTuple):
    """A call that cannot be meant."""

    shape: tuple[int, ...] = (8, 4, 3, 3)
    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = {}  # noqa: RUF012
    layer_dtype: torch.dtype = torch.float32
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    message: str = ""


@contextmanager
def forced_under_autocast() -> Iterator[None]:
    """A back end that is forced where it cannot work."""
    with torch.autocast("cpu"), normkit.use_backend("numba"):
        yield


REFUSED = {
    "channels": Refused((8, 64, 3, 3), message="expected weight of shape (64,)"),
    "channels, kernels": Refused((8, 64, 40, 40), message="expected weight of shape (64,)"),
    "channels, no running statistics": Refused(
        (8, 64, 40, 40), options={"track_running_stats": False}, message="expected weight of shape (64,)"
    ),
    "channels, no weight": Refused((8, 64, 3, 3), options={"affine": False}, message="expected running_mean of shape"),
    "eps": Refused(options={"eps": 0.0}, message="eps must be positive"),
    "integers": Refused(dtype=torch.int64, message="a floating-point type"),
    "dtype": Refused(
        layer_dtype=torch.float64,
        options={"track_running_stats": False},
        message="expected weight of the type of the input",
    ),
    "forced back end": Refused(context=forced_under_autocast, message="the numba back end was forced, but autocast"),
}


def refuses(rank: int, name: str) -> dict[str, Any]:
    """A call that every rank refuses, then one that rank 1 alone does; the layer after it, of the same group, works."""
    case = REFUSED[name]
    group = distributed.new_group([0, 1])
    layer: Any = normkit.SyncBatchNorm(4, process_group=group, **case.options).to(case.layer_dtype)
    good: Any = normkit.SyncBatchNorm(4, process_group=group)
    before = [value.clone() for value in (*layer.buffers(), *good.buffers())]
    bad = torch.ones(case.shape).to(case.dtype)

    def call_badly() -> None:
        with case.context():
            layer(bad)

    said_by_all = said(call_badly)
    said_of_one = said(call_badly if rank else lambda: good(torch.randn(8, 4, 3, 3)))
    after = [*layer.buffers(), *good.buffers()]
    return {
        "all": said_by_all,
        "one": said_of_one,
        "unchanged": all(map(torch.equal, before, after)),
        "after": said(lambda: good(torch.randn(8, 4, 3, 3))),
    }


def types_apart(rank: int) -> dict[str, Tensor]:
    """float64 on one rank, bfloat16 of another length on the other."""
    layer = normkit.SyncBatchNorm(3, dtype=torch.float32 if rank else torch.float64)
    x = share(rank).requires_grad_()
    y = layer(x)
    y.backward(torch.ones_like(y))
    return {"y": y.detach(), "dbias": layer.bias.grad, "running_var": layer.running_var}


def share(rank: int) -> Tensor:
    """A rank's part of a batch: another type, another number of axes, the same channels."""
    x = torch.randn((4, 3) if rank else (2, 3, 5), generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    return x.bfloat16() if rank else x


def nonfinite(rank: int) -> list[Any]:
    """NaN on one rank is NaN on all, and skip_nonfinite keeps it out of all running statistics."""
    layer: Any = normkit.SyncBatchNorm(3)
    x = torch.randn(4, 3)
    if rank == 1:
        x[0, 0] = float("nan")
    with normkit.skip_nonfinite(layer) as guard:
        y = layer(x)
    return [bool(y[:, 0].isnan().all()), bool(y[:, 1:].isfinite().all()), guard.skipped, layer.running_mean.tolist()]


def on_rank(rank: int) -> dict[str, Any]:
    """All of it, in groups that break one after the other."""
    functions = (does_not_call, evaluates, skips_backward, types_apart, nonfinite)
    found = {name: channels_apart(rank, name) for name in APART} | {
        f"refused {name}": refuses(rank, name) for name in REFUSED
    }
    return found | {each.__name__: each(rank) for each in functions}


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    """What each rank found."""
    return run(on_rank, 2)


@pytest.mark.parametrize("name", ["does_not_call", "evaluates", "skips_backward"])
def test_a_rank_that_stays_away_is_an_error_within_the_timeout(name: str, found: list[dict[str, Any]]) -> None:
    message = found[0][name]
    assert "SyncBatchNorm on rank 0 of 2 could not share its statistics" in message
    assert "not called this layer" in message
    assert f"{1000 * TIMEOUT:.0f}ms" in message  # what ended it is the group's own timeout


@pytest.mark.parametrize("name", APART)
def test_other_channels_are_named_on_all_ranks_and_the_group_lives_on(name: str, found: list[dict[str, Any]]) -> None:
    for rank in range(2):
        message, after = found[rank][name]
        assert f"channels on all ranks; got {list(APART[name])}" in message
        assert after == "no error"


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_a_rank_refuses_is_an_error_on_all_and_changes_nothing(
    name: str, found: list[dict[str, Any]]
) -> None:
    first, second = (each[f"refused {name}"] for each in found)
    for message in (first["all"], second["all"], second["one"]):
        assert REFUSED[name].message in message
    assert "rank 0 of 2 has nobody to share its statistics with: ranks [1] refused their inputs" in first["one"]
    assert all(each["unchanged"] and each["after"] == "no error" for each in (first, second))


def test_other_types_and_axes_share_statistics_all_the_same(found: list[dict[str, Any]]) -> None:
    layer = nn.BatchNorm1d(3).double()
    first, second = (share(rank).double() for rank in range(2))
    whole = torch.cat([first.movedim(1, -1).reshape(-1, 3), second])
    expected = layer(whole).detach()
    a, b = (each["types_apart"] for each in found)
    # the rank with a half type takes its moments in float32
    torch.testing.assert_close(a["y"].movedim(1, -1).reshape(-1, 3), expected[:10], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(b["y"].double(), expected[10:], rtol=1e-2, atol=1e-2)
    assert (a["y"].dtype, b["y"].dtype) == (torch.float64, torch.bfloat16)
    for each, count in ((a, 10.0), (b, 4.0)):
        torch.testing.assert_close(each["dbias"].double(), torch.full((3,), count, dtype=torch.float64))
        torch.testing.assert_close(each["running_var"].double(), layer.running_var, rtol=1e-6, atol=1e-6)


def test_a_number_that_is_not_finite_on_one_rank_is_seen_on_all(found: list[dict[str, Any]]) -> None:
    assert [each["nonfinite"] for each in found] == [[True, True, {"": 1}, [0.0, 0.0, 0.0]]] * 2


def dies(rank: int, folder: str) -> None:
    """Rank 1 is killed between two calls of the layer."""
    torch.set_num_threads(1)
    timeout = timedelta(seconds=WAIT)
    distributed.init_process_group("gloo", f"file://{folder}/meet", timeout, world_size=2, rank=rank)
    layer = normkit.SyncBatchNorm(3)
    layer(torch.randn(4, 3))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    (Path(folder) / "said").write_text(said(lambda: layer(torch.randn(4, 3))))
    os._exit(0)  # the usual exit waits for threads of gloo, which may abort the process where a peer is gone


def test_a_rank_that_is_killed_is_an_error_on_the_others(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=dies, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT)
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL]
    assert "could not share its statistics: has another rank stopped" in (tmp_path / "said").read_text()
