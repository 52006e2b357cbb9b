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
    """An array of `count` numbers from an address on."""
    size = _WORD(kind.dtype.bitwidth // 8)
    made = make_array(kind)(context, builder)
    populate_array(made, data=data, shape=[count], strides=[size], itemsize=size, meminfo=None)
    return made._getvalue()


@intrinsic
def array(_context, pointer, count):
    """The `count` numbers at a pointer."""
    kind = types.Array(pointer.dtype, 1, "C")

    def codegen(context, builder, _sig, args):
        return _array(context, builder, kind, *args)

    return kind(pointer, types.int64), codegen


@intrinsic
def numbers(_context, count, like):
    """An array of `count` numbers of the type of `like`, which begins with a line; `free` gives it back."""
    kind = types.Array(like, 1, "C")

    def codegen(context, builder, _sig, args):
        allocate = function(builder, "malloc", _BYTE, [_WORD])
        size = builder.mul(args[0], _WORD(like.bitwidth // 8))
        whole = builder.call(allocate, [builder.add(size, _WORD(2 * LINE))])
        place = builder.and_(builder.add(builder.ptrtoint(whole, _WORD), _WORD(2 * LINE - 1)), _WORD(-LINE))
        builder.store(whole, _before(builder, place))
        data = builder.inttoptr(place, STORED[like][0].as_pointer())
        return _array(context, builder, kind, data, args[0])

    return kind(types.int64, like), codegen


def _before(builder: Any, place: Any) -> Any:
    """Where the address of what was allocated is kept: just before the numbers."""
    return builder.inttoptr(builder.sub(place, _WORD(8)), _BYTE.as_pointer())


@intrinsic
def free(_context, array):
    """Give back what `numbers` has made."""

    def codegen(context, builder, sig, args):
        data = make_array(sig.args[0])(context, builder, args[0]).data
        release = function(builder, "free", ir.VoidType(), [_BYTE])
        builder.call(release, [builder.load(_before(builder, builder.ptrtoint(data, _WORD)))])

    return types.void(array), codegen


@intrinsic
def row_of(_context, table, row, width):
    """A row of a table that lies flat in memory: as an array (a slice of one with two axes is not contiguous)."""

    def codegen(context, builder, sig, args):
        kind, (table, row, width) = sig.args[0], args
        begin = builder.gep(make_array(kind)(context, builder, table).data, [builder.mul(row, width)])
        return _array(context, builder, kind, begin, width)

    return table(table, types.int64, types.int64), codegen


@jit
def fill(array, value):
    """Write the same number everywhere."""
    for i in range(array.size):
        array[i] = value
