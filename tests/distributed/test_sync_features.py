"""What people do with a layer, with SyncBatchNorm in a process group: as in one process, or refused in words."""

import copy
import pickle
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrize
from torch.optim import swa_utils
from torch.utils.checkpoint import checkpoint

import normkit
from tests.distributed.ranks import run

DTYPE = torch.float64
FEATURES: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {}
REFUSED: dict[str, Callable[[nn.Module, Tensor], Any]] = {}


def feature(function: Callable[[nn.Module, Tensor], nn.Module]) -> Callable[[nn.Module, Tensor], nn.Module]:
    """Something that is done with a layer and its input, and gives the layer on which a step is compared after it."""
    FEATURES[function.__name__] = function
    return function


def refused(function: Callable[[nn.Module, Tensor], Any]) -> Callable[[nn.Module, Tensor], Any]:
    """Something that cannot be done."""
    REFUSED[function.__name__] = function
    return function


def loss(layer: nn.Module, x: Tensor) -> Tensor:
    """A sum with gradients everywhere."""
    return layer(x).sin().sum()


@feature
def plain(layer: nn.Module, x: Tensor) -> nn.Module:
    """Nothing else."""
    return layer


@feature
def compiled(layer: nn.Module, x: Tensor) -> nn.Module:
    """torch.compile, which breaks its graph at the layer."""
    torch._dynamo.reset()
    graph: Any = torch.compile(nn.Sequential(nn.Identity(), layer), backend="aot_eager")
    return graph


@feature
def copied(layer: nn.Module, x: Tensor) -> nn.Module:
    """deepcopy."""
    return copy.deepcopy(layer)


@feature
def pickled(layer: nn.Module, x: Tensor) -> nn.Module:
    """pickle."""
    return pickle.loads(pickle.dumps(layer))


@feature
def checkpointed(layer: nn.Module, x: Tensor) -> nn.Module:
    """Gradient checkpointing, both kinds: both ranks run the layer again, and its statistics move twice."""
    for reentrant in (False, True):
        checkpoint(layer, x.requires_grad_(), use_reentrant=reentrant).sin().sum().backward()
    return layer


@feature
def checkpointed_once(layer: nn.Module, x: Tensor) -> nn.Module:
    """Gradient checkpointing whose second run stores no statistics."""
    y = checkpoint(
        layer,
        x.requires_grad_(),
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), normkit.no_stats_update(layer)),
    )
    y.sin().sum().backward()
    return layer


@feature
def averaged(layer: nn.Module, x: Tensor) -> nn.Module:
    """swa_utils, with update_bn on each rank's own data."""
    average = swa_utils.AveragedModel(layer)
    swa_utils.update_bn([x, x + 1], average)
    return average


@feature
def without_graph(layer: nn.Module, x: Tensor) -> nn.Module:
    """no_grad and inference_mode."""
    with torch.no_grad():
        layer(x)
    with torch.inference_mode():
        layer(x)
    return layer


@feature
def parametrized(layer: nn.Module, x: Tensor) -> nn.Module:
    """A parametrized weight."""
    parametrize.register_parametrization(layer, "weight", nn.Softplus())
    return layer


def _triple(module: nn.Module, dx: Any, dy: Any) -> Any:
    return (dx[0] * 3,)


@feature
def hooked(layer: nn.Module, x: Tensor) -> nn.Module:
    """Hooks that change what goes in, out and back."""
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    layer.register_forward_hook(lambda module, inputs, output: output + 1)
    layer.register_full_backward_hook(_triple)
    return layer


@feature
def deterministic(layer: nn.Module, x: Tensor) -> nn.Module:
    """use_deterministic_algorithms."""
    torch.use_deterministic_algorithms(True)
    try:
        loss(layer, x).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    return layer


@feature
def shared_weights(layer: nn.Module, x: Tensor) -> nn.Module:
    """The layer twice, one after the other."""
    return nn.Sequential(layer, layer)


@feature
def with_other_tensors(layer: nn.Module, x: Tensor) -> nn.Module:
    """functional_call with other parameters and buffers, which leaves the layer's alone."""
    functional_call(layer, {name: value.detach() * 2 for name, value in layer.state_dict().items()}, (x,))
    return layer


@feature
def in_evaluation(layer: nn.Module, x: Tensor) -> nn.Module:
    """Evaluation, which asks no other rank."""
    layer(x)
    return layer.eval()


@refused
def compiled_whole(layer: nn.Module, x: Tensor) -> Tensor:
    """A graph without breaks."""
    torch._dynamo.reset()
    return torch.compile(layer, backend="aot_eager", fullgraph=True)(x)


@refused
def forward_mode(layer: nn.Module, x: Tensor) -> Tensor:
    """Tangents."""
    with forward_ad.dual_level():
        return layer(forward_ad.make_dual(x, torch.ones_like(x)))


@refused
def pushed(layer: nn.Module, x: Tensor) -> Any:
    """torch.func.jvp."""
    return jvp(layer, (x,), (torch.ones_like(x),))


@refused
def functional_gradient(layer: nn.Module, x: Tensor) -> Any:
    """torch.func.grad."""
    return grad(lambda x: loss(layer, x))(x)


@refused
def mapped(layer: nn.Module, x: Tensor) -> Any:
    """vmap."""
    return vmap(layer)(torch.stack([x, x]))


def build(cls: type[nn.Module]) -> nn.Module:
    """A layer with a weight that is not one."""
    layer: Any = cls(3, eps=1e-3).to(DTYPE)
    nn.init.constant_(layer.weight, 1.5)
    return layer


def batch(rank: int, seed: int) -> Tensor:
    """A rank's batch; they differ in size."""
    generator = torch.Generator().manual_seed(10 * rank + seed)
    return torch.randn(4 + 2 * rank, 3, 5, generator=generator, dtype=DTYPE) + 1


def outcome(name: str, layer: nn.Module, x: Tensor, after: Tensor) -> dict[str, Tensor]:
    """A feature, then one step: its result and the gradients and buffers of the layer that was given."""
    layer.zero_grad()
    used = FEATURES[name](layer, x)
    layer.zero_grad()
    used.zero_grad()
    after = after.requires_grad_()
    y = used(after)
    y.sin().sum().backward()
    found = {"y": y.detach(), "dx": after.grad}
    found |= {f"d{index}": p.grad for index, p in enumerate(used.parameters())}
    return found | {name.rpartition(".")[2]: value.clone() for name, value in used.named_buffers()}


def untracked() -> nn.Module:
    """A layer without buffers, which torch.func could not change."""
    return normkit.SyncBatchNorm(3, track_running_stats=False, dtype=DTYPE)


def on_rank(rank: int) -> dict[str, Any]:
    """Everything on one rank; a refused feature must not have begun a collective, or the next one would hang."""
    found: dict[str, Any] = {}
    for name in FEATURES:
        found[name] = outcome(name, build(normkit.SyncBatchNorm), batch(rank, 0), batch(rank, 1))
    for name, function in REFUSED.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found[name] = f"worked: {function(untracked(), batch(rank, 0))}"
            except (RuntimeError, NotImplementedError) as error:
                found[name] = f"{type(error).__name__}: {error}"
    with torch.autocast("cpu", torch.bfloat16):
        layer = normkit.SyncBatchNorm(3)
        found["autocast"] = [layer(batch(rank, 0).to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    return found


@pytest.fixture(scope="module")
def on_ranks() -> list[dict[str, Any]]:
    """What each rank found."""
    return run(on_rank, 2)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_works_as_in_one_process(name: str, on_ranks: list[dict[str, Any]]) -> None:
    whole = [torch.cat([batch(rank, seed) for rank in range(2)]) for seed in range(2)]
    expected = outcome(name, build(nn.BatchNorm1d), *whole)
    for key, value in expected.items():
        parts = [each[name][key] for each in on_ranks]
        if key in ("y", "dx"):
            torch.testing.assert_close(torch.cat(parts), value, rtol=1e-10, atol=1e-10)
        elif key.startswith("d"):
            torch.testing.assert_close(sum(parts), value, rtol=1e-10, atol=1e-10)
        else:
            for part in parts:
                torch.testing.assert_close(part, value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_in_words(name: str, on_ranks: list[dict[str, Any]]) -> None:
    for each in on_ranks:
        says = "drop fullgraph=True" if name == "compiled_whole" else "use normkit.revert_sync_batchnorm, or eval"
        assert says in each[name]


def test_autocast_leaves_the_type_of_the_input(on_ranks: list[dict[str, Any]]) -> None:
    layer = nn.BatchNorm1d(3)
    for index, dtype in enumerate((torch.float32, torch.bfloat16)):
        whole = torch.cat([batch(rank, 0) for rank in range(2)]).to(dtype)
        found = torch.cat([each["autocast"][index] for each in on_ranks])
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), layer(whole.float()), rtol=2e-2, atol=2e-2)
