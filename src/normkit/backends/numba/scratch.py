"""Arrays over memory that Numba does not count: what a call has been given, and what a kernel needs meanwhile."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from normkit.backends.numba.compile import jit
from normkit.backends.numba.record import LINE
from normkit.backends.numba.simd import STORED, function

_BYTE, _WORD = ir.IntType(8).as_pointer(), ir.IntType(64)


def _array(context: Any, builder: Any, kind: Any, data: Any, count: Any) -> Any:
    """Make an array of `count` elements at a pointer."""
    size = _WORD(kind.dtype.bitwidth // 8)
    made = make_array(kind)(context, builder)
    populate_array(made, data=data, shape=[count], strides=[size], itemsize=size, meminfo=None)
    return made._getvalue()


@intrinsic
def array(_context, pointer, count):
    """Return an array of the `count` elements at a pointer."""
    kind = types.Array(pointer.dtype, 1, "C")

    def codegen(context, builder, _sig, args):
        return _array(context, builder, kind, *args)

    return kind(pointer, types.int64), codegen


@intrinsic
def alloc(_context, count, like):
    """Allocate an array of `count` elements of the dtype of `like`, aligned to a cache line; `free` it."""
    kind = types.Array(like, 1, "C")

    def codegen(context, builder, _sig, args):
        allocate = function(builder, "malloc", _BYTE, [_WORD])
        size = builder.mul(args[0], _WORD(like.bitwidth // 8))
        whole = builder.call(allocate, [builder.add(size, _WORD(2 * LINE))])
        aligned = builder.and_(builder.add(builder.ptrtoint(whole, _WORD), _WORD(2 * LINE - 1)), _WORD(-LINE))
        builder.store(whole, _before(builder, aligned))
        data = builder.inttoptr(aligned, STORED[like][0].as_pointer())
        return _array(context, builder, kind, data, args[0])

    return kind(types.int64, like), codegen


def _before(builder: Any, address: Any) -> Any:
    """Return where the address of an allocation is kept: just before its elements."""
    return builder.inttoptr(builder.sub(address, _WORD(8)), _BYTE.as_pointer())


@intrinsic
def free(_context, array):
    """Free an array that `alloc` has made."""

    def codegen(context, builder, sig, args):
        data = make_array(sig.args[0])(context, builder, args[0]).data
        release = function(builder, "free", ir.VoidType(), [_BYTE])
        builder.call(release, [builder.load(_before(builder, builder.ptrtoint(data, _WORD)))])

    return types.void(array), codegen


@intrinsic
def row_of(_context, table, row, width):
    """Return a row of a flat table as an array (a slice of one with two axes is not contiguous)."""

    def codegen(context, builder, sig, args):
        kind, (table, row, width) = sig.args[0], args
        begin = builder.gep(make_array(kind)(context, builder, table).data, [builder.mul(row, width)])
        return _array(context, builder, kind, begin, width)

    return table(table, types.int64, types.int64), codegen


@jit
def fill(array, value):
    """Fill an array with a value."""
    for i in range(array.size):
        array[i] = value
