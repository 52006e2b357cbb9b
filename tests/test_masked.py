"""Masked and weighted statistics: layers and functions against torch.nn on the concatenated valid elements."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as TF
from torch.utils.checkpoint import checkpoint

import normkit
from normkit import functional as F
from tests.cases import DTYPES, TOLERANCE, channels_last, error
from tests.masked import KINDS, SHAPES, Kind, Results, draw, ragged_step, randomize, step

BACKENDS = ("auto", "numba", "eager")
CASES = [(kind, shape) for kind in KINDS for shape in SHAPES if len(shape) > 2 or not KINDS[kind].per_sample]
every_case = pytest.mark.parametrize(("kind", "shape"), CASES)


def assert_equal(found: Results, expected: Results, dtype: torch.dtype = torch.float64) -> None:
    tolerance = TOLERANCE[dtype]
    assert error(found.y.double(), expected.y) < tolerance
    assert error(found.dx.double(), expected.dx) < tolerance
    for mine, theirs in zip(found.parameters, expected.parameters, strict=True):
        assert error(mine.double(), theirs) < tolerance
    for mine, theirs in zip(found.buffers, expected.buffers, strict=True):
        assert error(mine.double(), theirs.double()) < tolerance


def build(kind: Kind, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> nn.Module:
    return randomize(kind.ours(len(shape))).to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@every_case
def test_equals_the_concatenated_data(kind: str, shape: tuple[int, ...], backend: str) -> None:
    x, dy, mask = draw(shape)
    with normkit.use_backend(backend):
        found = step(build(KINDS[kind], shape), x, dy, mask=mask)
    assert_equal(found, ragged_step(KINDS[kind], x, dy, mask.long()))
    padding = ~mask[:, None].expand(shape)
    assert not found.y[padding].any()
    assert not found.dx[padding].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype(kind: str, dtype: torch.dtype, backend: str) -> None:
    shape = (4, 6, 70)
    x, dy, mask = draw(shape, dtype)
    with normkit.use_backend(backend):
        found = step(build(KINDS[kind], shape, dtype), x, dy, mask=mask)
    layer = build(KINDS[kind], shape, dtype).double()  # whose weights were rounded
    expected = ragged_step(
        Kind(KINDS[kind].ours, lambda: _torchs(kind, layer), KINDS[kind].per_sample), x, dy, mask.long()
    )
    assert found.y.dtype == found.dx.dtype == dtype
    assert_equal(found, expected, dtype)


def _torchs(kind: str, layer: nn.Module) -> nn.Module:
    twin = KINDS[kind].torch().double()
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize("backend", BACKENDS)
@every_case
def test_weights_count_as_copies(kind: str, shape: tuple[int, ...], backend: str) -> None:
    x, dy, mask = draw(shape)
    copies = mask * torch.randint(1, 4, mask.shape)
    layer = build(KINDS[kind], shape)
    with normkit.use_backend(backend):
        found = step(layer, x, dy, mask=0.37 * copies.double())  # only their proportions count
    expected = ragged_step(KINDS[kind], x, dy, copies)
    found.buffers = expected.buffers = []  # the unbiased variance tells weights from copies: below
    assert_equal(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_running_variance_of_weights_is_that_of_numpy(backend: str) -> None:
    x, dy, mask = draw((5, 6, 40))
    weights = mask * torch.rand(mask.shape, dtype=torch.float64)
    layer = build(KINDS["batch"], (5, 6, 40))
    with normkit.use_backend(backend):
        _, _, _, buffers = vars(step(layer, x, dy, mask=weights)).values()
    values = x.movedim(1, -1)[mask].T.numpy()
    unbiased = np.diag(np.cov(values, aweights=weights[mask].numpy()))
    assert error(buffers[1], 0.9 + 0.1 * unbiased) < 1e-12
    assert error(buffers[0], 0.1 * np.average(values, axis=1, weights=weights[mask].numpy())) < 1e-12


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "(N, L)": lambda mask: mask,
    "(N, 1, L)": lambda mask: mask[:, None],
    "as x": lambda mask: mask[:, None].expand(-1, 6, -1),
    "integers": lambda mask: mask.long(),
    "float16": lambda mask: mask.half(),
    "strided": lambda mask: mask.T.contiguous().T,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_forms_of_a_mask(kind: str, form: str, backend: str) -> None:
    x, dy, mask = draw((5, 6, 9))
    with normkit.use_backend(backend):
        found = step(build(KINDS[kind], (5, 6, 9)), x, dy, mask=FORMS[form](mask))
    assert_equal(found, ragged_step(KINDS[kind], x, dy, mask.long()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_broadcasts_over_space(kind: str) -> None:
    shape = (4, 6, 3, 5)
    x, dy = torch.randn(shape).double(), torch.randn(shape).double()
    columns = torch.tensor([5, 2, 0, 3])[:, None] > torch.arange(5)  # (N, W)
    whole = columns[:, None].expand(4, 3, 5)
    expected = ragged_step(KINDS[kind], x, dy, whole.long())
    for mask in (columns[:, None, None], columns[:, None]):  # (N, 1, 1, W) and (N, 1, W)
        assert_equal(step(build(KINDS[kind], shape), x, dy, mask=mask), expected)
    samples = torch.tensor([True, False, True, True])
    found = step(build(KINDS[kind], shape), x, dy, mask=samples)
    assert_equal(found, ragged_step(KINDS[kind], x, dy, samples[:, None, None].expand(4, 3, 5).long()))


@pytest.mark.parametrize(
    "lengths", [torch.tensor([9, 4, 0, 2, 7]), [9, 4, 0, 2, 7], torch.tensor([9, 4, 0, 2, 7]).int()]
)
@pytest.mark.parametrize("kind", KINDS)
def test_lengths(kind: str, lengths: Any) -> None:
    x, dy, _ = draw((5, 6, 9))
    mask = torch.arange(9) < torch.as_tensor(lengths)[:, None]
    x, dy = (value.nan_to_num(0.5, 0.5, 0.5).masked_fill(~mask[:, None], torch.nan) for value in (x, dy))
    found = step(build(KINDS[kind], (5, 6, 9)), x, dy, lengths=lengths)
    assert_equal(found, ragged_step(KINDS[kind], x, dy, mask.long()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_ones_changes_nothing(kind: str, backend: str) -> None:
    shape = (4, 6, 70)
    x, dy = torch.randn(shape).double(), torch.randn(shape).double()
    with normkit.use_backend(backend):
        masked = step(build(KINDS[kind], shape), x, dy, mask=torch.ones(4, 70, dtype=torch.bool))
    assert_equal(masked, step(build(KINDS[kind], shape), x, dy))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(4, 6, 3, 5), (3, 6, 2, 3, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_channels_last_stays_so(kind: str, shape: tuple[int, ...], backend: str) -> None:
    x, dy, mask = draw(shape)
    with normkit.use_backend(backend):
        found = step(build(KINDS[kind], shape), channels_last(x), channels_last(dy), mask=mask)
    assert_equal(found, ragged_step(KINDS[kind], x, dy, mask.long()))
    assert found.y.stride() == channels_last(x).stride()


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs(backend: str) -> None:
    x, dy, mask = draw((5, 6, 9))
    for view in (x.transpose(1, 2).contiguous().transpose(1, 2), x.repeat_interleave(2, 2)[..., ::2]):
        with normkit.use_backend(backend):
            found = step(build(KINDS["batch"], (5, 6, 9)), view, dy, mask=mask)
        assert_equal(found, ragged_step(KINDS["batch"], x, dy, mask.long()))
        assert found.y.is_contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_mean_loses_nothing(backend: str) -> None:
    """E[x²] - E[x]² would be off by 100%; an average of what the mask left as zeros, too."""
    x, dy, mask = draw((40, 6, 100), torch.float32)
    x += 1e4
    with normkit.use_backend(backend):
        found = step(build(KINDS["batch"], (40, 6, 100), torch.float32), x, dy, mask=mask)
    expected = ragged_step(KINDS["batch"], x, dy, mask.long())
    assert error(found.y, expected.y) < 2e-5
    assert error(found.dx, expected.dx) < 2e-5


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("backend", BACKENDS)
def test_five_steps_of_running_statistics(backend: str, momentum: float | None) -> None:
    ours, theirs = normkit.BatchNorm1d(6, momentum=momentum).double(), nn.BatchNorm1d(6, momentum=momentum).double()
    for seed in range(5):
        torch.manual_seed(seed)
        x, mask = torch.randn(4, 6, 20).double() + seed, torch.rand(4, 20) < 0.5
        with normkit.use_backend(backend):
            ours(x, mask=mask)
        theirs(x.movedim(1, -1)[mask])
    for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_statistics_of_instance_norm_average_the_samples_that_count(backend: str) -> None:
    layer = normkit.InstanceNorm1d(6, track_running_stats=True).double()
    x, _, mask = draw((5, 6, 9))
    with normkit.use_backend(backend):
        layer(x, mask=mask)
    samples = [x[n][:, mask[n]] for n in range(5) if mask[n].any()]
    means, variances = (torch.stack([get(sample, dim=1) for sample in samples]) for get in (torch.mean, torch.var))
    assert layer.running_mean is not None
    assert layer.running_var is not None
    torch.testing.assert_close(layer.running_mean, 0.1 * means.mean(0))
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * variances.mean(0))
    assert len(samples) == 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_valid(kind: str, backend: str) -> None:
    x = torch.full((3, 6, 40), torch.nan, dtype=torch.float64)
    layer = build(KINDS[kind], (3, 6, 40))
    before = copy.deepcopy(layer.state_dict())
    with normkit.use_backend(backend):
        found = step(layer, x, x, mask=torch.zeros(3, 40, dtype=torch.bool))
    assert not found.y.any()
    assert not found.dx.any()
    assert not any(gradient.any() for gradient in found.parameters)
    if kind == "batch":  # as torch: an empty batch is counted, and says nothing
        before["num_batches_tracked"] += 1
    torch.testing.assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_one_valid_value_is_torchs_error(kind: str) -> None:
    layer = build(KINDS[kind], (3, 6, 4))
    before = copy.deepcopy(layer.state_dict())
    mask = torch.zeros(3, 4)
    mask[1, 2] = 0.5
    with pytest.raises(
        ValueError, match=r"Expected more than 1 value per channel when training, got input size \(3, 6, 4\)"
    ):
        layer(torch.randn(3, 6, 4).double(), mask=mask)
    torch.testing.assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)
    layer.eval()
    if kind == "batch":
        layer(torch.randn(3, 6, 4).double(), mask=mask)


def test_one_position_of_a_group_of_channels_is_enough() -> None:
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1, 2] = True
    x, dy = torch.randn(3, 6, 4).double(), torch.randn(3, 6, 4).double()
    found = step(build(KINDS["group"], x.shape), x, dy, mask=mask)
    assert_equal(found, ragged_step(KINDS["group"], x, dy, mask.long()))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        normkit.GroupNorm(6, 6)(x.float(), mask=mask)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_evaluation(dtype: torch.dtype, backend: str) -> None:
    x, dy, mask = draw((5, 6, 40), dtype)
    layer: Any = randomize(normkit.BatchNorm1d(6)).to(dtype).eval()
    layer.running_mean += 3.0
    layer.running_var *= 5.0
    twin = nn.BatchNorm1d(6).double().eval()
    twin.load_state_dict(layer.state_dict())
    with normkit.use_backend(backend):
        found = step(layer, x, dy, mask=mask)
    padding = ~mask[:, None]
    expected = step(twin, x.masked_fill(padding, 0.0).double(), dy.masked_fill(padding, 0.0).double())
    expected.y.masked_fill_(padding, 0.0)
    assert_equal(found, expected, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_statistics_are_tracked(backend: str) -> None:
    x, dy, mask = draw((5, 6, 9))
    layer = randomize(normkit.BatchNorm1d(6, eps=3e-3, track_running_stats=False)).double().eval()
    with normkit.use_backend(backend):
        found = step(layer, x, dy, mask=mask)
    expected = ragged_step(KINDS["batch"], x, dy, mask.long())
    expected.buffers = []
    assert_equal(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_second_and_third_derivatives(kind: str, backend: str) -> None:
    x, dy, mask = draw((3, 6, 5))
    layer = build(KINDS[kind], (3, 6, 5))
    weights = (mask * (torch.rand(3, 5) + 0.5)).double()
    leaves = [x.requires_grad_(), *layer.parameters()]
    with normkit.use_backend(backend):

        def gradient(value: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            y = torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (value,), {"mask": weights})
            grads = torch.autograd.grad(y, (value, weight), dy.nan_to_num(1.0, 1.0, 1.0), create_graph=True)
            return torch.cat([g.flatten() for g in grads])

        def ours(value: Tensor) -> Tensor:
            (second,) = torch.autograd.grad(gradient(value, *leaves[1:]).square().sum(), value, create_graph=True)
            return second

        clean = x.detach().nan_to_num(0.3, 0.3, 0.3).requires_grad_()
        assert torch.autograd.gradgradcheck(
            lambda *args: torch.func.functional_call(
                layer, {"weight": args[1], "bias": args[2]}, (args[0],), {"mask": weights}
            ),
            (clean, *layer.parameters()),
        )
        assert torch.autograd.gradcheck(ours, (clean,))
        assert torch.isfinite(ours(x)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_sample_weights(kind: str) -> None:
    layer = build(KINDS[kind], (3, 6, 5))
    x, weights = torch.randn(3, 6, 5).double(), (torch.rand(3, 5) + 0.2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: layer(x, mask=w), (weights,))


@pytest.mark.parametrize("kind", KINDS)
def test_torch_func(kind: str) -> None:
    shape = (3, 6, 5)
    x, dy, mask = draw(shape)
    layer = build(KINDS[kind], shape)
    if kind == "batch":  # torch.func updates no buffers, with a mask or without
        layer = randomize(normkit.BatchNorm1d(6, track_running_stats=False)).double()
    twin, dy = copy.deepcopy(layer), dy.nan_to_num(0.7, 0.7, 0.7)
    found = torch.func.grad(lambda value: (layer(value, mask=mask) * dy).sum())(x)
    torch.testing.assert_close(found, step(twin, x, dy, mask=mask).dx)
    both = torch.stack([mask, ~mask.roll(1)])
    both[:, :, :2] = True  # more than one
    mapped = torch.func.vmap(lambda m: layer(dy, mask=m))(both)
    torch.testing.assert_close(mapped, torch.stack([layer(dy, mask=m) for m in both]))


@pytest.mark.slow  # each compiles a graph of its own
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_whole(kind: str) -> None:
    torch._dynamo.reset()
    x, dy, mask = draw((5, 6, 9))
    layer = build(KINDS[kind], (5, 6, 9))
    graph: Any = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for given in ({"mask": mask}, {"mask": mask.double()}):
        expected = step(copy.deepcopy(layer), x, dy, **given)
        assert_equal(step(graph, x, dy, **given), expected)
    lengths, x = torch.tensor([9, 4, 0, 2, 7]), torch.randn(5, 6, 9).double()
    torch.testing.assert_close(graph(x, lengths=lengths), layer(x, lengths=lengths))


def test_checkpointing_counts_twice_but_keeps_the_gradient() -> None:
    x, dy, mask = draw((5, 6, 40))
    layer = build(KINDS["batch"], (5, 6, 40))
    value = x.clone().requires_grad_()
    result: Any = checkpoint(layer, value, use_reentrant=False, mask=mask)
    result.backward(dy)
    torch.testing.assert_close(value.grad, ragged_step(KINDS["batch"], x, dy, mask.long()).dx)


@pytest.mark.parametrize("name", ["LazyBatchNorm1d", "LazyInstanceNorm1d"])
def test_the_first_input_of_a_lazy_layer_may_have_a_mask(name: str) -> None:
    x, _, mask = draw((5, 6, 9))
    layer = getattr(normkit, name)(affine=False).double()
    y = layer(x, mask=mask)
    assert type(layer).__name__ == name.removeprefix("Lazy")
    torch.testing.assert_close(y, type(layer)(6, affine=False).double()(x, mask=mask))


@pytest.mark.parametrize("act", [nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("residual", [False, True])
def test_batch_norm_act(act: type[nn.Module], residual: bool) -> None:
    shape = (4, 6, 3, 5)
    x, _, mask = draw(shape)
    layer, norm = normkit.BatchNormAct2d(6, act_layer=act).double(), normkit.BatchNorm2d(6).double()
    other = torch.randn(shape).double().masked_fill(~mask[:, None], torch.nan) if residual else None
    y = norm(x, mask=mask)
    expected = act()(y if other is None else y + other).masked_fill(~mask[:, None], 0.0)
    torch.testing.assert_close(layer(x, other, mask=mask), expected)


def test_accelerated_layers_take_masks() -> None:
    x, dy, mask = draw((5, 6, 9))
    layer = randomize(nn.BatchNorm1d(6, eps=3e-3)).double()
    normkit.accelerate(layer)
    assert_equal(step(layer, x, dy, mask=mask), ragged_step(KINDS["batch"], x, dy, mask.long()))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("as_weights", [False, True])
def test_arrays(dtype: Any, as_weights: bool) -> None:
    x, _, mask = draw((5, 6, 9))
    array, given = x.numpy().astype(dtype), mask.numpy()
    given = given.astype(np.int8) if as_weights else given
    given.flags.writeable = False
    mean, var = np.zeros(6, dtype), np.ones(6, dtype)
    y = F.batch_norm(array, mean, var, training=True, mask=given)
    layer = nn.BatchNorm1d(6).double()
    expected = layer(x.movedim(1, -1)[mask]).detach().numpy()
    assert y.dtype == dtype
    np.testing.assert_allclose(np.moveaxis(y, 1, -1)[mask.numpy()], expected, atol=1e-5)
    assert not np.moveaxis(y, 1, -1)[~mask.numpy()].any()
    assert layer.running_var is not None
    np.testing.assert_allclose(var, layer.running_var.numpy(), rtol=1e-5)
    assert layer.running_mean is not None
    np.testing.assert_allclose(mean, layer.running_mean.numpy(), rtol=1e-5)
    functions: list[tuple[Any, dict[str, int]]] = [(F.instance_norm, {}), (F.group_norm, {"num_groups": 2})]
    for function, arguments in functions:
        result = function(array, **arguments, mask=given)
        expected = function(torch.from_numpy(array), **arguments, mask=mask).numpy()
        np.testing.assert_allclose(result, expected, atol=1e-6)


X = torch.randn(3, 4, 5)
GOOD = torch.ones(3, 5)
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "another length": (
        {"mask": torch.ones(3, 4)},
        RuntimeError,
        r"shape \(3, 5\), \(3, 1, 5\) or \(3, 4, 5\).*got \(3, 4\)",
    ),
    "another batch": ({"mask": torch.ones(1, 5)}, RuntimeError, r"got \(1, 5\)"),
    "two channels": ({"mask": torch.ones(3, 2, 5)}, RuntimeError, r"got \(3, 2, 5\)"),
    "more axes": ({"mask": torch.ones(3, 1, 5, 1)}, RuntimeError, "expected `mask` of shape"),
    "channels differ": ({"mask": torch.arange(60).reshape(3, 4, 5)}, RuntimeError, "the same for all channels"),
    "negative": ({"mask": GOOD - 2}, ValueError, "not negative"),
    "NaN": ({"mask": GOOD * torch.nan}, ValueError, "NaN"),
    "infinite": ({"mask": GOOD * torch.inf}, ValueError, "finite"),
    "complex": ({"mask": GOOD + 0j}, TypeError, "bool or real"),
    "a list": ({"mask": [[1.0]]}, TypeError, "expected `mask` to be a torch.Tensor; got list"),
    "both": ({"mask": GOOD, "lengths": [1, 2, 3]}, ValueError, "got both"),
    "too long": ({"lengths": [1, 2, 6]}, ValueError, "from 0 to 5.*got 1 to 6"),
    "negative length": ({"lengths": [1, -2, 3]}, ValueError, "got -2 to 3"),
    "another number of lengths": ({"lengths": [1, 2]}, RuntimeError, r"shape \(3,\)"),
    "lengths that are no integers": ({"lengths": [1.0, 2.0, 3.0]}, TypeError, "integers"),
    "elsewhere": ({"mask": GOOD.to("meta")}, RuntimeError, "expected `mask` on cpu"),
}


@pytest.mark.parametrize("layer", [normkit.BatchNorm1d(4), normkit.InstanceNorm1d(4), normkit.GroupNorm(2, 4)])
@pytest.mark.parametrize("reason", REFUSED)
def test_refused(reason: str, layer: nn.Module) -> None:
    given, kind, message = REFUSED[reason]
    with pytest.raises(kind, match=message):
        layer(X, **given)


def test_refused_inputs() -> None:
    with pytest.raises(ValueError, match="`lengths` go with an input of shape"):
        normkit.BatchNorm2d(4)(torch.randn(3, 4, 5, 6), lengths=[1, 2, 3])
    with pytest.raises(ValueError, match="unsqueeze"):
        normkit.InstanceNorm1d(4)(torch.randn(4, 5), mask=torch.ones(4, 5))
    with pytest.raises(ValueError, match="expected 4D input"):
        normkit.BatchNorm2d(4)(X, mask=GOOD)
    with pytest.raises(RuntimeError, match="expected weight of shape"):
        normkit.BatchNorm1d(5)(X, mask=GOOD)
    with pytest.raises(ValueError, match="eps must be positive"):
        F.batch_norm(X, None, None, training=True, eps=0.0, mask=GOOD)
    with pytest.raises(TypeError, match="use one kind"):
        F.batch_norm(X.numpy(), None, None, training=True, mask=GOOD)  # type: ignore[type-var]
    with pytest.raises(NotImplementedError, match="floating-point"):
        F.batch_norm(X.long(), None, None, training=True, mask=GOOD)
    with pytest.raises(RuntimeError, match="running_mean and running_var in evaluation"):
        F.batch_norm(X, None, None, mask=GOOD)


def test_other_devices_get_shapes() -> None:
    x = torch.empty(3, 4, 5, device="meta")
    y = normkit.BatchNorm1d(4, device="meta")(x, mask=torch.ones(3, 5, device="meta"))
    assert y.shape == x.shape


def test_one_layer_with_and_without_masks() -> None:
    layer = normkit.BatchNorm1d(4)
    expected = TF.batch_norm(X, None, None, training=True)
    torch.testing.assert_close(layer(X), expected)
    torch.testing.assert_close(layer(X, lengths=[5, 5, 5]), expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["BatchNorm1d", "InstanceNorm1d"])
def test_accumulated_batches_weigh_what_is_valid_in_them(name: str, weighted: bool) -> None:
    build = getattr(normkit, name)
    whole, parts = (build(6, track_running_stats=True, momentum=0.3).double() for _ in range(2))
    x, _, mask = draw((9, 6, 20))
    given = mask * torch.rand(mask.shape).double() if weighted else mask
    whole(x, mask=given)
    with normkit.accumulate_stats(parts):
        for chosen in (slice(1, 2), slice(0, 1), slice(2, 6), slice(6, 9)):  # the first has nothing valid
            parts(x[chosen], mask=given[chosen])
    for mine, theirs in zip(parts.buffers(), whole.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_nan_of_padding_is_no_broken_batch() -> None:
    layer = normkit.BatchNorm1d(6).double()
    x, _, mask = draw((5, 6, 9))
    with normkit.skip_nonfinite(layer) as guard:
        layer(x, mask=mask)
        layer(x, mask=torch.ones_like(mask))
    assert guard.skipped == {"": 1}
    expected = normkit.BatchNorm1d(6).double()
    expected(x, mask=mask)
    torch.testing.assert_close([*layer.buffers()], [*expected.buffers()])


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
def test_recalibrated_and_frozen_layers(mode: Any) -> None:
    layer: Any = normkit.BatchNorm1d(6).double()
    x, _, mask = draw((9, 6, 20))
    data = [(x[:4], mask[:4]), (x[4:], mask[4:])]
    normkit.recalibrate(layer, data, forward=lambda model, batch: model(batch[0], mask=batch[1]), mode=mode)
    values = x.movedim(1, -1)[mask]
    torch.testing.assert_close(layer.running_mean, values.mean(0))
    torch.testing.assert_close(layer.running_var, values.var(0))
    normkit.freeze(layer)
    layer.train()
    y = layer(x, mask=mask)
    torch.testing.assert_close(y.movedim(1, -1)[mask], (values - values.mean(0)) / (values.var(0) + layer.eps).sqrt())
    assert not y[~mask[:, None].expand(y.shape)].any()
