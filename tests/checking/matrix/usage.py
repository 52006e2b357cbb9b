"""How the author of a layer would use it, as code."""

from tests.checking.matrix.template import CALLED, Template
from tests.checking.matrix.written import Usage


def usage(layer: Template) -> Usage:
    """Write how a layer is built, called and differentiated."""
    kept = layer.kept_by_the_caller()
    if layer["form"] in CALLED:
        call = layer["title"] if layer["form"] == "function" else f"{layer['title']}.{layer['method']}"
        setup, set_affine, passed = kept.start, "", [*layer.named_affine(), *kept.passed]
    else:
        setup, set_affine, call = _built(layer), _set_affine(layer), _called(layer)
        passed = [] if set_affine else layer.named_affine()
    train, evaluate = (
        _call(layer, call, passed, told) + kept.after for told in (layer.mode.train, layer.mode.evaluate)
    )
    return Usage(setup, set_affine, train, evaluate, _backward(layer))


def _built(layer: Template) -> str:
    size = ["C"] if layer.needs_size else []
    arguments = [*size, *(f"{flag}=True" for flag in layer.flags), *layer.further_sizes()]
    return f"layer = {layer['title']}({', '.join(arguments)})"


def _called(layer: Template) -> str:
    by_call = layer["method"] in ("", "__call__") or layer["arguments"] == "delegating" or layer["form"] == "module"
    return "layer" if by_call else f"layer.{layer['method']}"


def _call(layer: Template, call: str, passed: list[str], told: str) -> str:
    pick = layer.results()[1]
    if layer.mode.is_argument:
        return f"r = {call}({', '.join(['x', *passed, told])})\ny = {pick}"
    return f"{told}\nr = {call}({', '.join(['x', *passed])})\ny = {pick}"


def _set_affine(layer: Template) -> str:
    if layer["affine in"] in ("call", "defaults"):
        return ""
    lines = []
    for index, value in enumerate(("weight", "bias")[: len(layer.affine)]):
        held = layer.parameter(index).replace("self.", "layer.")
        held = f'cell(layer, "{held}")' if layer["form"] == "factory" else held
        moved = f"{value}.reshape({held}.shape)"
        written = {
            "numpy": f"{held}[...] = {moved}",
            "torch": f"with torch.no_grad(): {held}.copy_({moved})",
            "jax": f"{held} = {moved}",
        }
        lines.append(written[layer["library"]])
    return "\n".join(lines)


def _backward(layer: Template) -> str:
    gradients, names = ", ".join(layer.gradients), layer.affine
    attributes = ", ".join(f"layer.d{name}" for name in names)
    entries = ", ".join(f'layer.grads["{name}"]' for name in names)
    return {
        "none": "",
        "attributes": f"dx = layer.backward(dy)\n{gradients} = {attributes}",
        "tuple": f"dx, {gradients} = layer.backward(dy)",
        "grads dict": f"dx = layer.backward(dy)\n{gradients} = {entries}",
        "beside": f"dx, {gradients} = {layer.backward_name}(dy, r[1])",
    }[layer["backward"]]
