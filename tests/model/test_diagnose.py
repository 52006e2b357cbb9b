"""Faults planted into trained networks: each is named first, and what is recommended closes the gap."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.model.preserve import set_mode
from tests.model.patients import (
    Batches,
    Patient,
    accuracy,
    averaged,
    checkpointed,
    data,
    dead_channels,
    domain_shift,
    healthy,
    inverted_momentum,
    large_eps,
    momentum,
    nan_channel,
    norms,
    one_domain_each,
    padded,
    seeded,
    shared_layer,
    small_batches,
    sorted_data,
    stale,
    train,
    training_batches,
)


def gap(model: nn.Module, batches: Batches) -> float:
    """How far evaluation is from training form, by plain torch: in standard deviations of the outputs."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        evaluated = torch.cat([model(x) for x, _ in batches])
        for norm in norms(model):
            set_mode(norm, training=True)
        trained = torch.cat([model(x) for x, _ in batches])
    return float((evaluated - trained).square().mean().sqrt() / trained.std(correction=0))


class Planted(NamedTuple):
    """A fault.

    Args:
        build: Makes the network and the data.
        code: What is to be named first.
        mends: Whether a call closes the gap that it makes.
        change: What its data are that it is to name as rightly, once mended, as by the statistics of the data
            themselves; None: it has never learned to.
    """

    build: Callable[[], Patient]
    code: str
    mends: bool = False
    change: Callable[[Tensor], Tensor] | None = None


def as_it_is(x: Tensor) -> Tensor:
    return x


PLANTED = {
    "statistics of an earlier epoch": Planted(stale, "stale-statistics", True, as_it_is),
    "momentum 0.001": Planted(partial(momentum, 0.001), "stale-statistics", True, as_it_is),
    "momentum 0.99": Planted(partial(momentum, 0.99), "momentum-inverted", True, as_it_is),
    "momentum inverted by hand": Planted(inverted_momentum, "momentum-inverted", True, as_it_is),
    "momentum 0": Planted(partial(momentum, 0.0), "momentum-zero", True, as_it_is),
    "averaged weights": Planted(averaged, "never-updated", True, as_it_is),
    "another domain": Planted(domain_shift, "domain-shift", True, lambda x: 3 * x),
    "a channel is NaN": Planted(nan_channel, "nonfinite-statistics", True, as_it_is),
    "batches of two": Planted(partial(small_batches, 2), "few-samples", True),
    "batches of one": Planted(partial(small_batches, 1), "few-samples", True),
    "sorted data": Planted(sorted_data, "sorted-batches"),
    "one domain a batch": Planted(one_domain_each, "sorted-batches"),
    "a layer for two distributions": Planted(shared_layer, "shared-layer"),
    "checkpointing": Planted(partial(checkpointed, use_reentrant=False), "updated-twice"),
    "reentrant checkpointing": Planted(partial(checkpointed, use_reentrant=True), "updated-twice"),
    "eps": Planted(large_eps, "large-eps"),
    "dead channels": Planted(dead_channels, "dead-channels"),
    "padding": Planted(padded, "padding"),
}


FAST = {"statistics of an earlier epoch", "momentum inverted by hand", "another domain", "sorted data", "padding"}


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=() if fault in FAST else pytest.mark.slow) for fault in PLANTED]
)
def test_a_planted_fault_is_named_first_and_the_call_mends_it(fault: str) -> None:
    build, code, mends, change = PLANTED[fault]
    model, batches = build()
    found = normkit.diagnose(model, batches)
    assert [finding.code for finding in found.findings][:1] == [code], found
    assert found.gap == pytest.approx(gap(model, batches), rel=0.02) or math.isinf(found.gap)
    call = found.findings[0].call
    if not mends:
        return
    assert call is not None
    before, learned = gap(model, batches), accuracy(model, change or as_it_is, by_batch=True)
    exec(call, {"normkit": normkit, "model": model, "data": batches})
    left, least = gap(model, batches), gap(healthy(), data())
    assert left <= least or (before - left) / (before - least) >= 0.95
    assert not left >= before
    if change is not None:
        assert accuracy(model, change) >= learned - 0.02


def test_a_right_eps_closes_the_gap_that_another_made() -> None:
    model, batches = large_eps()
    first = normkit.diagnose(model, batches).findings[0]
    before, least = gap(model, batches), gap(healthy(), data())
    for norm in norms(model):
        norm.eps = 1e-5
    assert first.share is not None
    assert first.share > 0.95
    assert (before - gap(model, batches)) / (before - least) > 0.95


def test_shuffled_data_close_the_gap_that_sorted_ones_make() -> None:
    assert normkit.diagnose(sorted_data()[0], data()).healthy


def test_a_second_run_that_stores_nothing_is_no_fault() -> None:
    model = seeded(use_reentrant=False)

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), normkit.no_stats_update(model)

    model.checkpointing["context_fn"] = contexts
    assert normkit.diagnose(train(model), data()).healthy


@pytest.mark.parametrize("size", [8, 16, 32, 128])
def test_a_healthy_network_gets_nothing(size: int) -> None:
    found = normkit.diagnose(healthy(), training_batches(size, seed=7))
    assert found.healthy, found
    assert str(found).startswith("diagnose: healthy (5 layers")


@pytest.mark.parametrize(("epochs", "lr", "size"), [(4, 0.01, 64), (6, 0.1, 64), (3, 0.02, 16), (2, 0.02, 8)])
def test_other_healthy_trainings_get_nothing(epochs: int, lr: float, size: int) -> None:
    model = train(seeded(), lambda epoch: training_batches(size, seed=epoch), epochs=epochs, lr=lr)
    found = normkit.diagnose(model, training_batches(size, seed=99))
    assert found.healthy, found


def test_a_frozen_network_gets_nothing() -> None:
    model = healthy()
    normkit.freeze(model)
    found = normkit.diagnose(model, domain_shift()[1])
    assert (found.findings, found.gap) == ((), 0.0)


def test_calls_are_recommended_that_exist() -> None:
    from normkit.model.diagnose.rules import RULES

    for rule in RULES:
        for text in (rule.call or "", rule.advice):
            for name in (part.split("(")[0] for part in text.split("normkit.")[1:]):
                assert hasattr(normkit, name), (rule.code, name)
