"""Reading vectors from memory and writing them to it: whole, in part, turned by squares, past the caches.

Half types become numbers of the type of computation here, and nowhere else.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

from normkit.backends import processor
from normkit.backends.numba.record import LINE
from normkit.backends.numba.simd import INDEX, PAIRS, STORED, Vector, constant, function, lanes, mask_of

binding.initialize_native_asmparser()  # for instructions that LLVM is told by name


def _compute(stored: Any) -> Vector:
    """The vectors that numbers stored like this are computed in."""
    return Vector(types.float64 if stored == types.float64 else types.float32)


def _widen(builder: Any, stored: Any, value: Any, lanes: int) -> Any:
    if stored == types.uint16:
        bits = builder.shl(builder.zext(value, ir.VectorType(INDEX, lanes)), constant(16, lanes))
        return builder.bitcast(bits, ir.VectorType(ir.FloatType(), lanes))
    if stored == PAIRS:
        half = lanes // 2
        words = builder.bitcast(value, ir.VectorType(INDEX, half))
        even, odd = builder.shl(words, constant(16, half)), builder.and_(words, constant(0xFFFF << 16, half))
        both = builder.shuffle_vector(even, odd, ir.Constant(ir.VectorType(INDEX, lanes), list(range(lanes))))
        return builder.bitcast(both, ir.VectorType(ir.FloatType(), lanes))
    if stored == types.int16:
        return builder.fpext(value, ir.VectorType(ir.FloatType(), lanes))
    return value


def _narrow(builder: Any, stored: Any, value: Any, lanes: int) -> Any:
    """Rounded to nearest even."""
    # the instructions themselves: of what LLVM narrows in its own way nothing would be stored past the caches
    if stored == types.uint16 and "+avx512bf16" in processor.features():  # what is below 1.2e-38 becomes 0
        return _assembled(builder, "vcvtneps2bf16 $1, $0", value, lanes)
    if stored == types.int16 and "+avx512f" in processor.features():
        halves = _assembled(builder, "vcvtps2ph $$0, $1, $0", value, lanes)
        return builder.bitcast(halves, ir.VectorType(ir.HalfType(), lanes))
    if stored in (types.uint16, PAIRS):
        sixteen = constant(16, lanes)
        bits = builder.bitcast(value, ir.VectorType(INDEX, lanes))
        odd = builder.and_(builder.lshr(bits, sixteen), constant(1, lanes))
        up = builder.add(odd, constant(0x7FFF, lanes))
        if stored == PAIRS:  # NaN is plain
            return _joined_words(builder, builder.add(bits, up), lanes // 2)
        up = builder.and_(up, builder.sext(builder.fcmp_ordered("ord", value, value), bits.type))
        return builder.trunc(builder.lshr(builder.add(bits, up), sixteen), ir.VectorType(ir.IntType(16), lanes))
    if stored == types.int16:
        return builder.fptrunc(value, ir.VectorType(ir.HalfType(), lanes))
    return value


def _joined_words(builder: Any, bits: Any, half: int) -> Any:
    """The upper halves of words: of each in the first half of a vector, and of its counterpart in the second."""
    even, odd = (
        builder.shuffle_vector(bits, bits, ir.Constant(ir.VectorType(INDEX, half), list(range(at, at + half))))
        for at in (0, half)
    )
    words = builder.or_(builder.lshr(even, constant(16, half)), builder.and_(odd, constant(0xFFFF << 16, half)))
    return builder.bitcast(words, ir.VectorType(ir.IntType(16), 2 * half))


def _assembled(builder: Any, instruction: str, value: Any, lanes: int) -> Any:
    """The halves that an instruction makes of a vector."""
    kind = ir.FunctionType(ir.VectorType(ir.IntType(16), lanes), [value.type])
    return builder.asm(kind, instruction, "=v,v", [value], False)


def _place(context: Any, builder: Any, sig: Any, args: Any, kind: Any) -> Any:
    """The address of array[index], of the first two arguments (an array or a pointer), as that of a vector."""
    data = args[0]
    if isinstance(sig.args[0], types.Array):
        data = context.make_array(sig.args[0])(context, builder, data).data
    return builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())


@intrinsic
def load(_context, array, index):
    """array[index : index + lanes]."""
    vector = _compute(array.dtype)

    def codegen(context, builder, sig, args):
        kind = ir.VectorType(STORED[array.dtype][0], vector.lanes)
        value = builder.load(_place(context, builder, sig, args, kind), align=array.dtype.bitwidth // 8)
        return _widen(builder, array.dtype, value, vector.lanes)

    return vector(array, types.int64), codegen


@intrinsic
def load_part(_context, array, index, count):
    """array[index : index + count], at least one, and zeros; no more is read."""
    vector = _compute(array.dtype)

    def codegen(context, builder, sig, args):
        number, suffix = STORED[array.dtype]
        kind = ir.VectorType(number, vector.lanes)
        read = _read_halves if _lacks_masks(array.dtype) else _read
        align = array.dtype.bitwidth // 8
        value = read(builder, _place(context, builder, sig, args, kind), args[2], kind, suffix, align)
        return _widen(builder, array.dtype, value, vector.lanes)

    return vector(array, types.int64, types.int64), codegen


def _lacks_masks(stored: Any) -> bool:
    """Whether there is no instruction that masks a half type: it would become a branch for each number."""
    return stored in (types.uint16, types.int16, PAIRS) and "+avx512bw" not in processor.features()


def _read(builder: Any, place: Any, count: Any, kind: Any, suffix: str, align: int) -> Any:
    """The first `count` numbers of a vector in memory, and zeros."""
    mask = mask_of(builder, count, kind.count)
    name = f"llvm.masked.load.v{kind.count}{suffix}.p0"
    read = function(builder, name, kind, [place.type, INDEX, mask.type, kind])
    return builder.call(read, [place, INDEX(align), mask, ir.Constant(kind, None)])


def _read_halves(builder: Any, place: Any, count: Any, kind: Any, _suffix: str, align: int) -> Any:
    """`_read` by pairs; the last number is read again by itself, as it may be the first of a pair."""
    pairs, half = ir.VectorType(INDEX, kind.count // 2), builder.lshr(count, count.type(1))
    some = _read(builder, builder.bitcast(place, pairs.as_pointer()), half, pairs, "i32", align)
    last = builder.sub(count, count.type(1))
    number = builder.load(builder.gep(builder.bitcast(place, kind.element.as_pointer()), [last]))
    return builder.insert_element(builder.bitcast(some, kind), number, last)


@intrinsic
def prefetch(_context, array, index):
    """Ask for the cache line of array[index], which may lie outside."""

    def codegen(context, builder, sig, args):
        place = _place(context, builder, sig, args, ir.IntType(8))
        ask = function(builder, "llvm.prefetch.p0", ir.VoidType(), [place.type, INDEX, INDEX, INDEX])
        builder.call(ask, [place, INDEX(0), INDEX(3), INDEX(1)])  # to read; into all caches; data

    return types.void(array, types.int64), codegen


def _storing(align: Callable[[Any, int], int], past_caches: bool) -> Any:
    @intrinsic
    def write(_context, array, index, vector):
        def codegen(context, builder, sig, args):
            value = _narrow(builder, array.dtype, args[2], vector.lanes)
            place = _place(context, builder, sig, args, value.type)
            written = builder.store(value, place, align=align(array.dtype, vector.lanes))
            if past_caches:
                written.set_metadata("nontemporal", builder.module.add_metadata([INDEX(1)]))

        return types.void(array, types.int64, vector), codegen

    return write


# array[index : index + lanes] = vector; the second past the caches, to an address that is a multiple of its size
store = _storing(lambda dtype, lanes: dtype.bitwidth // 8, False)
stream = _storing(lambda dtype, lanes: dtype.bitwidth // 8 * lanes, True)


def _until(align: Callable[[Any, int], int]) -> Any:
    @intrinsic
    def before(_context, array, index):
        vector = _compute(array.dtype)

        def codegen(context, builder, sig, args):
            size, wide = array.dtype.bitwidth // 8, ir.IntType(64)
            address = builder.ptrtoint(_place(context, builder, sig, args, ir.IntType(8)), wide)
            missing = builder.and_(builder.neg(address), wide(align(array.dtype, vector.lanes) - 1))
            return builder.udiv(missing, wide(size))

        return types.int64(array, types.int64), codegen

    return before


# How many numbers lie before the first, from array[index] on, that a vector can be streamed to; that begins a line
until_stream = _until(lambda dtype, lanes: dtype.bitwidth // 8 * lanes)
until_line = _until(lambda dtype, lanes: LINE)


@intrinsic
def per_line(_context, array):
    """How many numbers of an array lie in a line."""

    def codegen(_context, _builder, _sig, _args):
        return ir.IntType(64)(LINE * 8 // array.dtype.bitwidth)

    return types.int64(array), codegen


@intrinsic
def store_part(_context, array, index, vector, count):
    """array[index : index + count] = vector, at least one number; nothing else is written."""

    def codegen(context, builder, sig, args):
        value = _narrow(builder, array.dtype, args[2], vector.lanes)
        place = _place(context, builder, sig, args, value.type)
        write = _write_halves if _lacks_masks(array.dtype) else _write
        write(builder, place, value, args[3], STORED[array.dtype][1], array.dtype.bitwidth // 8)

    return types.void(array, types.int64, vector, types.int64), codegen


def _write(builder: Any, place: Any, value: Any, count: Any, suffix: str, align: int) -> None:
    """Write the first `count` numbers of a vector."""
    kind = value.type
    mask = mask_of(builder, count, kind.count)
    name = f"llvm.masked.store.v{kind.count}{suffix}.p0"
    write = function(builder, name, ir.VoidType(), [kind, place.type, INDEX, mask.type])
    builder.call(write, [value, place, INDEX(align), mask])


def _write_halves(builder: Any, place: Any, value: Any, count: Any, _suffix: str, align: int) -> None:
    """`_write` by pairs; the last number is written again by itself, as it may be the first of a pair."""
    pairs, half = ir.VectorType(INDEX, value.type.count // 2), builder.lshr(count, count.type(1))
    _write(builder, builder.bitcast(place, pairs.as_pointer()), builder.bitcast(value, pairs), half, "i32", align)
    last = builder.sub(count, count.type(1))
    number = builder.extract_element(value, last)
    builder.store(number, builder.gep(builder.bitcast(place, number.type.as_pointer()), [last]))


@njit
def take(array, index, count, zero):
    """The `count` numbers from array[index] on, and zeros; `zero` is one of the type of computation."""
    return load(array, index) if count >= lanes(zero) else load_part(array, index, count)


@njit
def put(array, index, vector, count, zero):
    """Write the first `count` numbers of a vector, at most all of them."""
    if count >= lanes(zero):
        store(array, index, vector)
    else:
        store_part(array, index, vector, count)


def _turning(count: int) -> list[tuple[list[int], list[int]]]:
    """The stages of a turn: masks for pairs of rows 1, 2, 4, … apart, each of which is one instruction of x86.

    First numbers and then pairs of them are interleaved within 128 bits; then 128 bits each go where they belong.
    """
    part = count // 4  # numbers of 128 bits
    stages = []
    for unit in range(1, part // 2 + 1):
        low = [
            of + at + i
            for at in range(0, count, part)
            for first in range(0, part // 2, unit)
            for of in (0, count)
            for i in range(first, first + unit)
        ]
        stages.append((low, [place + part // 2 for place in low]))
    even = [of + at + i for of in (0, count) for at in range(0, count, 2 * part) for i in range(part)]
    return [*stages, *[(even, [place + part for place in even])] * 2]


@intrinsic
def turn(_context, array, index, stride, table):
    """Write a square to a flat table with its rows and columns swapped; its rows begin at array[index], stride apart.

    It has as many of each as a vector has lanes.
    """
    vector = _compute(array.dtype)
    count = vector.lanes

    def codegen(context, builder, sig, args):
        source, begin, stride, table = args
        stored = ir.VectorType(STORED[array.dtype][0], count)
        rows = []
        for row in range(count):
            index = builder.add(begin, builder.mul(stride, ir.IntType(64)(row)))
            place = _place(context, builder, sig, [source, index], stored)
            value = builder.load(place, align=array.dtype.bitwidth // 8)
            rows.append(_widen(builder, array.dtype, value, count))
        for stage, masks in enumerate(_turning(count)):
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
            place = builder.bitcast(builder.gep(data, [ir.IntType(64)(row * count)]), value.type.as_pointer())
            builder.store(value, place, align=vector.dtype.bitwidth // 8)

    return types.void(array, types.int64, types.int64, table), codegen


@intrinsic
def fence(_context):
    """Make what was streamed visible before the kernel returns."""

    def codegen(_context, builder, _sig, _args):
        builder.fence("seq_cst")

    return types.void(), codegen
