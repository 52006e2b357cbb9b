"""A version of torch without one of the private names that are asked for: slower or less able, never wrong."""

import subprocess
import sys

import pytest

# Each child of one process sees a torch that lacks some names, and says what went wrong.
CODE = """
import builtins, os, sys, warnings
import torch
from torch import nn
from torch.autograd import forward_ad
import torch.utils.checkpoint, torch.fx, torch._subclasses

NAMES = [
    "_get_tracing_state", "peek_interpreter_stack", "CInterpreter", "is_functorch_wrapped_tensor", "is_batchedtensor",
    "_len_torch_dispatch_stack", "_current_autograd_node", "_register_hook_dict", "_current_level",
    "_has_any_global_hook", "apply", "GraphExecGroup", "_get_deterministic_algorithms",
    "is_legacy_batchedtensor",
]


def import_without(names):
    getattr_ = builtins.getattr
    def hidden(obj, name, *default):
        return default[0] if default and name in names else getattr_(obj, name, *default)
    builtins.getattr = hidden
    try:
        import normkit
        import normkit.backends.kernels, normkit.backends.sync_batch_norm
    finally:
        builtins.getattr = getattr_
    return normkit


def near(a, b, what):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=lambda text: what + ": " + text)


def exercise(normkit):
    torch.manual_seed(0)
    rows = {"BatchNorm2d": (6,), "LayerNorm": (8,), "GroupNorm": (2, 6), "InstanceNorm2d": (6,), "RMSNorm": (8,)}
    for name, arguments in rows.items():
        layer, twin = (getattr(of, name)(*arguments) for of in (normkit, nn))
        for shape in ((3, 6, 4, 8), (16, 6, 128, 8)):
            theirs = getattr(nn, name)(*arguments)
            for backend in ("auto", "numba", "aten", "eager"):
                with normkit.use_backend(backend):
                    x = torch.randn(shape, requires_grad=True)
                    near(layer(x), theirs(x), name)
                    dy = torch.randn(shape)
                    mine, other = (torch.autograd.grad(net(x), x, dy)[0] for net in (layer, theirs))
                    near(mine, other, name + " gradient")
        x = torch.randn(3, 6, 4, 8, requires_grad=True)
        dys = torch.randn(2, 3, 6, 4, 8)
        with normkit.use_backend("numba"):
            (many,) = torch.autograd.grad(layer(x), x, dys, is_grads_batched=True)
            near(many[1], torch.autograd.grad(layer(x), x, dys[1])[0], "a batch of gradients")
        # third derivatives, forward mode, torch.func, under a fake mode, traced, with channels last
        x = torch.randn(3, 6, 4, 8, requires_grad=True)
        def third(backend):
            with normkit.use_backend(backend):
                value = layer(x).sin().sum()
                for _ in range(3):
                    (g,) = torch.autograd.grad(value, x, create_graph=True)
                    value = g.square().sum()
            return g.detach()
        near(third("auto"), third("eager"), "third derivative")
        if not getattr(layer, "track_running_stats", False):
            near(torch.func.grad(lambda t: layer(t).sin().sum())(x.detach()),
                 torch.autograd.grad(layer(x).sin().sum(), x)[0], "torch.func.grad")
            last = torch.randn(2, 3, 6, 4, 8).contiguous()
            near(torch.vmap(layer)(last), torch.stack([layer(one) for one in last]), "vmap")
            with forward_ad.dual_level():
                tangent = torch.randn_like(x)
                out = forward_ad.unpack_dual(layer(forward_ad.make_dual(x.detach(), tangent))).tangent
            _, expected = torch.func.jvp(twin, (x.detach(),), (tangent,))
            near(out, expected, "forward mode")
        layer.eval()
        big = torch.randn(16, 6, 128, 8)
        with torch._subclasses.FakeTensorMode():
            fake = type(layer)(*arguments)(torch.empty(16, 6, 128, 8))
            assert isinstance(fake, torch._subclasses.FakeTensor), "a fake mode was not seen"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            near(torch.jit.trace(layer, big)(big), layer(big), "traced")
        y = layer(big.contiguous(memory_format=torch.channels_last))
        near(y, layer(big), "channels last")
        layer.train()
    act = normkit.BatchNormAct2d(6)
    x = torch.randn(4, 6, 5, 5)
    near(act(x), nn.functional.relu(nn.BatchNorm2d(6)(x)), "BatchNormAct2d")
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *rest: seen.append(type(module)))
    act(x)
    handle.remove()
    assert nn.ReLU in seen, "a global hook was not told of the activation"


failures = []
warnings.simplefilter("ignore")
for names in [NAMES] if sys.argv[1] == "all" else [[], *([name] for name in NAMES)]:
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        code = 1
        try:
            exercise(import_without(names))
            code = 0
        except BaseException as error:
            print(names, type(error).__name__, str(error)[:2000], flush=True)
        os._exit(code)
    if os.waitpid(child, 0)[1]:
        failures.append(names)
print("without", failures, "something failed" if failures else "nothing failed")
"""


@pytest.mark.parametrize("missing", ["all", pytest.param("each", marks=pytest.mark.slow)])
def test_private_names_may_be_missing(missing: str) -> None:
    run = subprocess.run([sys.executable, "-c", CODE, missing], capture_output=True, text=True, check=False)
    assert "nothing failed" in run.stdout, run.stdout[-6000:] + run.stderr[-3000:]
