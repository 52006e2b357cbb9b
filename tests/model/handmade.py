"""Norms as models write them by hand, and impostors that only look like them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LlamaRMSNorm(nn.Module):
    """As in the Llama of transformers: cast, then multiply."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.variance_epsilon = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalize in float32."""
        dtype = hidden_states.dtype
        wide = hidden_states.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(dtype)


class CastLastRMSNorm(LlamaRMSNorm):
    """As in OLMo: multiply, then cast."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalize in float32, weight too."""
        wide = hidden_states.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.weight * wide).to(hidden_states.dtype)


class T5LayerNorm(LlamaRMSNorm):
    """As in T5: float32 unless the weight is half."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The variance alone in float32."""
        variance = hidden_states.to(torch.float32).pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            hidden_states = hidden_states.to(self.weight.dtype)
        return self.weight * hidden_states


class GemmaRMSNorm(nn.Module):
    """As in Gemma: the weight is a distance from one."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by one more than the weight."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * (1.0 + self.weight.float())).type_as(x)


class LayerNorm2d(nn.Module):
    """As in SAM and others: over the channels, in the input's own type."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize over axis 1."""
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(var + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class PermutedLayerNorm2d(nn.LayerNorm):
    """As in torchvision: a subclass of torch's norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute, normalize, permute."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


RECOGNIZED = (LlamaRMSNorm, CastLastRMSNorm, T5LayerNorm, GemmaRMSNorm, LayerNorm2d, PermutedLayerNorm2d)


class UnbiasedRMSNorm(LlamaRMSNorm):
    """Divides by n - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Nearly right."""
        size = x.shape[-1]
        return self.weight * x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / (size - 1) + self.variance_epsilon)


class EpsOutsideRMSNorm(LlamaRMSNorm):
    """Adds eps outside the root."""

    def forward(self, x: Tensor) -> Tensor:
        """Right where x is large."""
        return self.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.variance_epsilon)


class DetachedRMSNorm(LlamaRMSNorm):
    """The right result, another gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """No gradient through the variance."""
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x * scale.detach()


class NoisyRMSNorm(LlamaRMSNorm):
    """Adds noise in training."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Right in evaluation."""
        y = super().forward(hidden_states)
        return y + 0.1 * torch.randn_like(y) if self.training else y


class RememberingRMSNorm(LlamaRMSNorm):
    """Keeps its last input."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Remember, then normalize."""
        self.last = hidden_states
        return super().forward(hidden_states)


class IgnoredWeightRMSNorm(LlamaRMSNorm):
    """Equal as long as the weight is one."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The weight has no part in it."""
        return LlamaRMSNorm.forward(self, hidden_states) / self.weight


class GatedRMSNorm(LlamaRMSNorm):
    """Needs a second input."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Normalize and gate."""
        return super().forward(x) * gate


IMPOSTORS = (
    UnbiasedRMSNorm,
    EpsOutsideRMSNorm,
    DetachedRMSNorm,
    NoisyRMSNorm,
    RememberingRMSNorm,
    IgnoredWeightRMSNorm,
    GatedRMSNorm,
)
