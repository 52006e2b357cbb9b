"""Words inside names tell too: bn_weight is a weight, var_val a variance."""

TARGET = "bn_step"
EXPECT = {"exit": 0, "has": [], "not": ["wrong-axes"]}


def bn_step(x, bn_weight, bn_bias, eps, mean_val=None, var_val=None):
    mean = x.mean([0, 2, 3]) if mean_val is None else mean_val
    var = x.var([0, 2, 3], unbiased=False) if var_val is None else var_val
    y = (x - mean[:, None, None]) / (var[:, None, None] + eps).sqrt()
    return mean, var, y * bn_weight[:, None, None] + bn_bias[:, None, None]
