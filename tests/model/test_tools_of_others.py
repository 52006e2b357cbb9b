"""Tools that look a layer up by its class: what they make of ours, and of what `restored` and `restore` give them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import normkit

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(norm: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    norms = (norm or nn.BatchNorm2d(8), nn.LayerNorm(4))
    return nn.Sequential(nn.Conv2d(3, 8, 3), norms[0], nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4), norms[1])


def accelerated(norm: nn.Module | None = None) -> nn.Sequential:
    model = network(norm)
    assert len(normkit.accelerate(model).swapped) == 2
    return model


def untracked() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(8, track_running_stats=False)


def test_opacus_refuses_a_batch_norm_only_where_it_sees_torchs_class() -> None:
    opacus: Any = pytest.importorskip("opacus")
    validators: Any = pytest.importorskip("opacus.validators")
    for model in (accelerated(untracked()), network(normkit.BatchNorm2d(8, track_running_stats=False))):
        assert validators.ModuleValidator.is_valid(model)  # opacus asks for type(layer): what the docs warn of
        with normkit.restored(model), pytest.raises(Exception, match="BatchNorm"):
            opacus.PrivacyEngine().make_private(
                module=model,
                optimizer=torch.optim.SGD(model.parameters(), 0.1),
                data_loader=torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X), batch_size=2),
                noise_multiplier=1.0,
                max_grad_norm=1.0,
            )


def test_opacus_trains_a_restored_model() -> None:
    grad_sample: Any = pytest.importorskip("opacus.grad_sample")
    model = accelerated(nn.GroupNorm(2, 8))
    with normkit.restored(model):
        wrapped = grad_sample.GradSampleModule(model)
        wrapped(X).square().sum().backward()
    parameters: list[Any] = list(model.parameters())
    assert all(parameter.grad_sample.shape == (2, *parameter.shape) for parameter in parameters)


def test_torch_ao_fuses_and_quantizes_a_restored_model() -> None:
    quantization = torch.ao.quantization
    model = accelerated().eval()
    with pytest.raises(AssertionError, match="did not find fuser method"):
        quantization.fuse_modules(model, [["0", "1", "2"]])
    with normkit.restored(model):
        fused = quantization.fuse_modules(model, [["0", "1", "2"]])
    assert type(model[1]) is normkit.BatchNorm2d
    torch.testing.assert_close(fused(X), model(X))

    stubs = quantization.QuantStub(), quantization.DeQuantStub()
    whole: Any = nn.Sequential(stubs[0], *model, stubs[1]).eval()
    whole.qconfig = quantization.get_default_qconfig("x86")

    def quantized() -> Any:
        prepared = quantization.prepare(whole)
        prepared(X)
        return quantization.convert(prepared)

    with pytest.raises(
        NotImplementedError, match=r"got torch\.quint8.*call normkit\.restore\(model\) before torch\.ao"
    ):
        quantized()(X)
    normkit.restore(whole)
    whole[1], whole[2], whole[3] = fused[:3]
    torch.testing.assert_close(quantized()(X), model(X), rtol=0.1, atol=0.1)


def count_thop(model: nn.Module) -> Any:
    return pytest.importorskip("thop").profile(model, (X,), verbose=False)


def count_ptflops(model: nn.Module) -> Any:
    return pytest.importorskip("ptflops").get_model_complexity_info(
        model, (3, 8, 8), as_strings=False, print_per_layer_stat=False, backend="pytorch", verbose=False
    )


@pytest.mark.parametrize("count", [count_thop, count_ptflops])
def test_counters_of_operations_by_class_miss_norms_unless_they_are_restored(count: Callable[[Any], Any]) -> None:
    expected, model = count(network()), accelerated()
    assert count(copy.deepcopy(model))[0] < expected[0]
    with normkit.restored(model):
        assert count(copy.deepcopy(model)) == expected


def test_captum_propagates_relevance_through_a_restored_model() -> None:
    attr: Any = pytest.importorskip("captum.attr")
    model = nn.Sequential(*list(accelerated())[:3], nn.AdaptiveAvgPool2d(1)).eval()
    with pytest.raises(TypeError, match="has no rule defined"):
        attr.LRP(model).attribute(X, target=(0, 0, 0))
    with normkit.restored(model):
        assert attr.LRP(model).attribute(X, target=(0, 0, 0)).shape == X.shape


def prune(model: Any) -> Any:
    pruning: Any = pytest.importorskip("torch_pruning")
    graph = pruning.DependencyGraph().build_dependency(model, example_inputs=X)
    graph.get_pruning_group(model[0], pruning.prune_conv_out_channels, idxs=[0, 1, 2, 3]).prune()
    return model[1].num_features, model(X)


def summarize(model: nn.Module) -> Any:
    found = pytest.importorskip("torchinfo").summary(model, input_data=X, verbose=0)
    return found.total_mult_adds, found.total_params, [len(line) for line in str(found).splitlines()]


def tune_layer_norm(model: nn.Module) -> Any:
    peft: Any = pytest.importorskip("peft")
    tuned = peft.get_peft_model(model, peft.LNTuningConfig(target_modules=["5"]))
    return [parameter.requires_grad for parameter in tuned.parameters()], tuned(X)


def explain_by_deeplift(model: nn.Module) -> Any:
    return pytest.importorskip("captum.attr").DeepLift(model.eval()).attribute(X, target=0)


def count_aten(model: nn.Module) -> Any:
    return pytest.importorskip("ptflops").get_model_complexity_info(
        model, (3, 8, 8), as_strings=False, print_per_layer_stat=False, backend="aten", verbose=False
    )


def renew_statistics(model: Any) -> Tensor:
    update_bn([X], model)
    mean: Tensor = model[1].running_mean
    return mean


def synchronize(model: nn.Module) -> Any:
    converted: Any = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(converted[1]) is nn.SyncBatchNorm
    return converted.eval()(X)


@pytest.mark.parametrize(
    "tool", [prune, summarize, tune_layer_norm, explain_by_deeplift, count_aten, renew_statistics, synchronize]
)
def test_tools_that_ask_isinstance_or_watch_operations_need_nothing(tool: Callable[[Any], Any]) -> None:
    torch.testing.assert_close(tool(accelerated()), tool(network()))


def act_layer(cls: Any) -> Any:
    torch.manual_seed(0)
    layer = cls(3)
    layer(X)  # statistics of its own
    return layer.eval()


@pytest.mark.parametrize("name", ["freeze_batch_norm_2d", "convert_sync_batchnorm"])
def test_timms_converters_keep_the_activation_of_timms_class_and_are_stopped_or_documented_at_ours(name: str) -> None:
    timm: Any = pytest.importorskip("timm.layers")
    convert = getattr(timm, name)
    theirs, ours = act_layer(timm.BatchNormAct2d), act_layer(normkit.BatchNormAct2d)
    expected = theirs(X)
    normkit.accelerate(theirs)
    torch.testing.assert_close(convert(theirs)(X), expected)
    if name == "convert_sync_batchnorm":
        with pytest.raises(RuntimeError, match=r"normkit\.convert_sync_batchnorm"):
            convert(ours)
    else:  # what docs/pytorch.md warns of
        assert not torch.allclose(convert(ours)(X), expected)
    torch.testing.assert_close(ours(X), expected)


class TestFactoriesOfTimm:
    """What docs/pytorch.md says that they build."""

    def test_a_layer_of_a_factory_is_accelerated(self) -> None:
        timm: Any = pytest.importorskip("timm.layers")
        ours, theirs = (nn.Sequential(timm.create_norm_act_layer("batchnorm", 3, act_layer="silu")) for _ in range(2))
        assert len(normkit.accelerate(ours).swapped) == 1
        assert isinstance(ours[0], timm.BatchNormAct2d)
        torch.testing.assert_close(ours(X), theirs(X))

    def test_a_norm_with_an_activation(self) -> None:
        timm: Any = pytest.importorskip("timm.layers")
        assert type(timm.create_norm_act_layer(normkit.BatchNorm2d, 3)) is timm.BatchNormAct2d
        with pytest.raises(AssertionError, match="batchnormact2d"):
            timm.create_norm_act_layer(normkit.BatchNormAct2d, 3)

        def norm_act(channels: int, **options: Any) -> nn.Module:
            return normkit.BatchNormAct2d(channels, act_layer=nn.SiLU, **options)

        layer = timm.create_norm_act_layer(norm_act, 3, act_layer="silu")
        assert type(layer) is normkit.BatchNormAct2d
        torch.testing.assert_close(layer(X), timm.create_norm_act_layer("batchnorm", 3, act_layer="silu")(X))

    def test_a_layer_norm(self) -> None:
        timm: Any = pytest.importorskip("timm.layers")
        layer = timm.create_norm_layer(normkit.LayerNorm2d, 3, eps=1e-6, elementwise_affine=False)
        assert type(layer) is normkit.LayerNorm2d
        torch.testing.assert_close(layer(X), timm.LayerNorm2d(3, affine=False)(X))
