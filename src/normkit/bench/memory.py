"""The memory that a training step keeps between forward and backward."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from normkit.bench.cases import NormCase
from normkit.bench.contenders import OURS, TORCH, inputs, layer
from normkit.bench.environment import describe
from normkit.bench.progress import Progress
from normkit.bench.section import Section
from normkit.bench.table import DTYPES, HEADLINES, SMALLEST

CASES = HEADLINES + DTYPES + SMALLEST


@dataclass(frozen=True)
class Saved:
    """Bytes that one layer saves for backward, its input included, its own parameters and buffers not."""

    case: str
    input: int
    ours: int
    torch: int


@dataclass
class Memory:
    """Saved bytes of our layers and of torch.nn's."""

    rows: list[Saved] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=describe)

    def run(self, progress: Progress) -> None:
        """Count in every case."""
        progress.begin(len(CASES))
        try:
            for case in CASES:
                row = Saved(case.name, case.nbytes, saved_bytes(case, OURS), saved_bytes(case, TORCH))
                self.rows.append(row)
                progress.step(f"{case.name}: {row.ours:,} bytes, torch.nn {row.torch:,}")
        finally:
            progress.end()

    def sections(self) -> list[Section]:
        """Return one table."""
        rows = tuple(
            (
                row.case,
                f"{row.input:,}",
                f"{row.ours:,}",
                f"{row.torch:,}",
                f"{row.ours / row.input:.3f} / {row.torch / row.input:.3f}",
                "more" if row.ours > row.torch else "as much" if row.ours == row.torch else "less",
            )
            for row in self.rows
        )
        more = sum(row.ours > row.torch for row in self.rows)
        note = (
            f"We keep more than torch.nn in {more} of {len(rows)} cases. Counted are the memory blocks that autograd "
            "holds after forward, the input itself among them, parameters and buffers not."
        )
        columns = ("case", "input, bytes", "ours", "torch.nn", "in inputs", "we keep")
        return [Section("Memory kept for backward", columns, rows, (note,))]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"environment": self.environment, "memory": [asdict(row) for row in self.rows]}


def saved_bytes(case: NormCase, contender: str) -> int:
    """Return the bytes that a layer's forward pass in training leaves for backward."""
    module = layer(case, contender).train()
    x = inputs(case)[0].requires_grad_()
    return count_saved(module, x)


def count_saved(module: nn.Module, x: Tensor) -> int:
    """Return the bytes of the distinct memory blocks that autograd saves in module(x), except the module's state."""
    blocks: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        blocks[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = module(x)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    del y  # lives until here, so that no block is freed and counted for another
    return sum(size for address, size in blocks.items() if address not in own)
