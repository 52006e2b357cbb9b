"""A self-contained HTML page of a diagnosis: causes, the gap along the depth, and plots of each layer."""

from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from normkit.files import write_atomic
from normkit.model.diagnose.page import pictures
from normkit.model.diagnose.report import COLUMNS, Diagnosis, Layer, amount, row, shorten
from normkit.pages import render_page


def page(found: Diagnosis) -> str:
    """Return the page. It needs no script and loads nothing; light or dark is the reader's setting."""
    concerned = {name for finding in found.findings for name in finding.layers}
    return render_page(
        "normkit.model.diagnose.page",
        found=found,
        columns=COLUMNS,
        rows=[row(layer) for layer in found.layers],
        depth=Markup(pictures.depth(found.layers)) if found.layers else "",
        layers=[
            {
                "name": layer.name or "the model",
                "cls": layer.cls,
                "open": layer.name in concerned,
                "facts": list(facts(layer)),
                "plots": [Markup(draw(layer)) for draw in (pictures.means, pictures.stds, pictures.histograms)],
            }
            for layer in found.layers
        ],
        shorten=shorten,
    )


def save(found: Diagnosis, path: Path) -> None:
    """Write the page into a file, which is whole or as it was.

    Raises:
        UserError: it cannot be written.
    """
    write_atomic(path, page(found).encode())


def facts(layer: Layer) -> Iterator[tuple[str, str]]:
    """Yield what was measured of a layer, as a label and a value; what is as it should be is left out."""
    yield "channels", str(layer.channels)
    yield "behind a statistic", f"{layer.samples} samples, {layer.values} values"
    if layer.momentum is not None:
        yield "weight of a new batch", amount(layer.momentum)
    yield "shift", f"{amount(layer.shift)}, of a single batch {amount(layer.noise)}"
    yield "batch means vary", f"{amount(layer.between)} times as much as by chance"
    yield "eps in var + eps", f"{layer.swallowed:.1%}"
    if layer.uses > 1:
        yield "uses", f"{layer.uses}, {amount(layer.use_distance)} from their mixture"
    if layer.padded:
        yield "padded positions", f"{layer.padded:.0%}, which shift values by {amount(layer.padding_distance)}"
    for label, count in (("constant", layer.constant), ("dead", layer.dead), ("NaN or infinite", layer.nonfinite)):
        if count:
            yield f"{label} channels", str(count)
    if layer.nonfinite_batches:
        yield "batches with NaN", str(layer.nonfinite_batches)
    if layer.cancelled_bias is not None:
        yield "cancels the bias of", layer.cancelled_bias or "the model"
