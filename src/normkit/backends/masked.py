"""Normalization of the elements that a mask leaves: statistics, results and gradients as if there were no others."""

import torch
from torch import Tensor

from normkit.backends.call import Call
from normkit.backends.checks import check_floating_point, check_numbers, check_tensors, check_training_eps
from normkit.backends.dispatch import normalize, runs_kernel
from normkit.backends.masked_operations import channels_together, normalize_by_operations, without_padding
from normkit.backends.masks import Mask, Sums, can_be_inspected, sums_of


def normalize_masked(call: Call, mask: Mask) -> Tensor:
    """Normalize what is valid, by its own statistics or by the running ones; padding becomes 0.

    Args:
        call: Of a batch, instance or group norm, without an epilogue.
        mask: Of its input.

    Raises:
        ValueError: statistics of one element; eps that is not positive.
        RuntimeError: a shape, dtype or device that does not fit; a forced back end that cannot take the call.
    """
    if not call.use_input_stats:
        return without_padding(normalize(call._replace(x=without_padding(call.x, mask))), mask)
    sums = sums_of(mask)
    check_masked(call, sums)
    if call.running is not None:
        call.running.count_batch()
    wants_gradient_of_weights = mask.weights.requires_grad and torch.is_grad_enabled()
    if not wants_gradient_of_weights and runs_kernel(call):
        from normkit.backends import masked_kernels

        return masked_kernels.normalize(call, mask, sums)
    return normalize_by_operations(call, mask, sums)


def check_masked(call: Call, sums: Sums) -> None:
    """Raise where the call does not fit, or where statistics would be taken from one valid element."""
    x, norm = call.x, call.norm
    check_numbers(call)
    check_tensors(call)
    check_floating_point(call)
    if norm.kind == "batch":
        check_training_eps(call)
    if not can_be_inspected(x, sums.counts):
        return
    counts = sums.counts.sum() if norm.kind == "batch" else sums.counts
    if bool((counts * channels_together(call) == 1).any()):
        where = "" if norm.kind == "batch" else " of a sample"
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)} with 1 valid "
            f"position{where}; mask it too, use a larger batch, or .eval() to normalize by running statistics"
        )
