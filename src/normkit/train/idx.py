"""Reading one IDX file, gzipped or not, with errors that name the file and what is wrong with it."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normkit.errors import UserError

IMAGES_MAGIC = 0x00000803
"""Unsigned bytes in three dimensions: image, row, column."""
LABELS_MAGIC = 0x00000801
"""Unsigned bytes in one dimension."""
MOST_BYTES = 2**30
"""What a file may hold, unpacked: twice the largest set in MNIST's form (EMNIST's 697,932 images)."""


def find(folder: Path, stem: str) -> Path:
    """Return the file ``stem.gz`` or ``stem`` in ``folder``."""
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return path
    raise UserError(
        f"{folder}: no file {stem}.gz or {stem} there: the folder must hold the four IDX files of the MNIST form"
    )


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path``, decompressed if its name ends in .gz; no more than ``MOST_BYTES`` are read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except EOFError as error:
        raise UserError(f"{path}: the gzip file ends too early, as after a broken download: fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path}: not a sound gzip file ({error}): fetch it again, "
            "or drop .gz from its name if it is not compressed"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MOST_BYTES:
        raise UserError(
            f"{path}: holds more than {MOST_BYTES // 2**20:,} MiB, unpacked: no set of images in MNIST's form does; "
            "check that it is the right file"
        )
    return content


def parse(path: Path, content: bytes, magic: int) -> NDArray[np.uint8]:
    """Return the array that ``content``, read from ``path``, stands for.

    Args:
        path: Where the content came from, for messages.
        content: A whole IDX file.
        magic: The magic number that the file must begin with.
    """
    arrived = content[:4]
    if arrived != magic.to_bytes(4, "big"):
        kind = "images" if magic == IMAGES_MAGIC else "labels"
        found = f"0x{arrived.hex()}" if len(arrived) == 4 else f"only {len(arrived)} bytes"
        raise UserError(
            f"{path}: not an IDX file of {kind}: expected the magic number 0x{magic:08x}, found {found}. "
            "Check that images and labels are not swapped and that the file is whole"
        )
    dimensions = magic & 0xFF
    start = 4 + 4 * dimensions
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, min(start, len(content)), 4)]
    if len(content) < start or len(content) - start != math.prod(sizes):
        raise UserError(
            f"{path}: its header announces {' × '.join(map(str, sizes)) or 'no'} values and its "
            f"{len(content):,} bytes do not hold exactly that: the file is damaged or cut off, fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def read(folder: Path, stem: str, magic: int) -> tuple[Path, NDArray[np.uint8]]:
    """Find, decompress and parse ``stem`` in ``folder``; its path comes along for messages."""
    path = find(folder, stem)
    return path, parse(path, read_bytes(path), magic)
