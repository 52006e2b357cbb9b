"""The function in which each OpenMP thread starts."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from normkit.backends.numba.compile import kernel, record
from normkit.backends.numba.record import PHASES

_thread = types.ExternalFunction("omp_get_thread_num", types.int32())
_threads = types.ExternalFunction("omp_get_num_threads", types.int32())
_barrier = types.ExternalFunction("GOMP_barrier", types.void())


@intrinsic
def _call_pointer(_context: Any, function: Any, data: Any, part: Any, parts: Any, phase: Any) -> Any:
    """Call the C function at an address."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, *rest = arguments
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in rest])
        builder.call(builder.inttoptr(address, kind.as_pointer()), rest)

    return types.void(function, data, part, parts, phase), codegen


def make_kernel() -> bytes:
    """Compile a function that calls the kernel of a record with its number among the threads, phase by phase."""

    def start(data):
        g = record(data)
        part, parts = types.int64(_thread()), types.int64(_threads())
        for phase in range(PHASES):
            if g.phases >> phase & 1:
                _call_pointer(g.function, data, part, parts, phase)
                if g.phases >> phase > 1:
                    _barrier()

    code: bytes = kernel(start, types.void(types.voidptr))
    return code
