"""Write a batch normalization as the values of the axes say, with or without a fault."""

from dataclasses import dataclass
from functools import cached_property

from tests.checking.matrix.batch_axes import CONVENTIONS, Convention
from tests.checking.matrix.holders import Holder, in_call, in_closure, in_object
from tests.checking.matrix.layouts import LAYOUTS, Layout
from tests.checking.matrix.library import indented
from tests.checking.matrix.modes import MODES, Mode
from tests.checking.matrix.spelling import Gradient, Moments, deviation, in_place, normalize
from tests.checking.matrix.template import Kept, Template
from tests.checking.matrix.written import Truth

_SETTINGS_MODE = Mode('bn_param["mode"] == "train"', 'settings["mode"] = "train"', 'settings["mode"] = "test"')
_SHAPES = {2: (8, 6), 3: (5, 6, 7), 4: (5, 6, 3, 4)}


@dataclass(frozen=True)
class Batch(Template):
    """One way to write batch normalization."""

    # The parts that the axes name

    @property
    def layout(self) -> Layout:
        """The layout of the input."""
        return LAYOUTS[self["layout"]]

    @property
    def mode(self) -> Mode:
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
    def local(self) -> tuple[str, str]:
        """The names of the statistics of the batch."""
        mean, var = self["locals"].split("/")
        return mean, var

    @property
    def keeps_axes(self) -> bool:
        """Whether parameters have the rank of the input."""
        return self["parameters"] == "kept axes"

    @property
    def count(self) -> str:
        """The number of channels, from the input."""
        return f"{self.x}.shape[{self.layout.channel}]"

    def start(self, value: str, size: str) -> str:
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

    def constant(self, name: str) -> str:
        if self["holder"] == "settings":
            default = self.convention.eps if name == "eps" else self.convention.default
            return f'bn_param.get("{name}", {default})'
        return super().constant(name)

    @property
    def momentum(self) -> str:
        """Where the momentum is read; a number where there is no argument."""
        return self.constant(self.convention.momentum) if self.convention.momentum else "0.1"

    @property
    def declared(self) -> list[str]:
        if self["holder"] == "settings":
            return []
        momentum = [f"{self.convention.momentum}={self.convention.default}"] if self.convention.momentum else []
        return [f"eps={self.convention.eps}", *momentum]

    def state_arguments(self) -> list[str]:
        return ["bn_param"] if self["holder"] == "settings" else list(self.names)

    # The forward pass

    def body(self) -> list[str]:
        mean, var = self.local
        lines = [line for line in self.holder.before if line.startswith("nonlocal")]
        lines += self.wide()
        lines += [line for line in self.holder.before if not line.startswith("nonlocal")]
        lines += [*self.options(), *self.choose(mean, var)]
        std = deviation(self.library, self.column(var), self.constant("eps"), self["normalize"], self.fault)
        weight, bias = self.column(self.parameter(0)), self.column(self.parameter(1))
        folded = self["normalize"] == "folded" and "flag" not in self["arguments"]
        if self.fault == "input-mutated":
            lines += [*in_place(self.x, self.column(mean), std), *self.apply_affine(weight, bias)]
        elif folded and self.fault != "affine-ignored":
            lines += [f"factor = {weight} / {std}", f"y = factor * {self.x} + ({bias} - factor * {self.column(mean)})"]
        else:
            lines += normalize(self.x, self.column(mean), std, self["normalize"])
            lines += self.apply_affine(weight, bias)
        if self.fault == "running-stats-updated-in-eval":
            lines += self.update("fresh_mean", "fresh_var")
        return lines + self.narrow()

    def moments(self, mean: str, var: str) -> list[str]:
        """Write the statistics of the batch."""
        over = self.layout.axes.replace("x.", f"{self.x}.")
        moments = Moments(self.library, self["moments"], self.x, over, self.keeps_axes, self.column("{}"), "n")
        lines = moments.lines(mean, var, self.fault, self.variant)
        if self.fault == "statistics-detached" and self.library.is_torch:
            both = f"{mean}, {var} = {mean}.detach(), {var}.detach()"
            lines.append(f"{var} = {var}.detach()" if self.variant % 2 else both)
        return lines

    def choose(self, mean: str, var: str) -> list[str]:
        """Write the choice between the statistics of the batch and the running ones."""
        test, refuse = self.mode.test, []
        if self["edge cases"] == "guarded":
            test += f" and {self.library.size(self.x)} > 0"
            refuse = ["if n < 2:", '    raise ValueError("expected more than one value a channel")']
        count = [f"n = {self.library.size(self.x)} // {self.count}"]
        read = [f"{mean}, {var} = {self.holder.mean}, {self.holder.var}"]
        train = [*count, *refuse, *self.moments(mean, var), *self.update(mean, var)]
        if self.fault == "eval-ignores-running-stats":
            return [*count, *self.moments(mean, var), f"if {test}:", *indented(refuse + self.update(mean, var))]
        if self.fault == "running-stats-updated-in-eval":
            measured = self.moments("fresh_mean", "fresh_var")
            used = f"{mean}, {var} = fresh_mean, fresh_var"
            return [*count, *measured, f"if {test}:", *indented([*refuse, used]), "else:", *indented(read)]
        if self.fault == "train-uses-running-stats":
            return [f"if {test}:", *indented(train), *read]
        return [f"if {test}:", *indented(train), "else:", *indented(read)]

    # The update

    def update(self, mean: str, var: str) -> list[str]:
        """Write the update of the running statistics by those of the batch."""
        attached = self.fault == "state-attached"
        detached = ".detach()" if self["graph"] == "detach" and not attached else ""
        held = (self.holder.mean, self.holder.var)
        unbiased = self.convention.unbiased and self.fault not in ("biased-running-var", "unbiased-normalization")
        new = (mean + detached, var + detached + (" * n / (n - 1)" if unbiased else ""))
        moved_mean, moved_var = (self._moved(old, batch) for old, batch in zip(held, new, strict=True))
        if self.fault == "running-stats-not-updated":
            lines = [f"new_mean = {moved_mean}", f"new_var = {moved_var}"]
        elif self["write"] == "in place":
            lines = [self._in_place(held[0], moved_mean), self._in_place(held[1], moved_var)]
        elif self.holder.write:
            lines = [self.holder.write.format(mean=moved_mean, var=moved_var)]
        else:
            lines = [f"{held[0]} = {moved_mean}", f"{held[1]} = {moved_var}", *self.holder.after]
        return ["with torch.no_grad():", *indented(lines)] if self["graph"] == "no_grad" and not attached else lines

    def _moved(self, old: str, batch: str) -> str:
        weighs_old = self.convention.weighs_old != (self.fault == "momentum-inverted")
        momentum, rest = self.momentum, f"1 - {self.momentum}"
        taken = rest if weighs_old else momentum
        if self["update"] == "lerp":
            return f"torch.lerp({old}, {batch}, {taken})"
        taken = f"({rest})" if weighs_old else momentum
        if self["update"] == "delta":
            return f"{old} + {taken} * ({batch} - {old})"
        kept = momentum if weighs_old else f"({rest})" if self.convention.momentum else "0.9"
        return f"{kept} * {old} + {taken} * {batch}"

    def _in_place(self, held: str, value: str) -> str:
        if self.library.is_torch:
            return f"{held}.copy_({value})"
        if value.startswith(f"{held} + "):
            return f"{held} += {value.removeprefix(f'{held} + ')}"
        return f"{held}[...] = {value}"

    # The result, and the backward pass

    def results(self) -> tuple[list[str], str]:
        mean, var = self.names
        if self["holder"] != "returned":
            cache = (
                f"(x_hat, {self.parameter(0)}, std)" if self["normalize"] != "folded" else f"({', '.join(self.local)})"
            )
            return self.usual_results(*self.local, cache)
        if self["result"] == "dict":
            return [f'return {{"y": y, "{mean}": {mean}, "{var}": {var}}}'], 'r["y"]'
        order = self["result"].split(", ")
        entries = {"y": "y", "mean": mean, "var": var}
        return [f"return {', '.join(entries[name] for name in order)}"], f"r[{order.index('y')}]"

    @property
    def gradient(self) -> Gradient:
        over = self.layout.axes.replace("x.", "dout.")
        weight = self.column(self.affine[0] if self["backward"] == "beside" else self.parameter(0))
        return Gradient(over, over, weight.replace(f"{self.x}.ndim", "dout.ndim"), keep=self.keeps_axes)

    # How it is used

    def given_affine(self) -> list[str]:
        if self.keeps_axes and self.layout.kept:
            return [f"{name}.reshape({self.layout.kept})" for name in ("weight", "bias")]
        return ["weight", "bias"]

    def kept_by_the_caller(self) -> Kept:
        if self.is_object or self["form"] == "factory":
            return Kept()
        if self["holder"] == "settings":
            return Kept("settings = {}", ("bn_param=settings",))
        start = f"state = [{self.start('zeros', 'C')}, {self.start('ones', 'C')}]"
        passed = tuple(f"{name}=state[{index}]" for index, name in enumerate(self.names))
        if self["holder"] != "returned":
            return Kept(start, passed)
        order = self["result"].split(", ")
        keys = list(self.names) if self["result"] == "dict" else [order.index("mean"), order.index("var")]
        return Kept(start, passed, f"\nstate = [r[{keys[0]!r}], r[{keys[1]!r}]]")

    def truth(self) -> Truth:
        convention = self.convention
        weight = 1 - convention.default if convention.weighs_old else convention.default
        shape = _SHAPES[self.layout.rank or len(self.layout.order)]
        return Truth(
            "batch", self.layout.order, shape, float(convention.eps), momentum=weight, unbiased=convention.unbiased
        )

    def allowed(self) -> set[str]:
        allowed = {"rank-unsupported"} if self.layout.rank is not None else set()
        return allowed | ({"running-stats-init"} if self["holder"] in ("lazy", "class attribute") else set())
