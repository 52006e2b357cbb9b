"""What every generated layer has in common: its names, its arguments, its weight and bias, its result."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from tests.checking.matrix.holders import Holder
from tests.checking.matrix.library import LIBRARIES, Library
from tests.checking.matrix.modes import Mode
from tests.checking.matrix.spelling import Gradient
from tests.checking.matrix.written import Truth

OBJECTS = ("class", "module")
CALLED = ("function", "static")


def left_in_attribute(axes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the attributes that a result may be left in; a torch layer could not be copied then, for its graph."""
    return ("self.output", "self.out") if axes["form"] == "class" and axes["library"] != "torch" else ()


@dataclass(frozen=True)
class Kept:
    """What the caller of a function keeps between the calls, as code.

    Args:
        start: How it starts.
        passed: The arguments that pass it.
        after: What follows each call.
    """

    start: str = ""
    passed: tuple[str, ...] = ()
    after: str = ""


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

    # The constructor

    @property
    def flags(self) -> list[str]:
        """The required flags of the constructor."""
        style = self["arguments"]
        return [style.removeprefix("flag ")] if style.startswith("flag") else []

    @property
    def needs_size(self) -> bool:
        """Whether the constructor takes the number of channels."""
        stateless = ("lazy", "class attribute", "none")
        return self["form"] == "factory" or self["affine in"] != "call" or self["holder"] not in stateless

    @property
    def size_arguments(self) -> list[str]:
        """The arguments of the constructor for the sizes that it needs."""
        return self.sizes[not self.needs_size :]

    def init(self) -> list[str]:
        """Write the constructor, the constants aside."""
        by_module = self["form"] == "module" and self.mode.by_module
        switch = [self.mode.init] if self.mode.init and not by_module else []
        return [*self._init_affine(), *self.holder.init, *switch]

    def _init_affine(self) -> list[str]:
        starts, where, module = self.affine_starts(), self["affine in"], self["form"] == "module"
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

    def affine_starts(self) -> list[str]:
        """Write the initial weight and bias."""
        weight, bias = "ones", "zeros"
        if self.fault == "affine-init":
            swap_bias = self.variant % 2 and len(self.affine) > 1
            weight, bias = ("ones", "ones") if swap_bias else ("zeros", "zeros")
        starts = [self.start(value, self["size"]) for value in (weight, bias)][: len(self.affine)]
        if self["form"] == "module":
            return [f"nn.Parameter({start})" for start in starts]
        return [f"{start[:-1]}, requires_grad=True)" for start in starts] if self.library.is_torch else starts

    # The backward pass

    @property
    def gradients(self) -> list[str]:
        """The names of the gradients of weight and bias."""
        return ["dweight", "dbias"][: len(self.affine)]

    @property
    def backward_name(self) -> str:
        """The name of the function for the backward pass."""
        return self["title"].replace("_forward", "") + "_backward"

    # How it is used

    def further_sizes(self) -> list[str]:
        """Write the values of the sizes beside the first."""
        return []

    def kept_by_the_caller(self) -> Kept:
        """Describe the running statistics that the caller of a function keeps."""
        return Kept()

    def named_affine(self) -> list[str]:
        """Write weight and bias as arguments."""
        return [f"{name}={value}" for name, value in zip(self.affine, self.given_affine(), strict=False)]

    # What may be said of it

    def families(self) -> tuple[str, ...]:
        """Return the families that a report may name."""
        return (self.truth().family,)

    @abstractmethod
    def allowed(self) -> set[str]:
        """Return the warnings that are true of it by design, beside the edge cases."""
