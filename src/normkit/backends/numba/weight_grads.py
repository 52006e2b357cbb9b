"""The gradients of weight and bias: each task of a backward kernel sums partial ones, which are summed last."""

from normkit.backends.numba.compile import cast, inline, jit, pointer
from normkit.backends.numba.scratch import alloc, fill, free


@jit
def reduce_partials(g, compute, part, parts):
    """Sum the partial dweights and dbiases to dweight and dbias, for a share of their elements."""
    size = g.affine_size
    left, right = size * part // parts, size * (part + 1) // parts
    dweight, dbias = pointer(g.dweight, compute), pointer(g.dbias, compute)
    partials, zero, sums = pointer(g.partials, compute), compute(0), alloc(right - left, 0.0)
    for which, result in enumerate((dweight, dbias)):
        fill(sums, 0.0)
        for partial in range(g.num_partials):
            offset = (which * g.num_partials + partial) * size + left
            for c in range(right - left):
                sums[c] += float(partials[offset + c])
        for c in range(right - left):
            result[left + c] = cast(sums[c], zero)
    free(sums)


@inline
def partial_offsets(g, partial, weight):
    """Return where a partial dweight and a partial dbias lie among all, for the weight at an offset."""
    dweight = partial * g.affine_size + weight
    return dweight, dweight + g.num_partials * g.affine_size
