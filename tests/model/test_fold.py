"""What fold refuses as a whole, its proof, its report, and a model left as it was where anything goes wrong."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from normkit import fold
from normkit.errors import UserError
from normkit.model.fold import install as install_module
from normkit.model.fold.layers import set_weights
from normkit.model.fold.proof import limit_of
from tests.model.folding import IMAGES, Net, randomized, reasons
from tests.model.unchanged import assert_unchanged, record


def test_a_model_in_training_mode_is_refused() -> None:
    net = randomized(Net(lambda net, x: net.norm(net.conv(x))))
    net.conv.train()
    with pytest.raises(UserError, match=r"in evaluation mode; conv is in training: call model.eval\(\)"):
        fold(net, IMAGES)


UNFIT: dict[str, tuple[Callable[[], Any], str]] = {
    "no module": (lambda: "text", "expected a torch.nn.Module"),
    "parallel": (lambda: nn.DataParallel(nn.Linear(2, 2)).eval(), "not wrapped or compiled"),
    "compiled": (
        lambda: nn.Sequential(cast("nn.Module", torch.compile(nn.Linear(2, 2)))).eval(),
        "not wrapped or compiled",
    ),
    "scripted": (lambda: torch.jit.script(nn.Linear(2, 2)).eval(), "TorchScript"),
    "lazy": (lambda: nn.LazyLinear(2).eval(), "lazy layers"),
    "without weights": (lambda: nn.Linear(2, 2, device="meta").eval(), "meta device"),
    "float32 alone": (lambda: Net(lambda net, x: net.norm(x.float())).eval(), "cannot be run .* in float64"),
    "no tensor": (lambda: Net(lambda net, x: 3).eval(), "no tensor in what the model returns"),
}


@pytest.mark.parametrize(("build", "says"), UNFIT.values(), ids=UNFIT)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_that_cannot_be_folded_as_a_whole(build: Callable[[], Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        fold(build(), IMAGES)


def test_another_place_is_refused() -> None:
    with pytest.raises(UserError, match="`norm_into` must be previous, next or both; got 'behind'"):
        fold(nn.Linear(2, 2).eval(), IMAGES, norm_into="behind")


def through_numpy(net: Any, x: Tensor) -> Tensor:
    y = net.conv(x)
    return net.head(net.norm(y)) + sum(y.tolist()[0][0][0])


def needs_norm(net: Any, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)) * net.norm.momentum


@pytest.mark.parametrize(
    ("run", "says"),
    [(through_numpy, "norm into conv gave results that differ by"), (needs_norm, "norm into conv gave AttributeError")],
)
def test_the_proof_finds_what_cannot_be_seen_and_names_the_norm(run: Callable[[Any, Tensor], Any], says: str) -> None:
    stem = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    net = randomized(nn.Sequential(stem, Net(run)))
    before = record(net)
    with pytest.raises(UserError, match=f"nothing was folded: 1.{says.replace('into ', 'into 1.')}"):
        fold(net, IMAGES)
    assert_unchanged(net, before)


class Reads(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        y = self[0](x)
        return self[1](y) + y.tolist()[0][0]


def test_the_proof_is_as_strict_for_a_model_in_float32() -> None:
    torch.manual_seed(0)
    model = Reads(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()  # untrained: the norm divides by the root of 1.00001
    with pytest.raises(UserError, match=r"differ by \d\.\de-06 in float64, where at most 1e-10 is"):
        fold(model, torch.randn(2, 3))


class Narrow(Reads):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float().to(x.dtype))


def test_a_model_that_rounds_to_float32_is_allowed_what_rounding_explains() -> None:
    torch.manual_seed(0)
    model = Narrow(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=1e-3)).eval()
    with pytest.raises(UserError, match=r"differ by \d\.\de-04 in float64, where at most \de-0[67] is"):
        fold(model, torch.randn(2, 3))


class Overflows(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (6e4 * x.abs().max() * 2) * (x.dtype is torch.float16)


def test_nothing_is_proven_by_results_that_are_not_finite() -> None:
    assert limit_of(torch.float16, float("inf")) == 0.1
    norm = nn.BatchNorm1d(4)
    nn.init.constant_(norm.get_buffer("running_var"), 0.5)
    model = Overflows(nn.Linear(3, 4), norm).eval().half()
    assert fold(model, torch.ones(2, 3).half()).proof is not None  # infinite before and after


class Stops(nn.Module):
    """Raises at one of its calls, in all copies together."""

    calls = 0
    at = 0
    error: type[BaseException] = KeyboardInterrupt

    def forward(self, x: Tensor) -> Tensor:
        Stops.calls += 1
        if Stops.calls == Stops.at:
            raise Stops.error
        return x


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_or_an_error_leaves_the_model_as_it_was(at: int, error: type[BaseException]) -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Stops()))
    before = record(model)
    Stops.calls, Stops.at, Stops.error = 0, at, error
    with pytest.raises((error, UserError)):
        fold(model, IMAGES)
    assert_unchanged(model, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_while_the_model_is_changed_undoes_all(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    model = randomized(nn.Sequential(*[layer for _ in range(3) for layer in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))]))
    before = record(model)

    def stop(layer: nn.Module, weights: Any) -> None:
        if layer is model[4]:
            raise error
        set_weights(layer, weights)

    monkeypatch.setattr(install_module, "set_weights", stop)
    with pytest.raises(error):
        fold(model, IMAGES)
    assert_unchanged(model, before)


def test_what_held_the_weights_before_keeps_their_values() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    state = model.state_dict()
    values = {name: value.clone() for name, value in state.items()}
    fold(model, IMAGES)
    assert all(torch.equal(state[name], value) for name, value in values.items())


def test_new_weights_keep_layout_dtype_and_requires_grad() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).eval().bfloat16()
    model = model.to(memory_format=torch.channels_last)
    model[0].weight.requires_grad_(requires_grad=False)
    fold(model, IMAGES.bfloat16())
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert (model[0].bias.dtype, model[0].bias.requires_grad) == (torch.bfloat16, False)


def test_noise_of_the_model_is_the_same_in_all_runs() -> None:
    net = randomized(Net(lambda net, x: net.norm(net.conv(x)) + torch.rand_like(x[:, :1])))
    state = torch.get_rng_state()
    assert fold(net, IMAGES).folded
    assert torch.equal(torch.get_rng_state(), state)


class Answers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image: Tensor, *, scale: Tensor) -> dict[str, Any]:
        return {"logits": [self.norm(self.conv(image)) * scale], "best": image.argmax(1)}


@pytest.mark.parametrize(
    ("example", "forward"),
    [
        ({"image": IMAGES, "scale": IMAGES.new_tensor(2.0)}, None),
        ((IMAGES, 3), lambda model, batch: model(batch[0], scale=batch[1])),
    ],
)
def test_examples_and_results_of_any_form(example: Any, forward: Any) -> None:
    model = randomized(Answers())
    kept = deepcopy(example)
    assert fold(model, example, forward=forward).folded
    torch.testing.assert_close(example, kept)


def test_the_report_says_what_became_of_each_norm() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))).float()
    folding = fold(model, IMAGES.float())
    lines = str(folding).splitlines()
    assert lines[:3] == [
        "fold: 1 of 2 norms folded",
        "  1  BatchNorm2d  into 0",
        "  3  BatchNorm2d  left: relu stands between 1 and it",
    ]
    assert folding.gain is not None
    assert folding.proof is not None
    # gone: weight, bias, mean and variance of four channels, and the count
    assert folding.gain.state_bytes[0] - folding.gain.state_bytes[1] == 4 * 4 * 4 + 8
    assert folding.gain.unwritten_bytes == 2 * 4 * 4 * 3 * 4
    assert folding.proof.float64 < 1e-12 < folding.proof.own < 1e-5
    read = json.loads(json.dumps(folding.to_dict()))
    assert read["difference"]["float64"] == folding.proof.float64
    assert read["norms"][0] == {"name": "1", "cls": "BatchNorm2d", "into": ["0"], "reason": None, "is_gone": True}


def test_a_model_without_norms_and_a_norm_alone() -> None:
    folding = fold(nn.Linear(3, 3).eval(), torch.randn(2, 3))
    assert (folding.norms, folding.proof, str(folding)) == ((), None, "fold: 0 of 0 norms folded")
    assert reasons(nn.BatchNorm2d(3).double().eval()) == {"": "it is the model itself"}
