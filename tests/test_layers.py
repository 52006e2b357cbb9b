"""The layers: drop-in for torch.nn's."""

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.spec import ShapeError
from tests.cases import knows

NAMES = [name for name in normkit.layers.__all__ if hasattr(nn, name) and name != "SyncBatchNorm"]

# Every layer with every way to configure it, and an input for it.
CONFIGURATIONS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("BatchNorm1d", (4,), {}, (6, 4)),
    ("BatchNorm1d", (4,), {"momentum": None}, (6, 4, 5)),
    ("BatchNorm2d", (4,), {"eps": 1e-2, "momentum": 0.7}, (6, 4, 3, 5)),
    ("BatchNorm2d", (4,), {"affine": False}, (6, 4, 3, 5)),
    ("BatchNorm2d", (4,), {"bias": False}, (6, 4, 3, 5)),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, (6, 4, 3, 5)),
    ("BatchNorm2d", (4,), {"track_running_stats": None}, (6, 4, 3, 5)),
    ("BatchNorm3d", (4,), {"dtype": torch.float64}, (2, 4, 3, 5, 2)),
    ("LayerNorm", (5,), {}, (6, 4, 5)),
    ("LayerNorm", ((4, 5),), {"eps": 1e-2, "bias": False}, (6, 4, 5)),
    ("LayerNorm", ([5],), {"elementwise_affine": False}, (6, 5)),
    ("GroupNorm", (2, 4), {}, (6, 4, 5)),
    ("GroupNorm", (4, 4), {"eps": 1e-2, "affine": False}, (6, 4, 3, 5)),
    ("GroupNorm", (1, 4), {"bias": False}, (6, 4, 3, 5)),
    ("InstanceNorm1d", (4,), {}, (6, 4, 5)),
    ("InstanceNorm1d", (4,), {"affine": True}, (4, 5)),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True, "momentum": 0.3}, (6, 4, 3, 5)),
    ("InstanceNorm2d", (4,), {"affine": True, "bias": False}, (4, 3, 5)),
    ("InstanceNorm3d", (4,), {}, (2, 4, 3, 5, 2)),
    ("InstanceNorm3d", (4,), {"track_running_stats": True}, (4, 3, 5, 2)),
    ("RMSNorm", (5,), {}, (6, 4, 5)),
    ("RMSNorm", ((4, 5),), {"eps": 1e-2, "elementwise_affine": False}, (6, 4, 5)),
    ("LazyBatchNorm1d", (), {}, (6, 4, 5)),
    ("LazyBatchNorm2d", (), {"momentum": None}, (6, 4, 3, 5)),
    ("LazyBatchNorm3d", (), {"affine": False}, (2, 4, 3, 5, 2)),
    ("LazyInstanceNorm1d", (), {}, (6, 4, 5)),
    ("LazyInstanceNorm2d", (), {"track_running_stats": False}, (6, 4, 3, 5)),
    ("LazyInstanceNorm3d", (), {"bias": False}, (2, 4, 3, 5, 2)),
]
CONFIGURATIONS = [row for row in CONFIGURATIONS if knows(row[0], row[2])]
every_configuration = pytest.mark.parametrize(
    ("name", "args", "kwargs", "shape"),
    CONFIGURATIONS,
    ids=[f"{c[0]}-{c[1]}-{c[2]}".replace(" ", "") for c in CONFIGURATIONS],
)
Pair = tuple[nn.Module, nn.Module]


def build(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pair:
    """Ours and torch's, with the same random parameters."""
    ours, theirs = (getattr(module, name)(*args, **kwargs) for module in (normkit, nn))
    if not name.startswith("Lazy"):
        for parameter in theirs.parameters():
            nn.init.normal_(parameter)
        ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def draw(shape: tuple[int, ...], kwargs: dict[str, Any], step: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(shape, generator=generator, dtype=kwargs.get("dtype", torch.float32)) * 2 + step % 100


def assert_same_state(ours: nn.Module, theirs: nn.Module) -> None:
    left, right = ours.state_dict(), theirs.state_dict()
    assert list(left) == list(right)
    assert getattr(left, "_metadata", None) == getattr(right, "_metadata", None)
    for key in left:
        assert left[key].dtype == right[key].dtype
        torch.testing.assert_close(left[key], right[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_identity(name: str) -> None:
    ours, theirs = getattr(normkit, name), getattr(nn, name)
    left, right = (inspect.signature(cls.__init__).parameters.values() for cls in (ours, theirs))
    assert [(p.name, p.kind, p.default) for p in left] == [(p.name, p.kind, p.default) for p in right]
    assert issubclass(ours, theirs)  # so that code that looks for torch's layers finds ours
    assert ours._version == theirs._version
    assert (ours.__doc__ or "") != (theirs.__doc__ or "")


def test_every_norm_of_torch_has_a_twin() -> None:
    norms = {name for name in dir(nn) if "Norm" in name} - {"LocalResponseNorm", "CrossMapLRN2d"}
    assert norms <= set(dir(normkit))


@every_configuration
@pytest.mark.parametrize("backend", ["auto", "numba", "eager"])
def test_ten_steps_as_torch(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...], backend: str
) -> None:
    ours, theirs = build(name, args, kwargs)
    with normkit.use_backend(backend):
        for step in range(10):
            x = draw(shape, kwargs, step)
            left, right = x.clone().requires_grad_(), x.clone().requires_grad_()
            y, expected = ours(left), theirs(right)
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
            dy = draw(tuple(y.shape), kwargs, step + 100)
            y.backward(dy)
            expected.backward(dy)
            torch.testing.assert_close(left.grad, right.grad, rtol=1e-3, atol=1e-4)
        assert_same_state(ours, theirs)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-3)
        assert repr(ours) == repr(theirs)
        ours.eval()
        theirs.eval()
        x = draw(shape, kwargs, 11)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            ours.train()
            theirs.train()
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)  # the mode is not the grad mode
        assert_same_state(ours, theirs)


@every_configuration
def test_state_round_trip(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    ours, theirs = build(name, args, kwargs)
    x = draw(shape, kwargs, 1)
    theirs(x)
    ours(x)
    theirs(x + 1)
    for source, target in ((theirs, ours), (ours, theirs)):
        buffer = io.BytesIO()
        torch.save(source.state_dict(), buffer)
        buffer.seek(0)
        assert not any(target.load_state_dict(torch.load(buffer, weights_only=True), strict=True))
        assert_same_state(ours, theirs)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(twin) is type(ours)
        torch.testing.assert_close(twin.eval()(x), ours.eval()(x), rtol=0, atol=0)
    for layer in (ours, theirs):
        reset = getattr(layer, "reset_parameters", None)
        assert reset is not None
        reset()
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(4, 6, 5, 5), (8, 6)], ids=str)
@pytest.mark.parametrize("backend", ["auto", "numba", "aten", "eager"])
def test_batches_are_counted(backend: str, shape: tuple[int, ...], momentum: float | None) -> None:
    build = normkit.BatchNorm2d if len(shape) == 4 else normkit.BatchNorm1d
    layer: Any = build(6, momentum=momentum)
    with normkit.use_backend(backend):
        for count in range(1, 4):
            layer(torch.randn(shape))
            assert int(layer.num_batches_tracked) == count
        layer.eval()(torch.randn(shape))
        assert int(layer.num_batches_tracked) == 3
        layer.train().num_batches_tracked = torch.tensor([7, 8, 9])[1]  # lies elsewhere than it begins
        layer(torch.randn(shape))
        assert int(layer.num_batches_tracked) == 9
        layer.num_batches_tracked = torch.tensor(3.0)  # of another type
        layer(torch.randn(shape))
        assert float(layer.num_batches_tracked) == 4.0


def test_a_call_that_fails_moves_nothing() -> None:
    layer = normkit.BatchNorm2d(6)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(RuntimeError), normkit.use_backend("numba"):
        layer(torch.randn(4, 7, 5, 5))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize(
    "build", [normkit.BatchNorm2d, partial(normkit.InstanceNorm2d, track_running_stats=True)], ids=["batch", "instance"]
)
def test_a_running_statistic_elsewhere_is_an_error(build: Any, name: str, training: bool) -> None:
    layer = build(64).train(training)
    setattr(layer, name, getattr(layer, name).to("meta"))
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with pytest.raises(RuntimeError, match=f"{name} on cpu, where the input is; it is on meta"):
        layer(torch.randn(32, 64, 32, 32))
    assert all(value.is_meta or torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("backend", ["auto", "numba", "eager"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mean: mean.double(), r"running_mean of the type of the input, torch.float32; got torch.float64"),
        (lambda mean: mean.bfloat16(), r"got torch.bfloat16: convert the layer or the input"),
        (lambda mean: mean.long(), r"got torch.int64"),
        (lambda mean: mean.view(1, 4), r"running_mean of shape \(4,\) .*; got running_mean of shape \(1, 4\)"),
    ],
)
def test_running_statistics_that_torch_refuses_are_an_error(
    change: Callable[[Any], Any], message: str, training: bool, backend: str
) -> None:
    layer = normkit.BatchNorm2d(4).train(training)
    layer.running_mean = change(layer.running_mean)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with normkit.use_backend(backend), pytest.raises(RuntimeError, match=message):
        layer(torch.randn(2, 4, 3, 3))
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("backend", ["auto", "numba", "eager"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_running_statistics_of_another_type_are_taken_where_torch_takes_them(dtype: torch.dtype, backend: str) -> None:
    x, found = torch.randn(2, 4, 3, 3), []
    for kind in (nn.InstanceNorm2d, normkit.InstanceNorm2d):
        layer: Any = kind(4, track_running_stats=True)
        layer.running_mean, layer.running_var = layer.running_mean.to(dtype), layer.running_var.to(dtype)
        try:
            with normkit.use_backend(backend):
                found.append((layer(x), layer.running_mean, layer.running_var, layer.eval()(x)))
        except RuntimeError as error:
            if kind is nn.InstanceNorm2d:
                pytest.skip(f"this torch does not take them: {error}")
            raise
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backend", ["auto", "numba", "aten", "eager"])
def test_a_call_that_fails_counts_no_batch(backend: str) -> None:
    layer: Any = normkit.BatchNorm2d(4)
    layer.running_var = torch.ones(5)
    with normkit.use_backend(backend), pytest.raises(RuntimeError, match="running_var"):
        layer(torch.randn(2, 4, 3, 3))
    assert int(layer.num_batches_tracked) == 0


@pytest.mark.parametrize("backend", ["auto", "numba"])
def test_a_wrong_number_of_channels_names_both(backend: str) -> None:
    with (
        normkit.use_backend(backend),
        pytest.raises(
            RuntimeError, match=r"weight of shape \(3,\) .* or an input of 5 channels; got weight of shape \(5,\)"
        ),
    ):
        normkit.BatchNorm2d(5)(torch.randn(2, 3, 4, 4))


def test_integers_are_told_to_be_none_of_the_types() -> None:
    with pytest.raises(NotImplementedError, match=r"an input of a floating-point type; got torch\.int64"):
        normkit.BatchNorm2d(4)(torch.ones(2, 4, 3, 3, dtype=torch.int64))


def test_an_rms_norm_of_an_inference_tensor_can_be_trained() -> None:
    with torch.inference_mode():
        x = torch.randn(64, 512)
    weights = []
    for kind in (normkit.RMSNorm, nn.RMSNorm):
        layer = kind(512)
        layer(x).sum().backward()
        weights.append(layer.weight.grad)
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("freed", ["x", "weight", "running_mean"])
def test_a_tensor_whose_memory_was_freed_is_an_error(freed: str) -> None:
    layer: Any = normkit.BatchNorm2d(64)
    x = torch.randn(32, 64, 28, 28)
    (x if freed == "x" else getattr(layer, freed)).untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="its storage was freed"):
        layer(x)
    assert int(layer.num_batches_tracked) == 0


def test_checkpoint_without_num_batches_tracked() -> None:
    old: Any = nn.BatchNorm2d(4).state_dict()
    del old["num_batches_tracked"]
    old._metadata[""]["version"] = 1
    layer: Any = normkit.BatchNorm2d(4)
    layer.load_state_dict(old, strict=True)
    assert int(layer.num_batches_tracked) == 0
    del old._metadata[""]["version"]
    with pytest.raises(RuntimeError, match="Unexpected running stats"):
        normkit.InstanceNorm2d(4).load_state_dict(old)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "BatchNorm1d of 4 axes": lambda m: m.BatchNorm1d(4)(torch.ones(2, 4, 3, 3)),
    "BatchNorm2d of 3 axes": lambda m: m.BatchNorm2d(4)(torch.ones(2, 4, 3)),
    "BatchNorm3d of 4 axes": lambda m: m.BatchNorm3d(4)(torch.ones(2, 4, 3, 3)),
    "another number of channels": lambda m: m.BatchNorm2d(4)(torch.ones(2, 5, 3, 3)),
    "one value per channel": lambda m: m.BatchNorm2d(4)(torch.ones(1, 4, 1, 1)),
    "groups that do not divide": lambda m: m.GroupNorm(3, 4),
    "GroupNorm, another number of channels": lambda m: m.GroupNorm(2, 4)(torch.ones(2, 6, 3)),
    "InstanceNorm1d of 4 axes": lambda m: m.InstanceNorm1d(4)(torch.ones(2, 4, 3, 3)),
    "InstanceNorm2d of one pixel": lambda m: m.InstanceNorm2d(4)(torch.ones(2, 4, 1, 1)),
    "InstanceNorm2d, another number of channels": lambda m: m.InstanceNorm2d(4, affine=True)(torch.ones(2, 5, 3, 3)),
    "LayerNorm, another last axis": lambda m: m.LayerNorm(4)(torch.ones(2, 5)),
    "RMSNorm, another last axis": lambda m: m.RMSNorm(4)(torch.ones(2, 5)),
    "LazyBatchNorm2d of 3 axes": lambda m: m.LazyBatchNorm2d()(torch.ones(2, 4, 3)),
    "BatchNorm2d of integers": lambda m: m.BatchNorm2d(4)(torch.ones(2, 4, 3, 3, dtype=torch.long)),
    "BatchNorm2d of doubles": lambda m: m.BatchNorm2d(4)(torch.ones(2, 4, 3, 3, dtype=torch.float64)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses_what_torch_refuses(reason: str) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as theirs:
        REFUSED[reason](nn)
    with pytest.raises(theirs.type):
        REFUSED[reason](normkit)


def test_factory_arguments() -> None:
    layer: Any = normkit.BatchNorm2d(4, device="meta", dtype=torch.bfloat16)
    assert layer.weight.is_meta
    assert layer.running_var.dtype == torch.bfloat16
    assert layer.num_batches_tracked.dtype == torch.long


class TestLayerNorm2d:
    def test_is_layer_norm_of_the_permuted(self) -> None:
        ours, theirs = normkit.LayerNorm2d(6, eps=1e-3), nn.LayerNorm(6, eps=1e-3)
        nn.init.normal_(theirs.weight)
        ours.load_state_dict(theirs.state_dict())
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(3, 6, 5, 4).contiguous(memory_format=memory_format)
            for backend in ("auto", "numba", "eager"):
                with normkit.use_backend(backend):
                    y = ours(x)
                expected = theirs(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                torch.testing.assert_close(y, expected)
                assert y.stride() == expected.stride()

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match="channels alone"):
            normkit.LayerNorm2d((6, 5))
        with pytest.raises(RuntimeError, match=r"expected an input of shape \(N, 6, \*\)"):
            normkit.LayerNorm2d(6)(torch.ones(3, 5, 4, 4))


@pytest.mark.filterwarnings("ignore:.*quantized:DeprecationWarning", "ignore:.*quantize:UserWarning")
@pytest.mark.parametrize("size", [4, 4096])
def test_quantized_inputs_are_refused_with_the_way_out(size: int) -> None:
    x = torch.quantize_per_tensor(torch.randn(2, 64, size), 0.1, 0, torch.quint8)
    for layer in (
        normkit.BatchNorm1d(64),
        normkit.GroupNorm(2, 64),
        normkit.InstanceNorm1d(64),
        normkit.LayerNorm(size),
    ):
        for mode in (True, False):
            with pytest.raises(NotImplementedError, match=r"normkit\.restore\(model\) before torch\.ao"):
                layer.train(mode)(x)


class TestStateSetByHand:
    """A layer whose tensors were replaced: torch's outcome, on both sides of where kernels begin."""

    SIZES = ((4, 6, 3, 3), (64, 6, 40, 40))
    LAYERS = ("BatchNorm2d", "SyncBatchNorm", "BatchNormAct2d", "InstanceNorm2d")
    BOTH = ("running_mean", "running_var")

    @staticmethod
    def outcome(layer: nn.Module, x: Tensor) -> Tensor | type[Exception]:
        """The result, or the type of the error."""
        try:
            result: Tensor = layer(x)
        except (RuntimeError, ValueError) as error:
            return type(error)
        return result

    @pytest.mark.parametrize("name", LAYERS)
    @pytest.mark.parametrize("gone", [BOTH, BOTH[:1], BOTH[1:], (*BOTH, "num_batches_tracked")])
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("track", [True, False])
    def test_statistics_that_are_gone(self, name: str, gone: tuple[str, ...], training: bool, track: bool) -> None:
        plain = "BatchNorm2d" if "Batch" in name else name
        ours = getattr(normkit, name)(6, track_running_stats=track).train(training)
        twin = getattr(nn, plain)(6, track_running_stats=track).train(training)
        for layer in (ours, twin):
            for buffer in gone:
                setattr(layer, buffer, None)
        for shape in self.SIZES:
            x = torch.randn(shape)
            for backend in ("auto", "numba", "eager"):
                expected = self.outcome(twin, x)
                with normkit.use_backend(backend):
                    found = self.outcome(ours, x)
                if isinstance(expected, Tensor):
                    expected = expected.relu() if name == "BatchNormAct2d" else expected
                    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
                else:
                    assert found is expected

    @pytest.mark.parametrize("name", LAYERS)
    @pytest.mark.parametrize("parameter", ["weight", "bias"])
    def test_parameters_of_another_shape_are_refused(self, name: str, parameter: str) -> None:
        arguments = {"affine": True} if name == "InstanceNorm2d" else {}
        layer = getattr(normkit, name)(6, **arguments)
        for parameter_shape in ((1, 6), (6, 1), (1, 6, 1, 1)):
            setattr(layer, parameter, nn.Parameter(torch.ones(parameter_shape)))
            for shape in self.SIZES:
                for training in (True, False):
                    for backend in ("auto", "numba", "eager"):
                        with normkit.use_backend(backend), pytest.raises(ShapeError, match=f"{parameter} of shape"):
                            layer.train(training)(torch.randn(shape))
