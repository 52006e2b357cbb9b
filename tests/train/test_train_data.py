"""Images: what is read, what is refused and with which words, and in which order an epoch visits them."""

import gzip
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from normkit.errors import UserError
from normkit.train import data, idx
from normkit.train.data import epoch_batches, load_dataset

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def test_digits_are_split_by_class_and_the_same_each_time() -> None:
    digits = load_dataset("digits")
    assert digits.train_images.shape == (1442, 1, 28, 28)
    assert digits.test_images.shape == (355, 1, 28, 28)
    assert digits.train_images.dtype == torch.uint8
    assert int(digits.train_images.max()) == 255
    shares = torch.bincount(digits.test_labels) / (
        torch.bincount(digits.test_labels) + torch.bincount(digits.train_labels)
    )
    assert (shares - 0.2).abs().max() < 0.006
    assert load_dataset("digits").fingerprint() == digits.fingerprint()


def test_no_digit_is_both_trained_on_and_tested() -> None:
    digits = load_dataset("digits")
    train = {image.numpy().tobytes() for image in digits.train_images}
    assert not [image for image in digits.test_images if image.numpy().tobytes() in train]


@pytest.mark.parametrize("compressed", [False, True])
def test_folder_gives_what_was_written(write_idx: Callable[..., Path], tmp_path: Path, compressed: bool) -> None:
    folder = write_idx(tmp_path / "images", train=50, test=20)
    if compressed:
        for file in list(folder.iterdir()):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    digits, read = load_dataset("digits"), load_dataset(str(folder))
    assert torch.equal(read.train_images, digits.train_images[:50])
    assert torch.equal(read.train_labels, digits.train_labels[:50])
    assert torch.equal(read.test_images, digits.test_images[:20])
    assert torch.equal(read.test_labels, digits.test_labels[:20])


def truncate(folder: Path) -> None:
    packed = gzip.compress((folder / IMAGES).read_bytes())
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(packed[: len(packed) // 2])


def not_gzip(folder: Path) -> None:
    (folder / IMAGES).rename(folder / f"{IMAGES}.gz")


def swap(folder: Path) -> None:
    shutil.copy(folder / LABELS, folder / IMAGES)


def empty(folder: Path) -> None:
    (folder / IMAGES).write_bytes(b"")


def cut(folder: Path) -> None:
    (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:-1])


def lengthen(folder: Path) -> None:
    (folder / LABELS).write_bytes((folder / LABELS).read_bytes() + b"\0")


def cut_header(folder: Path) -> None:
    (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:9])


def mix(folder: Path) -> None:
    shutil.copy(folder / "t10k-labels-idx1-ubyte", folder / LABELS)


def mislabel(folder: Path) -> None:
    content = bytearray((folder / LABELS).read_bytes())
    content[8 + 7] = 10
    (folder / LABELS).write_bytes(content)


def resize(folder: Path) -> None:
    content = (folder / IMAGES).read_bytes()
    sizes = b"".join(size.to_bytes(4, "big") for size in (50, 14, 56))
    (folder / IMAGES).write_bytes(content[:4] + sizes + content[16:])


def no_images(folder: Path) -> None:
    header = (folder / IMAGES).read_bytes()[:4]
    (folder / IMAGES).write_bytes(header + b"".join(size.to_bytes(4, "big") for size in (0, 28, 28)))


def wrap_around(folder: Path) -> None:
    content = (folder / IMAGES).read_bytes()
    sizes = b"".join(size.to_bytes(4, "big") for size in (2**31, 2**31, 4))  # 2**64 values, which int64 takes for 0
    (folder / IMAGES).write_bytes(content[:4] + sizes)


def make_folder(folder: Path) -> None:
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").mkdir()


def bomb(folder: Path) -> None:
    (folder / IMAGES).unlink()
    packed = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**20)
    (folder / f"{IMAGES}.gz").write_bytes(b"".join([*(packed.compress(zeros) for _ in range(9)), packed.flush()]))


def remove(folder: Path) -> None:
    (folder / LABELS).unlink()


@pytest.mark.parametrize(
    ("spoil", "names", "says"),
    [
        (truncate, f"{IMAGES}.gz", "ends too early"),
        (not_gzip, f"{IMAGES}.gz", "not a sound gzip file"),
        (swap, IMAGES, "expected the magic number 0x00000803, found 0x00000801"),
        (empty, IMAGES, "found only 0 bytes"),
        (cut, IMAGES, "announces 50 × 28 × 28 values"),
        (lengthen, LABELS, "announces 50 values"),
        (cut_header, IMAGES, "damaged or cut off"),
        (mix, LABELS, "20 labels for the 50 images"),
        (mislabel, LABELS, "label 10 at position 7"),
        (resize, IMAGES, "these are 14×56"),
        (no_images, IMAGES, "holds no images"),
        (wrap_around, IMAGES, "announces 2147483648 × 2147483648 × 4 values"),
        (make_folder, IMAGES, "no file"),
        (bomb, f"{IMAGES}.gz", "holds more than 8 MiB, unpacked"),
        (remove, LABELS, "no file"),
    ],
)
def test_bad_folder_is_refused_by_name(
    write_idx: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    names: str,
    says: str,
) -> None:
    monkeypatch.setattr(idx, "MOST_BYTES", 2**23)
    folder = write_idx(tmp_path / "images", train=50, test=20)
    load_dataset(str(folder))
    spoil(folder)
    with pytest.raises(UserError) as error:
        load_dataset(str(folder))
    assert names in str(error.value)
    assert says in str(error.value)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nor a folder that exists"):
        load_dataset(str(tmp_path / "nowhere"))


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"apt install dataset-fashion-mnist.*`data_dir`"):
        load_dataset("fashion-mnist", str(tmp_path))


def test_fashion_mnist_with_other_content_is_refused(write_idx: Callable[..., Path], tmp_path: Path) -> None:
    write_idx(tmp_path)
    with pytest.raises(UserError, match="not the published Fashion-MNIST file: expected the SHA-256 c59f"):
        load_dataset("fashion-mnist", str(tmp_path))


@pytest.mark.skipif(not data.DEBIAN_FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_is_accepted_whatever_its_gzip_header(tmp_path: Path) -> None:
    installed = load_dataset("fashion-mnist")
    assert installed.train_images.shape == (60000, 1, 28, 28)
    assert torch.bincount(installed.train_labels).tolist() == [6000] * 10
    for file in data.DEBIAN_FASHION.glob("*.gz"):
        content = gzip.decompress(file.read_bytes())
        if "t10k" in file.name:  # another compression, as the publisher's own files have
            (tmp_path / file.name).write_bytes(gzip.compress(content, compresslevel=1, mtime=1))
        else:
            (tmp_path / file.stem).write_bytes(content)
    assert load_dataset("fashion-mnist", str(tmp_path)).fingerprint() == installed.fingerprint()


def test_fingerprint_sees_one_changed_label() -> None:
    first, second = load_dataset("digits"), load_dataset("digits")
    second.test_labels[3] = (second.test_labels[3] + 1) % 10
    assert first.fingerprint() != second.fingerprint()


def test_an_epoch_visits_each_image_once_in_an_order_of_its_own() -> None:
    batches = epoch_batches(100, 32, seed=5, epoch=2)
    assert [len(batch) for batch in batches] == [32, 32, 32, 4]
    assert sorted(torch.cat(batches).tolist()) == list(range(100))
    order = torch.cat(batches)
    assert torch.equal(order, torch.cat(epoch_batches(100, 32, seed=5, epoch=2)))
    assert not torch.equal(order, torch.cat(epoch_batches(100, 32, seed=5, epoch=3)))
    assert not torch.equal(order, torch.cat(epoch_batches(100, 32, seed=6, epoch=2)))


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(97, 32, [32, 32, 33]), (3, 1, [1, 1, 1]), (96, 32, [32] * 3), (1, 1, [1])]
)
def test_a_lone_last_image_joins_the_batch_before(count: int, size: int, lengths: list[int]) -> None:
    assert [len(batch) for batch in epoch_batches(count, size, seed=0, epoch=1)] == lengths
