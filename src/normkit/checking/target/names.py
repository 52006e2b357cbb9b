"""The names that people give to the arguments and attributes of a normalization layer, and what each means."""

import re

Role = str

NAMES: dict[Role, tuple[str, ...]] = {
    "input": ("x", "input", "inputs", "inp", "tensor", "data", "h", "hidden_states", "hidden", "features_in", "a", "z"),
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
    ),
    "rank": ("num_dims", "n_dims", "rank"),
    "groups": ("num_groups", "groups", "n_groups", "group", "ngroups"),
    "weight": ("weight", "gamma", "scale", "w", "gain", "g"),
    "bias": ("bias", "beta", "shift", "offset", "b"),
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
    "eps": ("eps", "epsilon", "variance_epsilon", "layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "e"),
    "momentum": ("momentum", "decay", "ema_decay", "moving_momentum", "exponential_average_factor"),
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


def role_of(name: str) -> Role | None:
    """Tell what an argument or attribute of this name usually is; None where the name tells nothing."""
    if name == "G":
        return "groups"
    plain = name.strip("_").lower()
    return _ROLE_OF.get(plain)


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
    words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    short = {"bn": "batch", "gn": "group", "ln": "layer"}
    return next((family for word, family in short.items() if word in words), None)


def ranks_of(name: str, family: str | None) -> tuple[int, ...]:
    """Tell the input ranks that a name promises: BatchNorm2d means 4. Empty where it promises none."""
    lower = name.lower()
    found = re.search(r"(?<![0-9])([123])d(?![a-z0-9])", lower)
    if found is None:
        return (4,) if "spatial" in lower else ()
    if found[1] == "1":
        return (3,) if family == "instance" else (2, 3)
    return (int(found[1]) + 2,)
