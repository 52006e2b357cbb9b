"""The transpose of a square of elements, in registers."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from normkit.backends.numba.memory import compute_vector, vector_pointer, widen
from normkit.backends.numba.simd import INDEX, STORED


def _stages(count: int) -> list[tuple[list[int], list[int]]]:
    """Return the stages of a transpose: shuffles for pairs of rows 1, 2, 4, … apart, each one instruction of x86.

    First elements and then pairs of them are interleaved within 128 bits; then 128 bits each go where they belong.
    """
    part = count // 4  # elements of 128 bits
    stages = []
    for size in range(1, part // 2 + 1):
        even = [
            source + start + i
            for start in range(0, count, part)
            for first in range(0, part // 2, size)
            for source in (0, count)
            for i in range(first, first + size)
        ]
        stages.append((even, [lane + part // 2 for lane in even]))
    last = [source + start + i for source in (0, count) for start in range(0, count, 2 * part) for i in range(part)]
    return [*stages, *[(last, [lane + part for lane in last])] * 2]


@intrinsic
def transpose(_context, array, index, stride, table):
    """Write the transpose of a square to a flat table; the rows of the square begin at array[index], stride apart.

    It has as many rows and columns as a vector has lanes.
    """
    vector = compute_vector(array.dtype)
    count = vector.lanes

    def codegen(context, builder, sig, args):
        source, begin, stride, table = args
        stored = ir.VectorType(STORED[array.dtype][0], count)
        rows = []
        for row in range(count):
            index = builder.add(begin, builder.mul(stride, ir.IntType(64)(row)))
            pointer = vector_pointer(context, builder, sig, [source, index], stored)
            value = builder.load(pointer, align=array.dtype.bitwidth // 8)
            rows.append(widen(builder, array.dtype, value, count))
        for stage, masks in enumerate(_stages(count)):
            apart = 1 << stage
            for i in (row for row in range(count) if not row & apart):
                pair = rows[i], rows[i + apart]
                rows[i], rows[i + apart] = (
                    builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(INDEX, count), mask)) for mask in masks
                )
        if count == 16:  # the second and the third of each four have changed places
            rows = [rows[row & ~3 | (row & 1) << 1 | row >> 1 & 1] for row in range(count)]
        data = context.make_array(sig.args[3])(context, builder, table).data
        for row, value in enumerate(rows):
            pointer = builder.bitcast(builder.gep(data, [ir.IntType(64)(row * count)]), value.type.as_pointer())
            builder.store(value, pointer, align=vector.dtype.bitwidth // 8)

    return types.void(array, types.int64, types.int64, table), codegen
