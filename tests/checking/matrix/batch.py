"""Write a batch normalization as the values of the axes say, with or without a fault."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tests.checking.matrix.batch_axes import CALLED, CONVENTIONS, OBJECTS, Convention
from tests.checking.matrix.holders import Holder, in_call, in_closure, in_object
from tests.checking.matrix.layouts import LAYOUTS, Layout
from tests.checking.matrix.library import LIBRARIES, Library, indented
from tests.checking.matrix.modes import MODES, Mode
from tests.checking.matrix.spelling import Gradient, Moments, deviation, in_place, normalize
from tests.checking.matrix.written import Truth, Usage, Written

_SETTINGS_MODE = Mode('bn_param["mode"] == "train"', 'bn_param["mode"] = "train"', 'bn_param["mode"] = "test"')
_SHAPES = {2: (8, 6), 3: (5, 6, 7), 4: (5, 6, 3, 4)}


@dataclass(frozen=True)
class Batch:
    """One way to write batch normalization.

    Args:
        axes: The value of each axis.
        fault: The planted fault, by its code; empty for none.
        variant: Which form of the fault.
    """

    axes: Mapping[str, str]
    fault: str = ""
    variant: int = 0

    def __getitem__(self, axis: str) -> str:
        return self.axes[axis]

    # The parts that the axes name

    @property
    def library(self) -> Library:
        """The array library."""
        return LIBRARIES[self["library"]]

    @property
    def layout(self) -> Layout:
        """The layout of the input."""
        return LAYOUTS[self["layout"]]

    @property
    def mode(self) -> Mode:
        """How it is told whether it trains."""
        return MODES.get(self["mode"], _SETTINGS_MODE)

    @property
    def convention(self) -> Convention:
        """How the running statistics move."""
        return CONVENTIONS[self["convention"]]

    @property
    def names(self) -> tuple[str, str]:
        """The names of the running statistics."""
        mean, var = self["statistics"].split("/")
        return mean, var

    @property
    def affine(self) -> tuple[str, str]:
        """The names of weight and bias."""
        weight, bias = self["affine"].split("/")
        return weight, bias

    @property
    def is_object(self) -> bool:
        """Whether it keeps its state in ``self``."""
        return self["form"] in OBJECTS

    @property
    def keeps_axes(self) -> bool:
        """Whether parameters have the rank of the input."""
        return self["parameters"] == "kept axes"

    @property
    def x(self) -> str:
        """The name of the input."""
        return self["input"]

    @property
    def over(self) -> str:
        """The axes that are averaged over."""
        return self.layout.axes.replace("x.", f"{self.x}.")

    @property
    def count(self) -> str:
        """The number of channels, from the input."""
        return f"{self.x}.shape[{self.layout.channel}]"

    def start(self, value: str, size: str) -> str:
        """Write the start of a parameter."""
        shape = self.layout.kept.replace("C", size) if self.keeps_axes and self.layout.kept else size
        return self.library.full(value, shape)

    def column(self, of: str) -> str:
        """Broadcast a value of one a channel over the input."""
        if self.keeps_axes or self.layout.column is None:
            return of
        if self["broadcast"] == "new axes" and self.layout.new_axes:
            return of + self.layout.new_axes
        return self.library.reshape(of, self.layout.column.replace("x.", f"{self.x}."))

    @cached_property
    def holder(self) -> Holder:
        """Where the running statistics live."""
        size = "C" if self["holder"] in ("lazy", "settings") else self["size"]
        zeros = self.start("zeros", size)
        ones = zeros if self.fault == "running-stats-init" else self.start("ones", size)
        kind = self["holder"]
        if self.is_object:
            if kind == "stacked" and self["form"] == "module":
                kind = "stacked buffer"
            if self.fault == "state-not-saved":
                kind = "plain attribute"
            return in_object(kind, self.names, zeros, ones, self.library, self.count)
        if self["form"] == "factory":
            return in_closure(kind, self.names, zeros, ones)
        return in_call(kind, self.names, zeros, ones, self.count)

    # Constants

    @property
    def eps(self) -> str:
        """Where eps is read."""
        return self._constant("eps")

    @property
    def momentum(self) -> str:
        """Where the momentum is read; a number where there is no argument."""
        return self._constant(self.convention.momentum) if self.convention.momentum else "0.1"

    def _constant(self, name: str) -> str:
        if self["holder"] == "settings":
            default = self.convention.eps if name == "eps" else self.convention.default
            return f'bn_param.get("{name}", {default})'
        return f"self.{name}" if self.is_object else name

    @property
    def declared(self) -> list[str]:
        """The arguments for the constants."""
        momentum = [f"{self.convention.momentum}={self.convention.default}"] if self.convention.momentum else []
        return [f"eps={self.convention.eps}", *momentum]

    # The forward pass

    def parameter(self, index: int) -> str:
        """Where weight (0) or bias (1) is read."""
        name = self.affine[index]
        if not self.is_object or self["affine in"] == "call":
            return name
        entry = {"dict": f'self.params["{name}"]', "list": f"self.params[{index}]"}
        return entry.get(self["affine in"], f"self.{name}")

    def moments(self, mean: str, var: str) -> list[str]:
        """Write the statistics of the batch."""
        moments = Moments(
            self.library, self["moments"], self.x, self.over, self.keeps_axes, self.column("{}"), "n"
        )
        lines = moments.lines(mean, var, self.fault, self.variant)
        if self.fault == "statistics-detached" and self.library.is_torch:
            lines.append(
                (f"{mean}, {var} = {mean}.detach(), {var}.detach()", f"{var} = {var}.detach()")[self.variant % 2]
            )
        return lines

    def update(self, mean: str, var: str) -> list[str]:
        """Write the update of the running statistics by those of the batch."""
        detached = ".detach()" if self["graph"] == "detach" and self.fault != "state-attached" else ""
        held = (self.holder.mean, self.holder.var)
        unbiased = self.convention.unbiased and self.fault not in ("biased-running-var", "unbiased-normalization")
        new = (mean + detached, var + detached + (" * n / (n - 1)" if unbiased else ""))
        updated = [self._moved(old, batch) for old, batch in zip(held, new, strict=True)]
        if self.fault == "running-stats-not-updated":
            lines = [f"new_mean = {updated[0]}", f"new_var = {updated[1]}"]
        elif self["write"] == "in place":
            lines = [self._written(old, value) for old, value in zip(held, updated, strict=True)]
        elif self.holder.write:
            lines = [self.holder.write.format(mean=updated[0], var=updated[1])]
        else:
            lines = [f"{old} = {value}" for old, value in zip(held, updated, strict=True)]
        lines += [] if self.fault == "running-stats-not-updated" else self.holder.after
        if self["graph"] == "no_grad" and self.fault != "state-attached":
            return ["with torch.no_grad():", *indented(lines)]
        return lines

    def _moved(self, old: str, batch: str) -> str:
        weighs_old = self.convention.weighs_old != (self.fault == "momentum-inverted")
        kept, taken = (self.momentum, f"(1 - {self.momentum})") if weighs_old else (f"(1 - {self.momentum})", self.momentum)
        if not self.convention.momentum:
            kept, taken = ("0.1", "0.9") if weighs_old else ("0.9", "0.1")
        if self["update"] == "lerp":
            return f"torch.lerp({old}, {batch}, {taken.strip('()') if taken.startswith('(') else taken})"
        if self["update"] == "delta":
            return f"{old} + {taken} * ({batch} - {old})"
        return f"{kept} * {old} + {taken} * {batch}"

    def _written(self, held: str, value: str) -> str:
        if self.library.is_torch:
            return f"{held}.copy_({value})"
        if value.startswith(f"{held} + "):
            return f"{held} += {value.removeprefix(f'{held} + ')}"
        return f"{held}[...] = {value}"

    def body(self) -> list[str]:
        """Write the forward pass up to its result."""
        mean, var = self["locals"].split("/")
        guarded = self["edge cases"] == "guarded"
        wide = self.library.widened(self.x) if guarded else None
        lines = [line for line in self.holder.before if line.startswith("nonlocal")]
        lines += [f"dtype = {self.x}.dtype"] if guarded else []
        lines += [f"{self.x} = {wide}"] if wide else []
        lines += [line for line in self.holder.before if not line.startswith("nonlocal")]
        if self["arguments"] == "options":
            names = [("eps", self.convention.eps), (self.convention.momentum, str(self.convention.default))]
            lines += [f'{name} = options.get("{name}", {default})' for name, default in names if name]
        lines += self.choose(mean, var, guarded=guarded)
        std = deviation(self.library, self.column(var), self.eps, self["normalize"], self.fault)
        weight, bias = self.column(self.parameter(0)), self.column(self.parameter(1))
        if self.fault == "input-mutated":
            lines += in_place(self.library, self.x, self.column(mean), std)
        elif self["normalize"] == "folded" and self.fault != "affine-ignored" and "flag" not in self["arguments"]:
            lines += [f"factor = {weight} / {std}", f"y = factor * {self.x} + ({bias} - factor * {self.column(mean)})"]
            return lines + self._finish(guarded)
        else:
            lines += normalize(self.library, self.x, self.column(mean), std, self["normalize"])
        lines += self._apply(weight, bias)
        return lines + self._finish(guarded)

    def _apply(self, weight: str, bias: str) -> list[str]:
        if self.fault == "affine-ignored":
            return ["y = x_hat + 0"]
        if self["arguments"] == "flag bias":
            return [f"y = {weight} * x_hat", f"if {self.parameter(1)} is not None:", f"    y = y + {bias}"]
        if self["arguments"] == "flag affine":
            return ["y = x_hat", f"if {self.parameter(0)} is not None:", f"    y = {weight} * y + {bias}"]
        return [f"y = {weight} * x_hat + {bias}"]

    def _finish(self, guarded: bool) -> list[str]:
        lines = []
        if self.fault == "running-stats-updated-in-eval":
            lines += self.update("batch_stat_mean", "batch_stat_var")
        if guarded:
            lines.append("y = y.to(dtype)" if self.library.is_torch else "y = y.astype(dtype)")
        return lines

    def choose(self, mean: str, var: str, *, guarded: bool) -> list[str]:
        """Write the choice between the statistics of the batch and the running ones."""
        test = self.mode.test
        if guarded:
            test = f"({test})" if " or " in test else test
            test += f" and {self.library.size(self.x)} > 0"
        refuse = ["if n < 2:", '    raise ValueError("expected more than one value a channel")'] if guarded else []
        count = [f"n = {self.library.size(self.x)} // {self.count}"]
        read = [f"{mean}, {var} = {self.holder.mean}, {self.holder.var}"]
        train = [*count, *refuse, *self.moments(mean, var), *self.update(mean, var)]
        if self.fault == "eval-ignores-running-stats":
            return [*count, *self.moments(mean, var), f"if {test}:", *indented(refuse + self.update(mean, var))]
        if self.fault == "running-stats-updated-in-eval":
            measured = self.moments("batch_stat_mean", "batch_stat_var")
            used = f"{mean}, {var} = batch_stat_mean, batch_stat_var"
            return [*count, *measured, f"if {test}:", *indented([*refuse, used]), "else:", *indented(read)]
        if self.fault == "train-uses-running-stats":
            return [f"if {test}:", *indented(train), *read]
        return [f"if {test}:", *indented(train), "else:", *indented(read)]

    # The result, and the backward pass

    def results(self) -> tuple[list[str], str]:
        """Write the lines that end the forward pass, and what picks the output out of the result ``r``."""
        mean, var = self["locals"].split("/")
        held = self.names
        if self["holder"] == "returned":
            entries = {"y": "y", "mean": held[0], "var": held[1]}
            if self["result"] == "dict":
                return [f'return {{"y": y, "{held[0]}": {held[0]}, "{held[1]}": {held[1]}}}'], 'r["y"]'
            order = self["result"].split(", ")
            return [f"return {', '.join(entries[name] for name in order)}"], f"r[{order.index('y')}]"
        if self["result"] == "dict":
            return [f'return {{"out": y, "mean": {mean}, "var": {var}}}'], 'r["out"]'
        if self["result"] == "y, cache":
            cached = f"(x_hat, {self.parameter(0)}, std)" if self["normalize"] != "folded" else f"({mean}, {var})"
            return [f"cache = {cached}", "return y, cache"], "r[0]"
        if self["result"] == "batch mean, var, y":
            return [f"return {mean}, {var}, y"], "r[2]"
        if self["result"].startswith("self."):
            return [f"{self['result']} = y"], self["result"].replace("self.", "layer.")
        return ["return y"], "r"

    @property
    def gradient(self) -> Gradient:
        """The hand-written backward pass."""
        over = self.layout.axes.replace("x.", "dout.")
        weight = self.column(self.affine[0] if self["backward"] == "beside" else self.parameter(0))
        return Gradient(over, over, weight.replace(f"{self.x}.ndim", "dout.ndim"), self.keeps_axes)

    def backward(self) -> list[str]:
        """Write the backward method."""
        if self["backward"] in ("none", "beside"):
            return []
        gamma, beta = self.affine
        end = {
            "attributes": [f"self.d{gamma}, self.d{beta} = dweight, dbias", "return dx"],
            "tuple": ["return dx, dweight, dbias"],
            "grads dict": [f'self.grads = {{"{gamma}": dweight, "{beta}": dbias}}', "return dx"],
        }[self["backward"]]
        lines = ["x_hat, std = self.cache", *self.gradient.lines(self.fault, self.variant), *end]
        return ["", "def backward(self, dout):", *indented(lines)]

    # The whole source

    def source(self) -> str:
        """Write the module."""
        preludes = dict.fromkeys([self.holder.prelude, self.mode.prelude])
        dataclass = "from dataclasses import dataclass\n" if self["arguments"] == "dataclass" else ""
        text = {"class": self._class, "module": self._class, "static": self._static, "factory": self._factory}
        body = text.get(self["form"], self._function)()
        blocks = [dataclass + self.library.header, *(prelude for prelude in preludes if prelude), "\n".join(body)]
        return "\n\n\n".join(block.strip("\n") for block in blocks) + "\n"

    def _signature(self, required: list[str], optional: list[str], keyword: list[str]) -> str:
        """Write an argument list; those of ``keyword`` after a star where the style says so."""
        if self["arguments"] == "keyword":
            star = ["*", *keyword] if keyword else []
            return ", ".join(required + optional + star)
        must = [name for name in keyword if "=" not in name]
        return ", ".join(required + must + optional + [name for name in keyword if "=" in name])

    def _mode_arguments(self) -> list[str]:
        return [self.mode.declare] if self.mode.is_argument else []

    def _passed_affine(self) -> tuple[list[str], list[str]]:
        """The affine arguments of the call: required ones and those with defaults."""
        gamma, beta = self.affine
        if self["affine in"] == "call":
            return [gamma, beta], []
        return ([], [f"{gamma}=1.0", f"{beta}=0.0"]) if self["affine in"] == "defaults" else ([], [])

    def _function(self) -> list[str]:
        required, optional = self._passed_affine()
        state = ["bn_param"] if self["holder"] == "settings" else list(self.names)
        constants = [] if self["holder"] == "settings" else self.declared
        if self["arguments"] == "options":
            arguments = self._signature([self.x, *required, *state], optional, self._mode_arguments()) + ", **options"
        else:
            arguments = self._signature(
                [self.x, *required, *state], optional, [*self._mode_arguments(), *constants]
            )
        lines = [f"def {self['title']}({arguments}):", *indented(self.body() + self.results()[0])]
        if self["backward"] == "beside":
            gradient = [f"x_hat, {self.affine[0]}, std = cache", *self.gradient.lines(self.fault, self.variant)]
            name = self["title"].replace("_forward", "") + "_backward"
            lines += ["", "", f"def {name}(dout, cache):", *indented([*gradient, "return dx, dweight, dbias"])]
        return lines

    def _static(self) -> list[str]:
        function = self._function()
        function[0] = function[0].replace(f"def {self['title']}(", f"def {self['method']}(")
        return [f"class {self['title']}:", *indented(["@staticmethod", *function])]

    def _factory(self) -> list[str]:
        required, optional = self._passed_affine()
        arguments = self._signature([self["size"]], [], self.declared)
        init = list(self.holder.init)
        if self["affine in"] == "closure":
            init += [f"{name} = {start}" for name, start in zip(self.affine, self._affine_starts(), strict=True)]
        call = self._signature([self.x, *required], optional, self._mode_arguments())
        inner = [f"def apply({call}):", *indented(self.body() + self.results()[0])]
        return [f"def {self['title']}({arguments}):", *indented([*init, "", *inner, "", "return apply"])]

    def _affine_starts(self) -> tuple[str, str]:
        size = self["size"]
        weight = "zeros" if self.fault == "affine-init" and self.variant % 2 == 0 else "ones"
        bias = "ones" if self.fault == "affine-init" and self.variant % 2 == 1 else "zeros"
        starts = [self.start(value, size) for value in (weight, bias)]
        if self["form"] == "module":
            starts = [f"nn.Parameter({start})" for start in starts]
        elif self.library.is_torch:
            starts = [f"{start[:-1]}, requires_grad=True)" for start in starts]
        return starts[0], starts[1]

    def _init_affine(self) -> list[str]:
        (gamma, beta), (ones, zeros) = self.affine, self._affine_starts()
        where, module = self["affine in"], self["form"] == "module"
        if where == "dict":
            held = f'{{"{gamma}": {ones}, "{beta}": {zeros}}}'
            return [f"self.params = nn.ParameterDict({held})" if module else f"self.params = {held}"]
        if where == "list":
            held = f"[{ones}, {zeros}]"
            return [f"self.params = nn.ParameterList({held})" if module else f"self.params = {held}"]
        if where == "call":
            return []
        if self["arguments"] == "flag bias":
            return [f"self.{gamma} = {ones}", f"self.{beta} = {zeros} if bias else None"]
        if self["arguments"] == "flag affine":
            return [f"self.{gamma} = {ones} if affine else None", f"self.{beta} = {zeros} if affine else None"]
        return [f"self.{gamma} = {ones}", f"self.{beta} = {zeros}"]

    def _class(self) -> list[str]:
        title, module = self["title"], self["form"] == "module"
        style, size = self["arguments"], self["size"]
        own = f"{title}Base" if style == "inherited" else title
        constants = [f"self.{name} = {name}" for name in (declared.split("=")[0] for declared in self.declared)]
        needs_size = self["affine in"] != "call" or self["holder"] not in ("lazy", "class attribute")
        init = [
            *(["super().__init__()"] if module else []),
            *([] if style == "dataclass" else constants),
            *self._init_affine(),
            *self.holder.init,
            *([self.mode.init] if self.mode.init and not (module and self.mode.by_module) else []),
        ]
        if style == "dataclass":
            fields = [f"{size}: int"] if needs_size else []
            fields += [declared.replace("=", ": float = ") for declared in self.declared]
            init = [re.sub(rf"\b{size}\b(?! *=|\")", f"self.{size}", line) for line in init] or ["pass"]
            lines = ["@dataclass(eq=False)", f"class {own}:", *indented(fields), ""]
            lines += indented(["def __post_init__(self):", *indented(init)])
        else:
            flags = [style.removeprefix("flag ")] if style.startswith("flag") else []
            arguments = self._signature(["self", *([size] if needs_size else []), *flags], [], self.declared)
            lines = [f"class {own}{'(nn.Module)' if module else ''}:", *indented(self.holder.class_body)]
            lines += indented([f"def __init__({arguments}):", *indented(init)])
        lines += self._methods(module=module)
        if self["holder"] == "slots":
            attributes = sorted(set(re.findall(r"self\.(\w+)(?:, self\.\w+)* =", "\n".join(lines))))
            attributes += [name for name in re.findall(r", self\.(\w+) =", "\n".join(lines)) if name not in attributes]
            lines.insert(1, f"    __slots__ = {tuple(attributes)!r}")
        if style == "inherited":
            variadic = ["def __init__(self, *args, **kwargs):", "    super().__init__(*args, **kwargs)"]
            lines += ["", "", f"class {title}({own}):", *indented(variadic)]
        return lines

    def _methods(self, *, module: bool) -> list[str]:
        required, optional = self._passed_affine()
        lines = []
        if self.mode.methods and not (module and self.mode.by_module):
            lines += ["", *indented(self.mode.methods.split("\n"))]
        call = self._signature(["self", self.x, *required], optional, self._mode_arguments())
        cache = ["self.cache = (x_hat, std)"] if self["backward"] not in ("none", "beside") else []
        forward = [f"def {self['method']}({call}):", *indented(self.body() + cache + self.results()[0])]
        lines += ["", *indented(forward)]
        if self["arguments"] == "delegating":
            delegate = ["def __call__(self, *args, **kwargs):", "    return self.forward(*args, **kwargs)"]
            lines += ["", *indented(delegate)]
        return lines + indented(self.backward())

    # How it is used

    def usage(self) -> Usage:
        """Write how its author would use it."""
        form, pick = self["form"], self.results()[1]
        if form in CALLED:
            return self._usage_of_function(pick)
        setup = f"layer = {self['title']}({self._built_with()})"
        if self["method"] in ("", "__call__") or self["arguments"] == "delegating" or form == "module":
            call = "layer"
        else:
            call = f"layer.{self['method']}"
        passed = self._given_affine() if self["affine in"] in ("call", "defaults") else []

        def called(told: str) -> str:
            if self.mode.is_argument:
                return f"r = {call}({', '.join(['x', *self._named(passed), told])})\ny = {pick}"
            return f"{told}\nr = {call}({', '.join(['x', *self._named(passed)])})\ny = {pick}"

        return Usage(
            setup, self._set_affine(), called(self.mode.train), called(self.mode.evaluate), self._use_backward()
        )

    def _given_affine(self) -> list[str]:
        if self.keeps_axes and self.layout.kept:
            return [f"{name}.reshape({self.layout.kept})" for name in ("weight", "bias")]
        return ["weight", "bias"]

    def _named(self, passed: list[str]) -> list[str]:
        return [f"{name}={value}" for name, value in zip(self.affine, passed, strict=False)]

    def _built_with(self) -> str:
        needed = self["affine in"] != "call" or self["holder"] not in ("lazy", "class attribute")
        flags = [f"{self['arguments'].removeprefix('flag ')}=True"] if self["arguments"].startswith("flag") else []
        return ", ".join([*(["C"] if needed or self["form"] == "factory" else []), *flags])

    def _set_affine(self) -> str:
        if self["affine in"] in ("call", "defaults"):
            return ""
        lines = []
        for index, value in enumerate(("weight", "bias")):
            held = self.parameter(index).replace("self.", "layer.")
            held = f'cell(layer, "{held}")' if self["form"] == "factory" else held
            moved = f"{value}.reshape({held}.shape)"
            lines.append(
                f"with torch.no_grad(): {held}.copy_({moved})" if self.library.is_torch else f"{held}[...] = {moved}"
            )
        return "\n".join(lines)

    def _use_backward(self) -> str:
        gamma, beta = self.affine
        return {
            "none": "",
            "attributes": f"dx = layer.backward(dy)\ndweight, dbias = layer.d{gamma}, layer.d{beta}",
            "tuple": "dx, dweight, dbias = layer.backward(dy)",
            "grads dict": f'dx = layer.backward(dy)\ndweight, dbias = layer.grads["{gamma}"], layer.grads["{beta}"]',
            "beside": f"dx, dweight, dbias = {self['title'].replace('_forward', '')}_backward(dy, r[1])",
        }[self["backward"]]

    def _usage_of_function(self, pick: str) -> Usage:
        name = self["title"] if self["form"] == "function" else f"{self['title']}.{self['method']}"
        zeros, ones = self.start("zeros", "C"), self.start("ones", "C")
        affine = self._named(self._given_affine())
        if self["holder"] == "settings":
            told = "bn_param=settings"
            setup = "settings = {}"
        else:
            setup = f"state = [{zeros}, {ones}]"
            told = f"{self.names[0]}=state[0], {self.names[1]}=state[1]"
        after = ""
        if self["holder"] == "returned":
            keys = [f'"{name}"' for name in self.names]
            if self["result"] != "dict":
                keys = [str(self["result"].split(", ").index(name)) for name in ("mean", "var")]
            after = f"\nstate = [r[{keys[0]}], r[{keys[1]}]]"

        def called(mode: str) -> str:
            if self.mode is _SETTINGS_MODE:
                first, arguments = mode.replace("bn_param", "settings") + "\n", [told]
            else:
                first, arguments = "", [told, mode]
            return f"{first}r = {name}({', '.join(['x', *affine, *arguments])})\ny = {pick}{after}"

        return Usage(setup, "", called(self.mode.train), called(self.mode.evaluate), self._use_backward())

    def truth(self) -> Truth:
        """Describe what it computes."""
        convention = self.convention
        weight = 1 - convention.default if convention.weighs_old else convention.default
        shape = _SHAPES[self.layout.rank or len(self.layout.order)]
        return Truth(
            "batch", self.layout.order, shape, float(convention.eps), momentum=weight, unbiased=convention.unbiased
        )

    def written(self, name: str) -> Written:
        """Write it."""
        allowed = {"rank-unsupported"} if self.layout.rank is not None else set()
        if self.holder.lazy or self["holder"] == "class attribute":
            allowed.add("running-stats-init")
        return Written(
            name=name,
            source=self.source(),
            target=self["title"],
            library=self["library"],
            axes=self.axes,
            usage=self.usage(),
            truth=self.truth(),
            families=("batch",),
            allowed=frozenset(allowed),
            fault=self.fault,
        )
