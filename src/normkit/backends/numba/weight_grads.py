"""The gradients of weight and bias, which a backward kernel sums by parts of the input, of all parts together."""

from normkit.backends.numba.compile import cast, inline, jit, pointer
from normkit.backends.numba.scratch import fill, free, numbers


@jit
def add_parts(g, compute, part, parts):
    """Dweight and dbias: the sums over p of dweights[0, p] and of dweights[1, p], for a share of their numbers."""
    size = g.affine_size
    left, right = size * part // parts, size * (part + 1) // parts
    dweight, dbias = pointer(g.dweight, compute), pointer(g.dbias, compute)
    dweights, zero, totals = pointer(g.dweights, compute), compute(0), numbers(right - left, 0.0)
    for which, result in enumerate((dweight, dbias)):
        fill(totals, 0.0)
        for p in range(g.affine_parts):
            at = (which * g.affine_parts + p) * size + left
            for c in range(right - left):
                totals[c] += float(dweights[at + c])
        for c in range(right - left):
            result[left + c] = cast(totals[c], zero)
    free(totals)


@inline
def gradients_of(g, part, place):
    """Where, in dweights, a part's gradients begin of the weights and of the biases that lie at a place."""
    to_weight = part * g.affine_size + place
    return to_weight, to_weight + g.affine_parts * g.affine_size
