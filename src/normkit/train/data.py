"""The images: three sources, one form, and the order in which an epoch visits them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from normkit.choices import did_you_mean
from normkit.errors import UserError
from normkit.train import idx
from normkit.train.config import DIGITS, FASHION, IMAGE_SIZE

CLASSES: Final = 10
DEBIAN_FASHION: Final = Path("/usr/share/datasets/fashion-mnist")

# SHA-256 of the decompressed files: the publisher's .gz files and Debian's differ in their gzip headers only.
FASHION_SUMS: Final = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True)
class Dataset:
    """Training and test images as bytes, and their labels.

    Shape:
        train_images, test_images: (N, 1, 28, 28), uint8;  train_labels, test_labels: (N,), int64
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything, by which a resumed run recognizes its data."""
        digest = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def load_dataset(data: str, data_dir: str | Path | None = None) -> Dataset:
    """Load ``"digits"``, ``"fashion-mnist"`` from the folder ``data_dir``, or a folder of IDX files."""
    if data == DIGITS:
        return load_digits()
    if data == FASHION:
        return load_fashion_mnist(DEBIAN_FASHION if data_dir is None else Path(data_dir))
    folder = Path(data)
    if not folder.is_dir():
        what = f"`data={data}`: neither {DIGITS!r} nor {FASHION!r} nor a folder that exists"
        if folder.name.lower() == "mnist":
            raise UserError(
                f"{what}. Fetch MNIST's four .gz files from https://ossci-datasets.s3.amazonaws.com/mnist/ into "
                "a folder, and name the folder"
            )
        raise UserError(what + did_you_mean(folder.name, (DIGITS, FASHION)))
    return load_idx_folder(folder)


def load_digits() -> Dataset:
    """Load scikit-learn's 1,797 digits of 8×8, enlarged to 28×28; every fifth of each class is for the test."""
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    small = torch.from_numpy(np.ascontiguousarray(bunch.images, dtype=np.float32)).unsqueeze(1)  # 0 to 16
    large = F.interpolate(small, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)
    images = (large * (255 / 16)).round().to(torch.uint8)
    labels = torch.from_numpy(np.asarray(bunch.target, dtype=np.int64))
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(CLASSES):
        is_test[(labels == digit).nonzero().flatten()[4::5]] = True
    return Dataset(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def load_fashion_mnist(folder: Path) -> Dataset:
    """Load the published Fashion-MNIST files, each checked against its sum."""
    contents = {}
    for stem, expected in FASHION_SUMS.items():
        try:
            path = idx.find(folder, stem)
        except UserError as error:
            raise UserError(
                f"Fashion-MNIST is not in {folder} (no {stem}.gz). On Debian or Ubuntu: sudo apt install "
                "dataset-fashion-mnist. Anywhere else: download the four .gz files from "
                "https://github.com/zalandoresearch/fashion-mnist (data/fashion) and name their folder with `data_dir`"
            ) from error
        content = idx.read_bytes(path)
        arrived = hashlib.sha256(content).hexdigest()
        if arrived != expected:
            raise UserError(
                f"{path}: not the published Fashion-MNIST file: expected the SHA-256 {expected} of its decompressed "
                f"content, found {arrived}. Fetch it again; for images of your own use `data={folder}`"
            )
        contents[stem] = path, content
    parts = []
    for part in ("train", "t10k"):
        images_path, images = contents[f"{part}-images-idx3-ubyte"]
        labels_path, labels = contents[f"{part}-labels-idx1-ubyte"]
        parts += [idx.parse(images_path, images, idx.IMAGES_MAGIC), idx.parse(labels_path, labels, idx.LABELS_MAGIC)]
    return Dataset(*_tensors(*parts[:2]), *_tensors(*parts[2:]))


def load_idx_folder(folder: Path) -> Dataset:
    """Load four IDX files with MNIST's names, gzipped or not, each checked before anything is trained."""
    parts: list[Tensor] = []
    for part in ("train", "t10k"):
        images_path, images = idx.read(folder, f"{part}-images-idx3-ubyte", idx.IMAGES_MAGIC)
        labels_path, labels = idx.read(folder, f"{part}-labels-idx1-ubyte", idx.LABELS_MAGIC)
        if len(images) == 0:
            raise UserError(f"{images_path}: holds no images; at least one is needed")
        if images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
            rows, columns = images.shape[1:]
            raise UserError(
                f"{images_path}: LeNet takes images of {IMAGE_SIZE}×{IMAGE_SIZE}, these are {rows}×{columns}: "
                "resize them first"
            )
        if len(labels) != len(images):
            raise UserError(
                f"{labels_path}: {len(labels):,} labels for the {len(images):,} images of {images_path.name}: "
                "each image needs one label; the two files do not belong together"
            )
        if labels.max() >= CLASSES:
            where = int(labels.argmax())
            raise UserError(
                f"{labels_path}: label {labels[where]} at position {where}: "
                f"labels must be 0 to {CLASSES - 1}, as the network has {CLASSES} outputs"
            )
        parts += _tensors(images, labels)
    return Dataset(*parts)


def _tensors(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    # The arrays are read-only views of the file's bytes, hence the copies.
    return torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def to_input(images: Tensor, image_size: int = IMAGE_SIZE) -> Tensor:
    """Convert bytes to the network's input: float32 from 0 to 1, enlarged or reduced to ``image_size``."""
    values = images.to(torch.float32).div_(255)
    if values.shape[-1] == image_size:
        return values
    return F.interpolate(values, size=(image_size, image_size), mode="bilinear", align_corners=False)


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Return the indices of each batch of one epoch.

    The order depends on ``seed`` and ``epoch`` alone, so that all norms see the same batches and a resumed run
    needs no saved random state. A last batch of one image joins the one before it, because batch statistics need two.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    batches = list(torch.split(torch.randperm(count, generator=generator), batch_size))
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
