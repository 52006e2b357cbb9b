"""Run kernels on memory that begins or ends at pages that nobody may touch: one element too far ends the process.

Run as ``python -m tests.kernels.guard_pages FIRST STEP``, which takes each STEP-th case from the FIRST on and prints it
before it runs, so the last line names the case that went too far. With ``short`` in place of both, a kernel gets one
byte less than it reads, which must end the process.

Every buffer of a call lies between guard pages of its own, at its beginning or at its end; what a kernel only reads is
write-protected. What kernels allocate while they run ends at a guard page too. Each call is made with one thread and
with several, with and without streaming stores, and must give the same bits each time.
"""

import ctypes
import faulthandler
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from llvmlite import binding
from torch import Tensor

import normkit
from normkit.backends import Call, Epilogue, normalize, numba, processor
from normkit.backends.call import RELU
from normkit.backends.dtypes import KERNEL_DTYPES, compute_dtype
from normkit.backends.masked import normalize_masked
from normkit.backends.masks import read_mask
from normkit.backends.numba import BackwardPointers, ForwardPointers, masked
from normkit.backends.numba.masked.record import SIZES as MASKED_SIZES
from normkit.backends.numba.record import SHAPE_STRUCT, SIZES
from normkit.spec import Norm
from normkit.statistics import Running
from tests.cases import CASES, Case, draw, layouts

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def protect(address: int, size: int, access: int) -> None:
    """Say what may be done with whole pages."""
    if size and _libc.mprotect(address, size, access):
        raise OSError(ctypes.get_errno(), "mprotect")


class Pages:
    """Memory between two guard pages."""

    def __init__(self, nbytes: int, at_end: bool) -> None:
        self.size = -(-nbytes // PAGE) * PAGE
        self.memory = mmap.mmap(-1, self.size + 2 * PAGE)
        self.first = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + PAGE
        self.address = self.first + (self.size - nbytes if at_end else 0)
        protect(self.first - PAGE, PAGE, 0)
        protect(self.first + self.size, PAGE, 0)


class Buffer(NamedTuple):
    """What a kernel is given: an address, how many bytes lie there, and whether it writes them."""

    address: int
    nbytes: int
    written: bool = False
    before: int = 0  # bytes in front of the address that belong to it too


short = False  # whether to give the first buffer one byte less


def guarded(buffers: dict[str, Buffer], at_end: bool, run: Callable[[dict[str, int]], None], keep: bool) -> list[bytes]:
    """Run a kernel on copies between guard pages; return what it has written, and keep it if that is wanted."""
    copies = {}
    for name, (address, nbytes, is_written, before) in buffers.items():
        if not address:
            continue
        nbytes -= short and name == "x"
        pages = copies[name] = Pages(nbytes, at_end)
        ctypes.memmove(pages.address, address - before, nbytes)
        if not is_written:
            protect(pages.first, pages.size, mmap.PROT_READ)
    run({name: copies[name].address + buffer.before if name in copies else 0 for name, buffer in buffers.items()})
    results = {
        name: ctypes.string_at(copies[name].address, buffers[name].nbytes) for name in copies if buffers[name][2]
    }
    if keep:
        for name, content in results.items():
            ctypes.memmove(buffers[name].address, content, len(content))
    return [content for name, content in results.items() if name != "scratch"]


def every_way(buffers: dict[str, Buffer], run: Callable[..., None]) -> None:
    """Run a kernel at both ends, with and without streaming stores, with one thread and several."""
    found: list[list[bytes]] = []
    for at_end, streams, threads in WAYS:
        one_way = partial(run, streams=streams, threads=threads)
        found.append(guarded(buffers, at_end, one_way, keep=len(found) == len(WAYS) - 1))
    assert all(one == found[0] for one in found), "the bits differ"


WAYS = ((False, False, 1), (True, False, 3), (False, True, 3), (True, True, 1))  # at the end, streaming, threads


class Sizes(NamedTuple):
    """Bytes of an element as it is stored and as it is computed, and of the whole input."""

    stored: int
    compute: int
    numel: int


current = Sizes(0, 0, 0)  # of the case that runs


def _prepared(launch: numba.Launch, streams: bool, ones: int, zeros: int) -> numba.Launch:
    fields = list(SHAPE_STRUCT.unpack(launch.shape_struct))
    fields[SIZES.index("stream")] |= streams
    return replace(
        launch, shape_struct=SHAPE_STRUCT.pack(*fields), single_threaded=False, ones=ones or 1, zeros=zeros or 1
    )


def _forward(
    launch: numba.Launch,
    pointers: ForwardPointers,
    eps: float,
    momentum: float,
    bounds: tuple[float, float],
    scratch: int,
    _threads: int,
    original: Any = numba.forward,
) -> None:
    p, (stored, compute, numel) = pointers, current
    assert prod(SHAPE_STRUCT.unpack(launch.shape_struct)[:4]) == numel
    precomputed = bool(SHAPE_STRUCT.unpack(launch.shape_struct)[SIZES.index("precomputed")])
    x, affine, stats = numel * stored, launch.affine_size * compute, launch.num_stats * compute
    buffers = {
        "x": Buffer(p.x, x),
        "y": Buffer(p.y, x, True),
        "residual": Buffer(p.residual, x),
        "weight": Buffer(p.weight, affine),
        "bias": Buffer(p.bias, affine),
        "mean": Buffer(p.mean, stats, not precomputed),
        "var": Buffer(p.var, stats, not precomputed),
        "rstd": Buffer(p.rstd, stats, True),
        "shift": Buffer(p.shift, stats, True),
        "running_mean": Buffer(p.running_mean, stats, True),
        "running_var": Buffer(p.running_var, stats, True),
        "num_batches_tracked": Buffer(p.num_batches_tracked, 8, True),
        "scratch": Buffer(scratch, launch.scratch_bytes, True),
        "ones": Buffer(0 if p.weight else launch.ones, affine),
        "zeros": Buffer(0 if p.bias else launch.zeros, affine),
    }

    def run(at: dict[str, int], streams: bool, threads: int) -> None:
        prepared = _prepared(launch, streams, at["ones"], at["zeros"])
        guarded_pointers = ForwardPointers(**{name: at[name] for name in ForwardPointers._fields})
        original(prepared, guarded_pointers, eps, momentum, bounds, at["scratch"], threads)

    every_way(buffers, run)


def _backward(
    launch: numba.Launch,
    pointers: BackwardPointers,
    bounds: tuple[float, float],
    scratch: int,
    _threads: int,
    original: Any = numba.backward,
) -> None:
    p, (stored, compute, numel) = pointers, current
    x, affine, stats = numel * stored, launch.affine_size * compute, launch.num_stats * compute
    buffers = {
        "x": Buffer(p.x, x),
        "dy": Buffer(p.dy, x),
        "dx": Buffer(p.dx, x, True),
        "weight": Buffer(p.weight, affine),
        "mean": Buffer(p.mean, stats),
        "rstd": Buffer(p.rstd, stats),
        "shift": Buffer(p.shift, stats),
        "dweight": Buffer(p.dweight, affine, True),
        "dbias": Buffer(p.dbias, affine, True),
        "scratch": Buffer(scratch, launch.scratch_bytes, True),
        "ones": Buffer(0 if p.weight else launch.ones, affine),
        "zeros": Buffer(launch.zeros, affine),
    }

    def run(at: dict[str, int], streams: bool, threads: int) -> None:
        prepared = _prepared(launch, streams, at["ones"], at["zeros"])
        guarded_pointers = BackwardPointers(**{name: at[name] for name in BackwardPointers._fields})
        original(prepared, guarded_pointers, bounds, at["scratch"], threads)

    every_way(buffers, run)


def _masked(launch: masked.Launch, pointers: Any, written: set[str], run: Callable[[Any, Any, int], None]) -> None:
    """Run a masked kernel, whose pointers are those of a pass."""
    stored, compute, numel = current
    values = dict(zip(MASKED_SIZES, launch.forward[1], strict=True))
    num_stats, outer, spans = values["num_stats"], values["outer"], values["spans"]
    rows = num_stats * outer * spans
    over_batch = values["sample_step"] == 1
    channels = num_stats * spans if over_batch else values["period"] * spans
    samples = rows // channels
    margin = masked.MARGIN * compute
    sizes = {
        **dict.fromkeys(("x", "y", "dy", "dx"), numel * stored),
        **dict.fromkeys(("mean", "mean_lo", "var", "rstd"), num_stats * compute),
        **dict.fromkeys(("weight", "bias"), channels * compute),
        **dict.fromkeys(("dweight", "dbias"), num_stats * spans * compute),
        "weights": samples * values["size"] * compute + 2 * margin,
        "totals": 8 if over_batch else 8 * samples,
    }
    buffers = {
        name: Buffer(address, sizes[name], name in written, margin if name == "weights" else 0)
        for name, address in pointers._asdict().items()
    }

    def guarded_run(at: dict[str, int], streams: bool, threads: int) -> None:
        def streaming(part: tuple[int, tuple[int, ...]]) -> tuple[int, tuple[int, ...]]:
            fields = list(part[1])
            fields[MASKED_SIZES.index("stream")] |= streams
            return part[0], tuple(fields)

        prepared = masked.Launch(streaming(launch.forward), streaming(launch.backward), single_threaded=False)
        run(prepared, type(pointers)(**at), threads)

    every_way(buffers, guarded_run)


def _masked_forward(
    launch: masked.Launch, pointers: Any, eps: float, _threads: int, original: Any = masked.run_forward
) -> None:
    written = {"y", "mean", "mean_lo", "var", "rstd"}
    _masked(launch, pointers, written, lambda prepared, p, threads: original(prepared, p, eps, threads))


def _masked_backward(launch: masked.Launch, pointers: Any, _threads: int, original: Any = masked.run_backward) -> None:
    _masked(launch, pointers, {"dx", "dweight", "dbias"}, original)


@contextmanager
def guards() -> Iterator[None]:
    """Put every buffer of every kernel that runs here between guard pages."""
    allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(_allocate)
    release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_release)
    for name, function in (("malloc", allocate), ("free", release)):  # of the kernels that are loaded from now on
        binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    with (
        patch.multiple(numba, forward=_forward, backward=_backward),
        patch.multiple(masked, run_forward=_masked_forward, run_backward=_masked_backward),
    ):
        yield
    assert not _allocated, "memory was not freed"


_allocated: dict[int, Pages] = {}
allocations = 0


def _allocate(nbytes: int) -> int:
    """Allocate what `alloc` asks for, two lines more than an array takes, so that the array ends at the guard page."""
    global allocations
    allocations += 1
    pages = Pages(nbytes - 1, at_end=True)
    _allocated[pages.address] = pages
    return pages.address


def _release(address: int) -> None:
    del _allocated[address]


def cases() -> Iterator[tuple[str, Case, torch.dtype, bool]]:
    """Yield every case, dtype and layout."""
    rows = [Case(norm, (5, size)) for size in (*range(2, 36), 63, 64, 65, 127, 129, 1031) for norm in _row_norms(size)]
    dtypes = [dtype for dtype in KERNEL_DTYPES if dtype is not torch.float16 or processor.has("f16c")]
    for case, dtype in product((*CASES, *rows), dtypes):
        for last in layouts(case.shape):
            yield f"{case} {dtype} {'channels last' if last else ''}", case, dtype, last


def _row_norms(size: int) -> tuple[Norm, ...]:
    whole = (size,)
    return (
        Norm("layer", normalized_shape=whole),
        Norm("layer", subtract_mean=False, normalized_shape=whole),
        Norm("batch"),
    )


def run_case(case: Case, dtype: torch.dtype, last: bool) -> None:
    """Make every kind of call of a case."""
    compute = compute_dtype(dtype)
    for affine in ("both", "weight", "none"):
        data = draw(case, dtype, last, affine)
        x, weight, bias = (
            None if tensor is None else tensor.requires_grad_() for tensor in (data.x, data.weight, data.bias)
        )
        assert x is not None
        plain = Call(x, case.norm, weight, bias, data.eps)
        calls = [plain]
        if case.norm.kind == "batch":
            stats = torch.zeros(case.shape[1], dtype=compute), torch.ones(case.shape[1], dtype=compute)
            running = Running(*stats, 0.1, torch.tensor(0))
            residual = torch.ones_like(data.x)
            calls += [plain._replace(running=running), plain._replace(running=running, use_input_stats=False)]
            calls += [call._replace(epilogue=Epilogue(RELU)) for call in calls[1:]]
            calls += [call._replace(epilogue=Epilogue(RELU, residual)) for call in calls[1:3]]
        for call in calls:
            _step(normalize(call), [x, weight, bias], data.dy)
        if case.norm.kind in ("batch", "instance", "group"):
            mask = read_mask(x, _mask(case.shape))
            _step(normalize_masked(plain, mask), [x, weight, bias], data.dy)


def _step(y: Tensor, inputs: list[Tensor | None], dy: Tensor) -> None:
    """Take all gradients, and those without that of x."""
    wanted = [tensor for tensor in inputs if tensor is not None]
    torch.autograd.grad(y, wanted, dy, retain_graph=True)
    if len(wanted) > 1:
        torch.autograd.grad(y, wanted[1:], dy)


def _mask(shape: tuple[int, ...]) -> Tensor:
    """Return a mask that leaves two positions, at least, of all that share a statistic."""
    mask = torch.rand(shape[0], *shape[2:], generator=torch.Generator().manual_seed(1)) < 0.7
    mask.view(shape[0], -1)[:, :2] = True
    if mask.dim() == 1:
        mask[2:] = torch.arange(2, shape[0]) % 3 != 0
    return mask


def main(first: int, step: int) -> None:
    """Run each `step`-th case."""
    global current
    faulthandler.enable()
    with guards(), normkit.use_backend("numba"):
        for name, case, dtype, last in list(cases())[first::step]:
            print(name, flush=True)
            current = Sizes(dtype.itemsize, compute_dtype(dtype).itemsize, torch.Size(case.shape).numel())
            run_case(case, dtype, last)
    assert allocations, "no kernel has allocated anything"


if __name__ == "__main__":
    short = sys.argv[1:] == ["short"]
    main(*((0, 1) if short else map(int, sys.argv[1:])))
