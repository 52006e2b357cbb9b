"""Layers of Flax and Keras as plain callables that keep their arrays in a dict.

Their frameworks keep parameters apart from the layer, or objects of their own in the place of arrays. A factory with
the arguments of the layer's constructor builds it, and what it returns has the arguments of the layer's call. Layers of
Equinox keep arrays; they take one sample at a time.
"""

import copy
import inspect
import re
from importlib import import_module
from typing import Any

from normkit.checking.target.errors import CannotRunError

_BASES = {
    "flax.linen.module": "linen",
    "flax.nnx.module": "nnx",
    "keras.src.layers.layer": "keras",
    "equinox": "equinox",
}
"""The modules that define what their layers derive from."""
_OF_THE_FRAMEWORK = ("parent", "name", "rngs", "kwargs")
"""Arguments of a constructor that are no business of the layer."""


def framework_of(target: Any) -> str | None:
    """Tell the framework that a class or an object belongs to: linen, nnx, keras or equinox; None for another."""
    kind = target if inspect.isclass(target) else type(target)
    for base in kind.__mro__:
        for module in (base.__module__, base.__module__.partition(".")[0]):
            if module in _BASES:
                return _BASES[module]
    return None


def library_name_of(target: Any) -> str | None:
    """Name the array library that a layer of a framework works on; None for what belongs to none."""
    framework = framework_of(target)
    if framework != "keras":
        return framework and "jax"
    return str(import_module("keras").backend.backend())


def plain(target: Any) -> Any:
    """Return a factory for a layer of Flax or Keras, and anything else as it is.

    Raises:
        CannotRunError: it is a layer of Keras on a back end that is not supported.
    """
    framework = framework_of(target)
    if framework not in ("linen", "nnx", "keras"):
        return target
    takes_class = inspect.isclass(target)
    kind = target if takes_class else type(target)
    if library_name_of(target) == "tensorflow":
        raise CannotRunError(
            f"{kind.__name__} is a layer of Keras, which runs on TensorFlow here: choose another back end, as in "
            "KERAS_BACKEND=torch normkit check ..., or KERAS_BACKEND=jax"
        )
    taken = dict(list(inspect.signature(kind.__init__).parameters.items())[1:]) if takes_class else {}
    wrapper = _with_call_of(kind, {"linen": _Linen, "nnx": _Nnx, "keras": _Keras}[framework])

    def build(*args: Any, **kwargs: Any) -> Any:
        if not takes_class:
            return wrapper(copy.deepcopy(target))
        if framework == "nnx" and "rngs" in taken:
            kwargs["rngs"] = import_module("flax.nnx").Rngs(0)
        return wrapper(target(*args, **kwargs))

    build.__name__ = build.__qualname__ = kind.__name__
    told = inspect.Signature([p for name, p in taken.items() if name not in _OF_THE_FRAMEWORK])
    build.__dict__.update(adapts=target, __signature__=told)
    return build


def _with_call_of(kind: type, wrapper: "type[_Kept]") -> "type[_Kept]":
    """Return a wrapper whose call tells the arguments of a layer's own."""

    def call(self: _Kept, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)

    call.__dict__["__signature__"] = inspect.signature(getattr(kind, wrapper.call_name))
    return type(kind.__name__, (wrapper,), {"__call__": call})


class _Apart:
    """Something that holds no arrays of the layer: those are looked for in what has a ``__dict__``."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Kept:
    """A layer whose arrays of floats lie in ``held``, by name.

    Args:
        module: The layer.
    """

    call_name = "__call__"

    def __init__(self, module: Any) -> None:
        self.held: dict[str, Any] = {}
        self._module = _Apart(module)
        self._rest = _Apart({})
        self._tree = _Apart(None)

    def run(self, x: Any, *args: Any, **options: Any) -> Any:
        """Call the layer, and keep what the call changes."""
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Kept":
        """Copy the arrays; the layer itself keeps nothing that a call changes."""
        copied = copy.copy(self)
        copied.held = copy.deepcopy(self.held, memo)
        copied._rest = _Apart(dict(self._rest.value))
        return copied

    def _keep(self, named: dict[str, Any]) -> None:
        for name, value in named.items():
            (self.held if "float" in str(getattr(value, "dtype", "")) else self._rest.value)[name] = value

    def _values(self) -> dict[str, Any]:
        return {**self._rest.value, **self.held}

    def _keep_tree(self, tree: Any) -> None:
        """Take over the arrays of a tree of JAX; of a part of the one before, what is new."""
        jax = import_module("jax")
        found, structure = jax.tree_util.tree_flatten_with_path(tree)
        named = {"/".join(re.findall(r"\w+", jax.tree_util.keystr(path))): value for path, value in found}
        self._keep(named)
        if self._tree.value is None:
            self._tree.value = structure, list(named)

    def _as_tree(self) -> Any:
        structure, names = self._tree.value
        values = self._values()
        return import_module("jax").tree_util.tree_unflatten(structure, [values[name] for name in names])


class _Linen(_Kept):
    """A layer of ``flax.linen``: its variables are made in the first call."""

    def run(self, x: Any, *args: Any, **options: Any) -> Any:
        key, module = import_module("jax").random.key(0), self._module.value
        if self._tree.value is None:
            self._keep_tree(dict(module.init({"params": key, "dropout": key}, x, *args, **options)))
        variables = self._as_tree()
        mutable = [name for name in variables if name != "params"]
        y, changed = module.apply(variables, x, *args, mutable=mutable, rngs={"dropout": key}, **options)
        self._keep_tree(dict(changed))
        return y


class _Nnx(_Kept):
    """A layer of ``flax.nnx``, split into what it is and what it keeps."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._graph = _Apart(None)
        self._split(module)

    def _split(self, module: Any) -> None:
        self._graph.value, state = import_module("flax.nnx").split(module)
        self._keep_tree(state)

    def run(self, x: Any, *args: Any, **options: Any) -> Any:
        module = import_module("flax.nnx").merge(self._graph.value, self._as_tree())
        y = module(x, *args, **options)
        self._split(module)
        return y

    def train(self) -> None:
        """Switch to training."""
        self._switch("train")

    def eval(self) -> None:
        """Switch to evaluation."""
        self._switch("eval")

    def _switch(self, mode: str) -> None:
        module = import_module("flax.nnx").merge(self._graph.value, self._as_tree())
        getattr(module, mode)()
        self._split(module)


class _Keras(_Kept):
    """A layer of Keras, on any of its back ends: its variables are made in the first call."""

    call_name = "call"

    def run(self, x: Any, *args: Any, **options: Any) -> Any:
        layer = self._module.value
        if not layer.built:
            layer.build(tuple(x.shape))
        kinds = (layer.trainable_variables, layer.non_trainable_variables)
        if self._tree.value is None:
            self._tree.value = [[f"{index}/{v.name}" for index, v in enumerate(kind)] for kind in kinds]
            for names, variables in zip(self._tree.value, kinds, strict=True):
                self._keep({name: _own(v.value) for name, v in zip(names, variables, strict=True)})
            for name in self._tree.value[0]:
                getattr(self.held[name], "requires_grad_", bool)()
        values = self._values()
        trainable, others = ([values[name] for name in names] for names in self._tree.value)
        y, changed = layer.stateless_call(trainable, others, x, *args, **options)
        self._keep({name: _own(value) for name, value in zip(self._tree.value[1], changed, strict=True)})
        return y


def _own(value: Any) -> Any:
    """Return a copy of a tensor of torch, without its graph, as a variable keeps it; arrays are never written to."""
    return value.detach().clone() if hasattr(value, "detach") else value
