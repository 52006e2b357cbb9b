"""Loading vectors from memory and storing them: whole or masked, through the caches or past them (non-temporal).

Half-precision elements become elements of the compute dtype here, and nowhere else.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

from normkit.backends import processor
from normkit.backends.numba.record import LINE
from normkit.backends.numba.simd import INDEX, PAIRS, STORED, Vector, constant, function, lanes, mask_of

binding.initialize_native_asmparser()  # for the instructions that are given to LLVM by name


def compute_vector(stored: Any) -> Vector:
    """Return the type of the vectors that elements of a stored dtype are computed in."""
    return Vector(types.float64 if stored == types.float64 else types.float32)


def widen(builder: Any, stored: Any, value: Any, lanes: int) -> Any:
    """Convert a vector of a stored dtype to the compute dtype."""
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
    """Convert a vector of the compute dtype to a stored dtype, rounded to nearest even."""
    # the instructions by name: LLVM would store what it narrows in its own way through the caches
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
        if stored == PAIRS:  # NaN is canonical
            return _merge_words(builder, builder.add(bits, up), lanes // 2)
        up = builder.and_(up, builder.sext(builder.fcmp_ordered("ord", value, value), bits.type))
        return builder.trunc(builder.lshr(builder.add(bits, up), sixteen), ir.VectorType(ir.IntType(16), lanes))
    if stored == types.int16:
        return builder.fptrunc(value, ir.VectorType(ir.HalfType(), lanes))
    return value


def _merge_words(builder: Any, bits: Any, half: int) -> Any:
    """Merge the upper halves of the words in the first half of a vector and of those in its second half, by pairs."""
    even, odd = (
        builder.shuffle_vector(bits, bits, ir.Constant(ir.VectorType(INDEX, half), list(range(start, start + half))))
        for start in (0, half)
    )
    words = builder.or_(builder.lshr(even, constant(16, half)), builder.and_(odd, constant(0xFFFF << 16, half)))
    return builder.bitcast(words, ir.VectorType(ir.IntType(16), 2 * half))


def _assembled(builder: Any, instruction: str, value: Any, lanes: int) -> Any:
    """Convert a vector to 16 bits by an instruction."""
    kind = ir.FunctionType(ir.VectorType(ir.IntType(16), lanes), [value.type])
    return builder.asm(kind, instruction, "=v,v", [value], False)


def vector_pointer(context: Any, builder: Any, sig: Any, args: Any, kind: Any) -> Any:
    """Return a pointer to a vector at array[index], of the first two arguments (an array or a pointer)."""
    data = args[0]
    if isinstance(sig.args[0], types.Array):
        data = context.make_array(sig.args[0])(context, builder, data).data
    return builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())


@intrinsic
def load(_context, array, index):
    """Load array[index : index + lanes]."""
    vector = compute_vector(array.dtype)

    def codegen(context, builder, sig, args):
        kind = ir.VectorType(STORED[array.dtype][0], vector.lanes)
        value = builder.load(vector_pointer(context, builder, sig, args, kind), align=array.dtype.bitwidth // 8)
        return widen(builder, array.dtype, value, vector.lanes)

    return vector(array, types.int64), codegen


@intrinsic
def load_tail(_context, array, index, count):
    """Load array[index : index + count], at least one element, and zeros behind them; no more is read."""
    vector = compute_vector(array.dtype)

    def codegen(context, builder, sig, args):
        element, suffix = STORED[array.dtype]
        kind = ir.VectorType(element, vector.lanes)
        read = _read_halves if _lacks_masks(array.dtype) else _read
        align = array.dtype.bitwidth // 8
        value = read(builder, vector_pointer(context, builder, sig, args, kind), args[2], kind, suffix, align)
        return widen(builder, array.dtype, value, vector.lanes)

    return vector(array, types.int64, types.int64), codegen


def _lacks_masks(stored: Any) -> bool:
    """Return whether no instruction masks a half-precision dtype: a mask would become a branch for each element."""
    return stored in (types.uint16, types.int16, PAIRS) and "+avx512bw" not in processor.features()


def _read(builder: Any, pointer: Any, count: Any, kind: Any, suffix: str, align: int) -> Any:
    """Load the first `count` elements of a vector, and zeros."""
    mask = mask_of(builder, count, kind.count)
    name = f"llvm.masked.load.v{kind.count}{suffix}.p0"
    read = function(builder, name, kind, [pointer.type, INDEX, mask.type, kind])
    return builder.call(read, [pointer, INDEX(align), mask, ir.Constant(kind, None)])


def _read_halves(builder: Any, pointer: Any, count: Any, kind: Any, _suffix: str, align: int) -> Any:
    """Do as `_read` by pairs; the last element is loaded again by itself, as it may be the first of a pair."""
    pairs, half = ir.VectorType(INDEX, kind.count // 2), builder.lshr(count, count.type(1))
    whole = _read(builder, builder.bitcast(pointer, pairs.as_pointer()), half, pairs, "i32", align)
    last = builder.sub(count, count.type(1))
    element = builder.load(builder.gep(builder.bitcast(pointer, kind.element.as_pointer()), [last]))
    return builder.insert_element(builder.bitcast(whole, kind), element, last)


@intrinsic
def prefetch(_context, array, index):
    """Prefetch the cache line of array[index], which may lie outside."""

    def codegen(context, builder, sig, args):
        pointer = vector_pointer(context, builder, sig, args, ir.IntType(8))
        ask = function(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer.type, INDEX, INDEX, INDEX])
        builder.call(ask, [pointer, INDEX(0), INDEX(3), INDEX(1)])  # to read; into all caches; data

    return types.void(array, types.int64), codegen


def _storing(align: Callable[[Any, int], int], *, nontemporal: bool) -> Any:
    @intrinsic
    def write(_context, array, index, vector):
        def codegen(context, builder, sig, args):
            value = _narrow(builder, array.dtype, args[2], vector.lanes)
            pointer = vector_pointer(context, builder, sig, args, value.type)
            written = builder.store(value, pointer, align=align(array.dtype, vector.lanes))
            if nontemporal:
                written.set_metadata("nontemporal", builder.module.add_metadata([INDEX(1)]))

        return types.void(array, types.int64, vector), codegen

    return write


# array[index : index + lanes] = vector; a non-temporal store needs an address that is a multiple of its size
store = _storing(lambda dtype, lanes: dtype.bitwidth // 8, nontemporal=False)
store_nontemporal = _storing(lambda dtype, lanes: dtype.bitwidth // 8 * lanes, nontemporal=True)


def _until(align: Callable[[Any, int], int]) -> Any:
    @intrinsic
    def before(_context, array, index):
        vector = compute_vector(array.dtype)

        def codegen(context, builder, sig, args):
            size, wide = array.dtype.bitwidth // 8, ir.IntType(64)
            address = builder.ptrtoint(vector_pointer(context, builder, sig, args, ir.IntType(8)), wide)
            missing = builder.and_(builder.neg(address), wide(align(array.dtype, vector.lanes) - 1))
            return builder.udiv(missing, wide(size))

        return types.int64(array, types.int64), codegen

    return before


# How many elements lie between array[index] and the first that is aligned for a non-temporal store; to a cache line
until_aligned = _until(lambda dtype, lanes: dtype.bitwidth // 8 * lanes)
until_line = _until(lambda dtype, lanes: LINE)


@intrinsic
def elements_per_line(_context, array):
    """Return how many elements of an array lie in a cache line."""

    def codegen(_context, _builder, _sig, _args):
        return ir.IntType(64)(LINE * 8 // array.dtype.bitwidth)

    return types.int64(array), codegen


@intrinsic
def store_tail(_context, array, index, vector, count):
    """Store array[index : index + count] = vector, at least one element; nothing else is written."""

    def codegen(context, builder, sig, args):
        value = _narrow(builder, array.dtype, args[2], vector.lanes)
        pointer = vector_pointer(context, builder, sig, args, value.type)
        write = _write_halves if _lacks_masks(array.dtype) else _write
        write(builder, pointer, value, args[3], STORED[array.dtype][1], array.dtype.bitwidth // 8)

    return types.void(array, types.int64, vector, types.int64), codegen


def _write(builder: Any, pointer: Any, value: Any, count: Any, suffix: str, align: int) -> None:
    """Store the first `count` elements of a vector."""
    kind = value.type
    mask = mask_of(builder, count, kind.count)
    name = f"llvm.masked.store.v{kind.count}{suffix}.p0"
    write = function(builder, name, ir.VoidType(), [kind, pointer.type, INDEX, mask.type])
    builder.call(write, [value, pointer, INDEX(align), mask])


def _write_halves(builder: Any, pointer: Any, value: Any, count: Any, _suffix: str, align: int) -> None:
    """Do as `_write` by pairs; the last element is stored again by itself, as it may be the first of a pair."""
    pairs, half = ir.VectorType(INDEX, value.type.count // 2), builder.lshr(count, count.type(1))
    _write(builder, builder.bitcast(pointer, pairs.as_pointer()), builder.bitcast(value, pairs), half, "i32", align)
    last = builder.sub(count, count.type(1))
    element = builder.extract_element(value, last)
    builder.store(element, builder.gep(builder.bitcast(pointer, element.type.as_pointer()), [last]))


@njit
def load_masked(array, index, count, zero):
    """Load `count` elements from array[index] on, at most a vector, and zeros; `zero` is of the compute dtype."""
    return load(array, index) if count >= lanes(zero) else load_tail(array, index, count)


@njit
def store_masked(array, index, vector, count, zero):
    """Store the first `count` elements of a vector, at most all of them."""
    if count >= lanes(zero):
        store(array, index, vector)
    else:
        store_tail(array, index, vector, count)


@intrinsic
def fence(_context):
    """Make non-temporal stores visible before the kernel returns."""

    def codegen(_context, builder, _sig, _args):
        builder.fence("seq_cst")

    return types.void(), codegen
