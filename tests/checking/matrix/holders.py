"""Where the running statistics live: how they start, are read and are written."""

from dataclasses import dataclass, field

from tests.checking.matrix.library import Library

_OBJECT = "@dataclass\nclass Moments:\n    {mean}: object\n    {var}: object\n"
_SUBMODULE = """class Statistics(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.register_buffer("{mean}", {zeros})
        self.register_buffer("{var}", {ones})
"""


@dataclass(frozen=True)
class Holder:
    """The code of one place for two running statistics.

    Args:
        mean: Where the mean is read and written, as code.
        var: The same for the variance.
        init: What the constructor does.
        prelude: Definitions that it needs.
        class_body: What stands in the body of the class.
        before: What each call does first.
        write: What writes both at once, with ``{mean}`` and ``{var}`` for the new values; empty where each is assigned.
        after: What each update does last.
        lazy: Whether it starts with the first call.
    """

    mean: str
    var: str
    init: list[str] = field(default_factory=list)
    prelude: str = ""
    class_body: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    write: str = ""
    after: list[str] = field(default_factory=list)
    lazy: bool = False


def in_object(kind: str, names: tuple[str, str], zeros: str, ones: str, library: Library, lazy_count: str) -> Holder:
    """Return a place in an object: attributes, or something that an attribute holds."""
    mean, var = names
    if kind == "buffer":
        init = [f'self.register_buffer("{mean}", {zeros})', f'self.register_buffer("{var}", {ones})']
        return Holder(f"self.{mean}", f"self.{var}", init)
    if kind == "plain attribute":
        return Holder(f"self.{mean}", f"self.{var}", [f"self.{mean} = {zeros}", f"self.{var} = {ones}"])
    if kind == "submodule":
        shape = zeros.partition("(")[2][:-1]
        prelude = _SUBMODULE.format(
            mean=mean, var=var, zeros=zeros.replace(shape, "shape"), ones=ones.replace(shape, "shape")
        )
        return Holder(f"self.stats.{mean}", f"self.stats.{var}", [f"self.stats = Statistics({shape})"], prelude)
    if kind == "dict":
        return Holder(
            f'self.stats["{mean}"]', f'self.stats["{var}"]', [f'self.stats = {{"{mean}": {zeros}, "{var}": {ones}}}']
        )
    if kind == "nested dict":
        entry = 'self.stats["norm"]["{}"]'
        init = [f'self.stats = {{"norm": {{"{mean}": {zeros}, "{var}": {ones}}}}}']
        return Holder(entry.format(mean), entry.format(var), init)
    if kind == "list":
        return Holder("self.stats[0]", "self.stats[1]", [f"self.stats = [{zeros}, {ones}]"])
    if kind == "tuple":
        init = [f"self.stats = ({zeros}, {ones})"]
        return Holder("self.stats[0]", "self.stats[1]", init, write="self.stats = ({mean}, {var})")
    if kind == "object":
        init = [f"self.stats = Moments({zeros}, {ones})"]
        return Holder(f"self.stats.{mean}", f"self.stats.{var}", init, _OBJECT.format(mean=mean, var=var))
    if kind in ("stacked", "stacked buffer"):
        both = f"{library.module}.stack([{zeros}, {ones}])"
        init = [f'self.register_buffer("stats", {both})' if kind == "stacked buffer" else f"self.stats = {both}"]
        write = f"self.stats = {library.module}.stack([{{mean}}, {{var}}])"
        return Holder("self.stats[0]", "self.stats[1]", init, write=write)
    if kind == "class attribute":
        start = ones.startswith(f"{library.module}.ones")
        return Holder(f"self.{mean}", f"self.{var}", class_body=[f"{mean} = 0.0", f"{var} = {1.0 if start else 0.0}"])
    if kind == "lazy":
        before = [
            f"if self.{mean} is None:",
            f"    C = {lazy_count}",
            f"    self.{mean}, self.{var} = {zeros}, {ones}",
        ]
        init = [f"self.{mean} = None", f"self.{var} = None"]
        return Holder(f"self.{mean}", f"self.{var}", init, before=before, lazy=True)
    return Holder(f"self.{mean}", f"self.{var}", [f"self.{mean} = {zeros}", f"self.{var} = {ones}"])


def in_closure(kind: str, names: tuple[str, str], zeros: str, ones: str) -> Holder:
    """Return a place in the cells of a closure."""
    mean, var = names
    if kind == "cell dict":
        return Holder(f'stats["{mean}"]', f'stats["{var}"]', [f'stats = {{"{mean}": {zeros}, "{var}": {ones}}}'])
    if kind == "cell list":
        return Holder("stats[0]", "stats[1]", [f"stats = [{zeros}, {ones}]"])
    if kind == "cell object":
        init = [f"stats = Moments({zeros}, {ones})"]
        return Holder(f"stats.{mean}", f"stats.{var}", init, _OBJECT.format(mean=mean, var=var))
    return Holder(mean, var, [f"{mean} = {zeros}", f"{var} = {ones}"], before=[f"nonlocal {mean}, {var}"])


def in_call(kind: str, names: tuple[str, str], zeros: str, ones: str, count: str) -> Holder:
    """Return a place that the caller keeps: arrays, or a dict of settings."""
    mean, var = names
    if kind == "settings":
        before = [
            f"C = {count}",
            f'{mean} = bn_param.get("{mean}", {zeros})',
            f'{var} = bn_param.get("{var}", {ones})',
        ]
        after = [f'bn_param["{mean}"], bn_param["{var}"] = {mean}, {var}']
        return Holder(mean, var, before=before, after=after)
    return Holder(mean, var)
