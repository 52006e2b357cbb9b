"""A static forward has no self to take away."""

TARGET = "StaticLayerNorm"
EXPECT = {"exit": 0, "has": [], "not": []}


class StaticLayerNorm:
    @staticmethod
    def forward(x, w, b):
        mean = x.mean(-1, keepdim=True)
        var = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) * (var + 1e-5).rsqrt() * w + b
