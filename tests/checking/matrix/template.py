"""What every generated layer has in common: forms of code, arguments, weight and bias, the result, the usage."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from tests.checking.matrix.holders import Holder
from tests.checking.matrix.library import LIBRARIES, Library, indented
from tests.checking.matrix.modes import Mode
from tests.checking.matrix.spelling import Gradient
from tests.checking.matrix.written import Truth, Usage, Written

OBJECTS = ("class", "module")
CALLED = ("function", "static")


@dataclass(frozen=True)
class Template(ABC):
    """One way to write a layer, as lines of code.

    Args:
        axes: The value of each axis of the matrix.
        fault: The planted fault, by its code; empty for none.
        variant: Which form of the fault.
    """

    axes: Mapping[str, str]
    fault: str = ""
    variant: int = 0

    def __getitem__(self, axis: str) -> str:
        return self.axes[axis]

    # What the kinds of layers differ in

    @property
    @abstractmethod
    def declared(self) -> list[str]:
        """The arguments for the constants, with their defaults."""

    @property
    def holder(self) -> Holder:
        """Where the running statistics live."""
        return Holder("", "")

    @property
    def mode(self) -> Mode:
        """How it is told whether it trains."""
        return Mode("", "", "")

    @property
    def sizes(self) -> list[str]:
        """The arguments of the constructor for the size."""
        return [self["size"]]

    @property
    @abstractmethod
    def gradient(self) -> Gradient:
        """The hand-written backward pass."""

    @abstractmethod
    def start(self, value: str, size: str) -> str:
        """Write the start of a parameter: zeros or ones."""

    @abstractmethod
    def body(self) -> list[str]:
        """Write the forward pass up to its result."""

    @abstractmethod
    def results(self) -> tuple[list[str], str]:
        """Write the lines that end the forward pass, and what picks the output out of the result ``r``."""

    @abstractmethod
    def truth(self) -> Truth:
        """Describe what it computes."""

    @abstractmethod
    def given_affine(self) -> list[str]:
        """Write ``weight`` and ``bias`` in the shapes that a caller passes."""

    # The parts that the axes name

    @property
    def library(self) -> Library:
        """The array library."""
        return LIBRARIES[self["library"]]

    @property
    def affine(self) -> tuple[str, ...]:
        """The names of weight and bias; of the weight alone where there is no bias."""
        return tuple(self["affine"].split("/"))

    @property
    def is_object(self) -> bool:
        """Whether it keeps its state in ``self``."""
        return self["form"] in OBJECTS

    @property
    def x(self) -> str:
        """The name of the input."""
        return self["input"]

    def constant(self, name: str) -> str:
        """Write where a constant is read."""
        return f"self.{name}" if self.is_object else name

    def parameter(self, index: int) -> str:
        """Write where weight (0) or bias (1) is read."""
        name = self.affine[index]
        if not self.is_object or self["affine in"] == "call":
            return name
        entry = {"dict": f'self.params["{name}"]', "list": f"self.params[{index}]"}
        return entry.get(self["affine in"], f"self.{name}")

    # Pieces of the forward pass

    def options(self) -> list[str]:
        """Write the lines that take the constants out of a function's options."""
        if self["arguments"] != "options":
            return []
        pairs = (declared.split("=") for declared in self.declared)
        return [f'{name} = options.get("{name}", {default})' for name, default in pairs]

    def apply_affine(self, weight: str, bias: str) -> list[str]:
        """Write the lines that assign ``y`` from ``x_hat``; ``bias`` is empty where there is none."""
        if self.fault == "affine-ignored":
            return ["y = x_hat + 0"]
        if not bias:
            return [f"y = {weight} * x_hat"]
        if self["arguments"] == "flag bias":
            return [f"y = {weight} * x_hat", f"if {self.parameter(1)} is not None:", f"    y = y + {bias}"]
        if self["arguments"] == "flag affine":
            return ["y = x_hat", f"if {self.parameter(0)} is not None:", f"    y = {weight} * y + {bias}"]
        return [f"y = {weight} * x_hat + {bias}"]

    def wide(self) -> list[str]:
        """Write the lines that remember the dtype and compute in at least float32."""
        if self["edge cases"] == "plain":
            return []
        widened = self.library.widened(self.x)
        return [f"dtype = {self.x}.dtype", *([f"{self.x} = {widened}"] if widened else [])]

    def narrow(self) -> list[str]:
        """Write the line that casts the output back."""
        if self["edge cases"] == "plain":
            return []
        return ["y = y.to(dtype)" if self.library.is_torch else "y = y.astype(dtype)"]

    def usual_results(self, mean: str, var: str, cache: str) -> tuple[list[str], str]:
        """Write the end of a forward pass that returns no running statistics."""
        result = self["result"]
        if result == "dict":
            return [f'return {{"out": y, "mean": {mean}, "var": {var}}}'], 'r["out"]'
        if result == "y, cache":
            return [f"cache = {cache}", "return y, cache"], "r[0]"
        if result == "batch mean, var, y":
            return [f"return {mean}, {var}, y"], "r[2]"
        if result.startswith("self."):
            return [f"{result} = y"], result.replace("self.", "layer.")
        return ["return y"], "r"

    # Arguments

    def signature(self, required: list[str], optional: list[str], keyword: list[str]) -> str:
        """Write an argument list; those of ``keyword`` stand after a star where the style says so."""
        if self["arguments"] == "keyword":
            return ", ".join(required + optional + (["*", *keyword] if keyword else []))
        must = [name for name in keyword if "=" not in name]
        return ", ".join(required + must + optional + [name for name in keyword if "=" in name])

    def mode_arguments(self) -> list[str]:
        """Return the argument that tells the mode, where there is one."""
        return [self.mode.declare] if self.mode.is_argument else []

    def passed_affine(self) -> tuple[list[str], list[str]]:
        """Return the affine arguments of the call: required ones, and those with defaults."""
        if self["affine in"] == "call":
            return list(self.affine), []
        defaults = [f"{name}={value}" for name, value in zip(self.affine, ("1.0", "0.0"), strict=False)]
        return [], defaults if self["affine in"] == "defaults" else []

    def state_arguments(self) -> list[str]:
        """Return the arguments of a function for what the caller keeps."""
        return []

    # Forms of code

    def source(self) -> str:
        """Write the module."""
        preludes = dict.fromkeys([self.holder.prelude, self.mode.prelude])
        needs_dataclass = self["arguments"] == "dataclass" or "@dataclass" in self.holder.prelude
        imports = "from dataclasses import dataclass\n\n" if needs_dataclass else ""
        forms = {"class": self._class, "module": self._class, "static": self._static, "factory": self._factory}
        body = forms.get(self["form"], self._function)()
        blocks = [imports + self.library.header, *(prelude for prelude in preludes if prelude), "\n".join(body)]
        return "\n\n\n".join(block.strip("\n") for block in blocks) + "\n"

    def _function(self) -> list[str]:
        required, optional = self.passed_affine()
        constants = [] if self["arguments"] == "options" else self.declared
        arguments = self.signature(
            [self.x, *required, *self.state_arguments()], optional, [*self.mode_arguments(), *constants]
        )
        arguments += ", **options" if self["arguments"] == "options" else ""
        lines = [f"def {self['title']}({arguments}):", *indented(self.body() + self.results()[0])]
        if self["backward"] == "beside":
            gradient = [f"x_hat, {self.affine[0]}, std = cache", *self.gradient.lines(self.fault, self.variant)]
            end = f"return {', '.join(['dx', *self._gradients()])}"
            lines += ["", "", f"def {self._backward_name()}(dout, cache):", *indented([*gradient, end])]
        return lines

    def _backward_name(self) -> str:
        return self["title"].replace("_forward", "") + "_backward"

    def _gradients(self) -> list[str]:
        return ["dweight", "dbias"][: len(self.affine)]

    def _static(self) -> list[str]:
        function = self._function()
        function[0] = function[0].replace(f"def {self['title']}(", f"def {self['method']}(")
        return [f"class {self['title']}:", *indented(["@staticmethod", *function])]

    def _factory(self) -> list[str]:
        required, optional = self.passed_affine()
        init = list(self.holder.init)
        if self["affine in"] == "closure":
            init += [f"{name} = {start}" for name, start in zip(self.affine, self._affine_starts(), strict=True)]
        call = self.signature([self.x, *required], optional, self.mode_arguments())
        inner = [f"def apply({call}):", *indented(self.body() + self.results()[0])]
        outer = f"def {self['title']}({self.signature(self.sizes, [], self.declared)}):"
        return [outer, *indented([*init, "", *inner, "", "return apply"])]

    def _affine_starts(self) -> list[str]:
        weight, bias = "ones", "zeros"
        if self.fault == "affine-init":
            swap_bias = self.variant % 2 and len(self.affine) > 1
            weight, bias = ("ones", "ones") if swap_bias else ("zeros", "zeros")
        starts = [self.start(value, self["size"]) for value in (weight, bias)][: len(self.affine)]
        if self["form"] == "module":
            return [f"nn.Parameter({start})" for start in starts]
        return [f"{start[:-1]}, requires_grad=True)" for start in starts] if self.library.is_torch else starts

    def _init_affine(self) -> list[str]:
        starts, where, module = self._affine_starts(), self["affine in"], self["form"] == "module"
        if where == "call":
            return []
        if where == "dict":
            held = ", ".join(f'"{name}": {start}' for name, start in zip(self.affine, starts, strict=True))
            return [f"self.params = nn.ParameterDict({{{held}}})" if module else f"self.params = {{{held}}}"]
        if where == "list":
            held = f"[{', '.join(starts)}]"
            return [f"self.params = nn.ParameterList({held})" if module else f"self.params = {held}"]
        if self["arguments"] == "flag affine":
            starts = [f"{start} if affine else None" for start in starts]
        elif self["arguments"] == "flag bias":
            starts[1] += " if bias else None"
        return [f"self.{name} = {start}" for name, start in zip(self.affine, starts, strict=True)]

    @property
    def _flags(self) -> list[str]:
        style = self["arguments"]
        return [style.removeprefix("flag ")] if style.startswith("flag") else []

    @property
    def _needs_size(self) -> bool:
        return self["affine in"] != "call" or self["holder"] not in ("lazy", "class attribute", "none")

    def _class(self) -> list[str]:
        title, module, style = self["title"], self["form"] == "module", self["arguments"]
        own = f"{title}Base" if style == "inherited" else title
        fixed = [*self.holder.class_body, ""] if self.holder.class_body else []
        lines = [f"class {own}{'(nn.Module)' if module else ''}:", *indented(fixed)]
        if style == "dataclass":
            lines = ["@dataclass(eq=False)", *lines, *self._dataclass_fields()]
        else:
            constants = [f"self.{name} = {name}" for name in (declared.split("=")[0] for declared in self.declared)]
            init = [*(["super().__init__()"] if module else []), *constants, *self.init()] or ["pass"]
            sizes = self.sizes[not self._needs_size :]
            arguments = self.signature(["self", *sizes, *self._flags], [], self.declared)
            lines += indented([f"def __init__({arguments}):", *indented(init)])
        lines += self._methods()
        if self["holder"] == "slots":
            targets = re.findall(r"^ *(self\.\w+(?:, self\.\w+)*) =", "\n".join(lines), re.MULTILINE)
            attributes = dict.fromkeys(name.removeprefix("self.") for names in targets for name in names.split(", "))
            lines[1:1] = [f"    __slots__ = {tuple(attributes)!r}", ""]
        if style == "inherited":
            variadic = ["def __init__(self, *args, **kwargs):", "    super().__init__(*args, **kwargs)"]
            lines += ["", "", f"class {title}({own}):", *indented(variadic)]
        return lines

    def init(self) -> list[str]:
        """Write the constructor, the constants aside."""
        by_module = self["form"] == "module" and self.mode.by_module
        switch = [self.mode.init] if self.mode.init and not by_module else []
        return [*self._init_affine(), *self.holder.init, *switch]

    def _dataclass_fields(self) -> list[str]:
        sizes = self.sizes[not self._needs_size :]
        fields = [f"{size}: int" for size in sizes]
        fields += [declared.replace("=", ": float = ") for declared in self.declared]
        init = self.init() or ["pass"]
        for size in sizes:
            init = [re.sub(rf"\b{size}\b(?! *=|\")", f"self.{size}", line) for line in init]
        return [*indented(fields), "", *indented(["def __post_init__(self):", *indented(init)])]

    def _methods(self) -> list[str]:
        required, optional = self.passed_affine()
        lines = []
        if self.mode.methods and not (self["form"] == "module" and self.mode.by_module):
            lines += ["", *indented(self.mode.methods.split("\n"))]
        call = self.signature(["self", self.x, *required], optional, self.mode_arguments())
        cache = ["self.cache = (x_hat, std)"] if self["backward"] not in ("none", "beside") else []
        forward = [f"def {self['method']}({call}):", *indented(self.body() + cache + self.results()[0])]
        lines += ["", *indented(forward)]
        if self["arguments"] == "delegating":
            delegate = ["def __call__(self, *args, **kwargs):", "    return self.forward(*args, **kwargs)"]
            lines += ["", *indented(delegate)]
        return lines + indented(self._backward_method())

    def _backward_method(self) -> list[str]:
        if self["backward"] in ("none", "beside"):
            return []
        gradients = ", ".join(self._gradients())
        grads = ", ".join(f'"{name}": {value}' for name, value in zip(self.affine, self._gradients(), strict=True))
        end = {
            "attributes": [f"{', '.join(f'self.d{name}' for name in self.affine)} = {gradients}", "return dx"],
            "tuple": [f"return dx, {gradients}"],
            "grads dict": [f"self.grads = {{{grads}}}", "return dx"],
        }[self["backward"]]
        lines = ["x_hat, std = self.cache", *self.gradient.lines(self.fault, self.variant), *end]
        return ["", "def backward(self, dout):", *indented(lines)]

    # How it is used

    def usage(self) -> Usage:
        """Write how its author would use it."""
        if self["form"] in CALLED:
            return self.usage_of_function()
        given = ["C"] if self._needs_size or self["form"] == "factory" else []
        given += [f"{flag}=True" for flag in self._flags] + self.further_sizes()
        by_call = self["method"] in ("", "__call__") or self["arguments"] == "delegating" or self["form"] == "module"
        call = "layer" if by_call else f"layer.{self['method']}"
        passed = self.named_affine() if self["affine in"] in ("call", "defaults") else []
        setup = f"layer = {self['title']}({', '.join(given)})"
        train, evaluate = (self.called(call, passed, told) for told in (self.mode.train, self.mode.evaluate))
        return Usage(setup, self._set_affine(), train, evaluate, self.use_backward())

    def further_sizes(self) -> list[str]:
        """Write the values of the sizes beside the first."""
        return []

    def called(self, call: str, passed: list[str], told: str) -> str:
        """Write a call in one mode, which leaves the output in ``y``."""
        pick = self.results()[1]
        if self.mode.is_argument:
            return f"r = {call}({', '.join(['x', *passed, told])})\ny = {pick}"
        return f"{told}\nr = {call}({', '.join(['x', *passed])})\ny = {pick}"

    @abstractmethod
    def usage_of_function(self) -> Usage:
        """Write how the caller of a function uses it."""

    @property
    def function_name(self) -> str:
        """What the caller of a function or of a static method writes."""
        return self["title"] if self["form"] == "function" else f"{self['title']}.{self['method']}"

    def named_affine(self) -> list[str]:
        """Write weight and bias as arguments."""
        return [f"{name}={value}" for name, value in zip(self.affine, self.given_affine(), strict=False)]

    def _set_affine(self) -> str:
        if self["affine in"] in ("call", "defaults"):
            return ""
        lines = []
        for index, value in enumerate(("weight", "bias")[: len(self.affine)]):
            held = self.parameter(index).replace("self.", "layer.")
            held = f'cell(layer, "{held}")' if self["form"] == "factory" else held
            moved = f"{value}.reshape({held}.shape)"
            lines.append(
                {
                    "numpy": f"{held}[...] = {moved}",
                    "torch": f"with torch.no_grad(): {held}.copy_({moved})",
                    "jax": f"{held} = {moved}",
                }[self["library"]]
            )
        return "\n".join(lines)

    def use_backward(self) -> str:
        """Write how the backward pass is called."""
        gradients = ", ".join(self._gradients())
        return {
            "none": "",
            "attributes": f"dx = layer.backward(dy)\n{gradients} = "
            + ", ".join(f"layer.d{name}" for name in self.affine),
            "tuple": f"dx, {gradients} = layer.backward(dy)",
            "grads dict": f"dx = layer.backward(dy)\n{gradients} = "
            + ", ".join(f'layer.grads["{name}"]' for name in self.affine),
            "beside": f"dx, {gradients} = {self._backward_name()}(dy, r[1])",
        }[self["backward"]]

    # The whole

    def families(self) -> tuple[str, ...]:
        """Return the families that a report may name."""
        return (self.truth().family,)

    @abstractmethod
    def allowed(self) -> set[str]:
        """Return the warnings that are true of it by design, beside the edge cases."""

    def written(self, name: str) -> Written:
        """Write it."""
        return Written(
            name=name,
            source=self.source(),
            target=self["title"],
            library=self["library"],
            axes=self.axes,
            usage=self.usage(),
            truth=self.truth(),
            families=self.families(),
            allowed=frozenset(self.allowed()),
            fault=self.fault,
        )
