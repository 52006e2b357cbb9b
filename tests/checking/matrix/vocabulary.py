"""The names that people give to the same things."""

STATISTICS = (
    "running_mean/running_var",
    "moving_mean/moving_variance",
    "moving_mean/moving_var",
    "exp_mean/exp_var",
    "avg_mean/avg_var",
    "avg_mu/avg_sigma2",
    "mean_avg/var_avg",
    "stored_mean/stored_var",
    "means/variances",
    "global_mu/global_sigma2",
    "global_mean/global_var",
    "pop_mean/pop_var",
    "population_mean/population_variance",
    "ema_mean/ema_var",
    "mean_ema/var_ema",
    "mean_whole/var_whole",
    "running_mu/running_sigma2",
    "running_average/running_variance",
    "mu_hat/sigma2_hat",
    "mu/sigma2",
    "m/v",
    "a0/b0",
    "r_mean/r_var",
    "mean_run/var_run",
    "test_mean/test_var",
    "inference_mean/inference_var",
    "cum_mean/cum_var",
    "est_mean/est_var",
    "mean_buf/var_buf",
    "smoothed_mean/smoothed_variance",
    "tracked_mean/tracked_var",
    "history_mean/history_var",
    "mean_/var_",
    "_mu/_var",
    "bn_mean/bn_var",
    "mean_val/var_val",
    "mean/variance",
    "xbar/s2",
    "first_moment/second_moment",
    "Emean/Evar",
)

AFFINE = (
    "gamma/beta",
    "weight/bias",
    "scale/shift",
    "gain/offset",
    "w/b",
    "a/b",
    "alpha/beta",
    "g/b",
    "gain/bias",
    "scale/bias",
    "scale/offset",
    "a_2/b_2",
    "slope/intercept",
    "norm_weight/norm_bias",
    "W/B",
    "mult/add",
)
BATCH_AFFINE = (*AFFINE, "bn_weight/bn_bias", "bn_scale/bn_shift")
LAYER_AFFINE = (*AFFINE, "ln_weight/ln_bias", "ln_g/ln_b")

SIZES = (
    "num_features",
    "dim",
    "n_features",
    "channels",
    "size",
    "D",
    "hidden",
    "n_out",
    "in_channels",
    "units",
    "d_model",
    "input_dim",
    "width",
    "nf",
)
INPUTS = ("x", "X", "inputs", "inp", "h", "data", "batch", "z", "features")

BATCH_CLASSES = (
    "BatchNorm",
    "BatchNormalization",
    "MyBatchNorm",
    "BatchNormLayer",
    "BN",
    "BNLayer",
    "Norm",
    "Normalizer",
    "Standardize",
    "FeatureNorm",
    "BatchNorm2d",
)
BATCH_FUNCTIONS = (
    "batch_norm",
    "batchnorm",
    "batchnorm_forward",
    "bn",
    "bn_forward",
    "normalize",
    "batch_normalization",
    "norm",
    "standardize",
)
BATCH_FACTORIES = ("make_batch_norm", "build_bn", "batch_norm_layer", "new_norm")
BATCH_WORDS = ("batch", "bn")
"""What tells batch normalization in a lower-case name; without it only its behaviour does."""

LAYER_CLASSES = ("LayerNorm", "MyLayerNorm", "LayerNormalization", "LN", "Norm", "Standardize", "LayerNormLayer")
LAYER_FUNCTIONS = ("layer_norm", "layernorm", "ln", "layernorm_forward", "normalize", "layer_normalization", "norm")
