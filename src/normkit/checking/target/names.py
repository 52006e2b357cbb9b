"""The names that people give to the arguments and attributes of a normalization layer, and what each means."""

import re

Role = str

NAMES: dict[Role, tuple[str, ...]] = {
    "input": ("x", "input", "inputs", "inp", "tensor", "data", "h", "hidden_states", "features_in", "a", "z"),
    "features": (
        "num_features",
        "num_channels",
        "normalized_shape",
        "features",
        "channels",
        "dim",
        "d_model",
        "c",
        "d",
        "n_features",
        "n_channels",
        "hidden_size",
        "hidden_dim",
        "in_channels",
        "in_features",
        "embed_dim",
        "emb_dim",
        "n_embd",
        "ndim",
        "width",
        "size",
        "shape",
        "n_out",
        "input_dim",
        "input_shape",
        "feature_dim",
        "param_shape",
        "layer_shape",
        "nf",
        "num_inputs",
        "n_inputs",
        "num_units",
        "n_units",
        "units",
        "nout",
        "nchannels",
        "nfeatures",
        "in_channel",
        "num_feature",
        "num_channel",
        "feature_size",
        "feature_num",
        "n_feature",
        "n_channel",
        "channel",
        "model_dim",
        "dim_model",
        "hidden",
        "num_hidden",
        "n_hidden",
        "in_dim",
        "d_hidden",
        "dims",
    ),
    "rank": ("num_dims", "n_dims", "rank"),
    "groups": ("num_groups", "groups", "n_groups", "group", "ngroups", "group_num", "num_group", "n_group"),
    "weight": ("weight", "gamma", "scale", "w", "gain", "g", "weights", "gammas", "a_2"),
    "bias": ("bias", "beta", "shift", "offset", "b", "biases", "betas", "b_2"),
    "running_mean": (
        "running_mean",
        "moving_mean",
        "running_mu",
        "moving_average",
        "moving_avg",
        "running_avg",
        "pop_mean",
        "population_mean",
        "mean_ema",
        "ema_mean",
        "global_mean",
        "mean",
        "ra_mean",
    ),
    "running_var": (
        "running_var",
        "moving_var",
        "moving_variance",
        "running_variance",
        "pop_var",
        "population_var",
        "var_ema",
        "ema_var",
        "global_var",
        "var",
        "variance",
        "ra_var",
    ),
    "eps": (
        "eps",
        "epsilon",
        "variance_epsilon",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "rms_norm_eps",
        "e",
        "norm_eps",
        "tiny",
        "fudge",
    ),
    "momentum": (
        "momentum",
        "decay",
        "ema_decay",
        "moving_momentum",
        "exponential_average_factor",
        "mom",
        "rho",
        "decay_rate",
    ),
    "training": (
        "training",
        "is_training",
        "train",
        "is_train",
        "use_batch_stats",
        "use_input_stats",
        "phase_train",
        "train_flg",
        "train_flag",
    ),
    "evaluation": ("use_running_average", "use_running_stats", "inference", "deterministic", "is_test", "test", "eval"),
    "mode": ("mode", "phase"),
    "settings": (
        "bn_param",
        "ln_param",
        "gn_param",
        "in_param",
        "norm_param",
        "bn_params",
        "param",
        "params",
        "config",
    ),
}

_ROLE_OF = {name: role for role, names in NAMES.items() for name in names}

_OF_A_NORM = {"bn", "ln", "gn", "in", "rms", "norm", "batchnorm", "layernorm"}
_OF_AN_ARRAY = {
    "val",
    "value",
    "values",
    "param",
    "params",
    "vec",
    "vector",
    "tensor",
    "arr",
    "array",
    "init",
    "initial",
}
_KEPT = {"running", "moving", "run", "mov", "ema", "pop", "population", "global", "avg", "average", "stored", "exp"}
_KEPT |= {"tracked", "whole", "accumulated", "accum", "smoothed", "smooth", "ra", "inference", "test", "eval"}
_MEAN = {"mean", "means", "mu", "avg", "average", "expectation"}
_SPREAD = {"var", "vars", "variance", "variances", "sigma2", "sigmasq", "sigma", "std", "stddev", "deviation"}


def role_of(name: str) -> Role | None:
    """Tell what an argument or attribute of this name usually is; None where the name tells nothing.

    A name of several words means what is left of it without those that name the norm or say that it is an array:
    bn_weight is a weight. A mean or a variance with a word for keeping beside it is a running statistic.
    """
    if name == "G":
        return "groups"
    name = name.translate(_GREEK)
    plain = name.strip("_").lower()
    if plain in _ROLE_OF:
        return _ROLE_OF[plain]
    words = words_of(name)
    if "mode" in words:
        return "mode"
    if words & {"train", "training"}:
        return "training"
    if words & _KEPT and words & _SPREAD:
        return "running_var"
    if words & _KEPT and len(words) > 1 and words & _MEAN:
        return "running_mean"
    rest = [word for word in _split(name) if word not in _OF_A_NORM | _OF_AN_ARRAY]
    return _ROLE_OF.get("_".join(rest)) if len(rest) < len(_split(name)) else None


def last_part(path: str) -> str:
    """Return the name at the end of a path: 'gamma' of grads['gamma']."""
    return re.split(r"[.\[]", path.replace("]", ""))[-1].strip("'")


def speaks_of_gradient(path: str) -> bool:
    """Whether the name of a place is usual for a gradient: grads['w'], dmult, grad_a."""
    key = last_part(path)
    return bool(words_of(path) & {"grad", "grads", "gradient", "gradients"}) or bool(
        re.match(r"_?d(?!im|ata|ecay)", key)
    )


def words_of(name: str) -> set[str]:
    """Return the words of a name, in lower case: isTrain is made of "is" and "train"."""
    return set(_split(name))


_GREEK = str.maketrans(
    {"γ": "gamma", "β": "beta", "ε": "eps", "ϵ": "eps", "μ": "mu", "σ": "sigma", "α": "alpha", "ρ": "rho"}
)


def _split(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


ABBREVIATIONS = {"bn": "batch", "gn": "group", "ln": "layer"}
"""The families that a word of two letters stands for."""


def family_of(name: str) -> str | None:
    """Tell the family that a name promises: batch, layer, group, instance or rms; None where it promises none."""
    lower = name.lower()
    before_norm = re.search(r"(batch|group|instance|rms|layer)_?norm", lower)
    if before_norm is not None:
        return before_norm[1]
    for family in ("batch", "group", "instance", "rms"):
        if family in lower:
            return family
    if "layer" in lower and "norm" in lower:
        return "layer"
    words = words_of(name)
    return next((family for word, family in ABBREVIATIONS.items() if word in words), None)


def ranks_of(name: str, family: str | None) -> tuple[int, ...]:
    """Tell the input ranks that a name promises: BatchNorm2d means 4. Empty where it promises none."""
    lower = name.lower()
    found = re.search(r"(?<![0-9])([123])d(?![a-z0-9])", lower)
    if found is None:
        return (4,) if "spatial" in lower else ()
    if found[1] == "1":
        return (3,) if family == "instance" else (2, 3)
    return (int(found[1]) + 2,)
