"""Small folders of real images for runs of a second."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from normkit.train.data import load_digits


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side; threads of tiny networks would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def idx_bytes(array: Tensor) -> bytes:
    """Bytes in the IDX form."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.byte().numpy().tobytes()


@pytest.fixture(scope="session")
def write_idx() -> Callable[..., Path]:
    """A function that writes the four IDX files with the first digits and returns their folder."""

    def write(folder: Path, train: int = 193, test: int = 60) -> Path:
        digits = load_digits()
        folder.mkdir(parents=True, exist_ok=True)
        for part, images, labels, count in (
            ("train", digits.train_images, digits.train_labels, train),
            ("t10k", digits.test_images, digits.test_labels, test),
        ):
            (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images[:count, 0]))
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[:count]))
        return folder

    return write


@pytest.fixture(scope="session")
def small_data(write_idx: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """193 training images, so that batches of 64 leave a lone last image, and 60 test images."""
    return write_idx(tmp_path_factory.mktemp("small"))
