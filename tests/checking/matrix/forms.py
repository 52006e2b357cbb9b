"""The forms of code: a class, a function, a static method, a function that returns a closure."""

import re

from tests.checking.matrix.library import indented
from tests.checking.matrix.template import Template


def source(layer: Template) -> str:
    """Write the module."""
    preludes = dict.fromkeys([layer.holder.prelude, layer.mode.prelude])
    needs_dataclass = layer["arguments"] == "dataclass" or "@dataclass" in layer.holder.prelude
    imports = "from dataclasses import dataclass\n\n" if needs_dataclass else ""
    forms = {"class": _class, "module": _class, "static": _static, "factory": _factory}
    body = forms.get(layer["form"], _function)(layer)
    blocks = [imports + layer.library.header, *(prelude for prelude in preludes if prelude), "\n".join(body)]
    return "\n\n\n".join(block.strip("\n") for block in blocks) + "\n"


def _function(layer: Template) -> list[str]:
    required, optional = layer.passed_affine()
    constants = [] if layer["arguments"] == "options" else layer.declared
    arguments = layer.signature(
        [layer.x, *required, *layer.state_arguments()], optional, [*layer.mode_arguments(), *constants]
    )
    arguments += ", **options" if layer["arguments"] == "options" else ""
    lines = [f"def {layer['title']}({arguments}):", *indented(layer.body() + layer.results()[0])]
    if layer["backward"] == "beside":
        gradient = [f"x_hat, {layer.affine[0]}, std = cache", *layer.gradient.lines(layer.fault, layer.variant)]
        end = f"return {', '.join(['dx', *layer.gradients])}"
        lines += ["", "", f"def {layer.backward_name}(dout, cache):", *indented([*gradient, end])]
    return lines


def _static(layer: Template) -> list[str]:
    function = _function(layer)
    function[0] = function[0].replace(f"def {layer['title']}(", f"def {layer['method']}(")
    return [f"class {layer['title']}:", *indented(["@staticmethod", *function])]


def _factory(layer: Template) -> list[str]:
    required, optional = layer.passed_affine()
    init = list(layer.holder.init)
    if layer["affine in"] == "closure":
        init += [f"{name} = {start}" for name, start in zip(layer.affine, layer.affine_starts(), strict=True)]
    call = layer.signature([layer.x, *required], optional, layer.mode_arguments())
    inner = [f"def apply({call}):", *indented(layer.body() + layer.results()[0])]
    outer = f"def {layer['title']}({layer.signature(layer.size_arguments, [], layer.declared)}):"
    return [outer, *indented([*init, "", *inner, "", "return apply"])]


def _class(layer: Template) -> list[str]:
    title, module, style = layer["title"], layer["form"] == "module", layer["arguments"]
    own = f"{title}Base" if style == "inherited" else title
    fixed = [*layer.holder.class_body, ""] if layer.holder.class_body else []
    lines = [f"class {own}{'(nn.Module)' if module else ''}:", *indented(fixed)]
    if style == "dataclass":
        lines = ["@dataclass(eq=False)", *lines, *_dataclass_fields(layer)]
    else:
        constants = [f"self.{name} = {name}" for name in (declared.split("=")[0] for declared in layer.declared)]
        init = [*(["super().__init__()"] if module else []), *constants, *layer.init()] or ["pass"]
        arguments = layer.signature(["self", *layer.size_arguments, *layer.flags], [], layer.declared)
        lines += indented([f"def __init__({arguments}):", *indented(init)])
    lines += _methods(layer)
    if layer["holder"] == "slots":
        targets = re.findall(r"^ *(self\.\w+(?:, self\.\w+)*) =", "\n".join(lines), re.MULTILINE)
        attributes = dict.fromkeys(name.removeprefix("self.") for names in targets for name in names.split(", "))
        lines[1:1] = [f"    __slots__ = {tuple(attributes)!r}", ""]
    if style == "inherited":
        variadic = ["def __init__(self, *args, **kwargs):", "    super().__init__(*args, **kwargs)"]
        lines += ["", "", f"class {title}({own}):", *indented(variadic)]
    return lines


def _dataclass_fields(layer: Template) -> list[str]:
    sizes = layer.size_arguments
    fields = [f"{size}: int" for size in sizes]
    fields += [declared.replace("=", ": float = ") for declared in layer.declared]
    init = layer.init() or ["pass"]
    for size in sizes:
        init = [re.sub(rf"\b{size}\b(?! *=|\")", f"self.{size}", line) for line in init]
    return [*indented(fields), "", *indented(["def __post_init__(self):", *indented(init)])]


def _methods(layer: Template) -> list[str]:
    required, optional = layer.passed_affine()
    lines = []
    if layer.mode.methods and not (layer["form"] == "module" and layer.mode.by_module):
        lines += ["", *indented(layer.mode.methods.split("\n"))]
    call = layer.signature(["self", layer.x, *required], optional, layer.mode_arguments())
    cache = ["self.cache = (x_hat, std)"] if layer["backward"] not in ("none", "beside") else []
    forward = [f"def {layer['method']}({call}):", *indented(layer.body() + cache + layer.results()[0])]
    lines += ["", *indented(forward)]
    if layer["arguments"] == "delegating":
        delegate = ["def __call__(self, *args, **kwargs):", "    return self.forward(*args, **kwargs)"]
        lines += ["", *indented(delegate)]
    return lines + indented(_backward_method(layer))


def _backward_method(layer: Template) -> list[str]:
    if layer["backward"] in ("none", "beside"):
        return []
    gradients = ", ".join(layer.gradients)
    grads = ", ".join(f'"{name}": {value}' for name, value in zip(layer.affine, layer.gradients, strict=True))
    end = {
        "attributes": [f"{', '.join(f'self.d{name}' for name in layer.affine)} = {gradients}", "return dx"],
        "tuple": [f"return dx, {gradients}"],
        "grads dict": [f"self.grads = {{{grads}}}", "return dx"],
    }[layer["backward"]]
    lines = ["x_hat, std = self.cache", *layer.gradient.lines(layer.fault, layer.variant), *end]
    return ["", "def backward(self, dout):", *indented(lines)]
