"""``normkit train`` as a user runs it."""

import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from normkit import train
from normkit.cli import main
from normkit.train import data, verify
from normkit.train.quantities import Quantity

OWN = Path(__file__).parent.parent / "train" / "own_layers.py"
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
IMAGES = "train-images-idx3-ubyte"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side; threads of tiny networks would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, digits = tmp_path_factory.mktemp("images"), data.load_digits()
    for part, pixels, labels in (
        ("train", digits.train_images[:128], digits.train_labels[:128]),
        ("t10k", digits.test_images[:50], digits.test_labels[:50]),
    ):
        for name, array in ((f"{part}-images-idx3", pixels[:, 0]), (f"{part}-labels-idx1", labels)):
            header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            packed = gzip.compress(header + array.byte().numpy().tobytes(), 1)
            (folder / f"{name}-ubyte.gz").write_bytes(packed)
    return folder


class Command:
    """Runs ``normkit train`` in this process and keeps what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *options: str | Path | int) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["normkit", "train", *map(str, options)])
        with pytest.raises(SystemExit) as exit_:
            main()
        code = exit_.value.code
        out, err = self.capsys.readouterr()
        return (code if isinstance(code, int) else 0), out, err


@pytest.fixture
def normkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)


def test_it_trains_compares_and_says_where_everything_is(normkit: Command, images: Path, tmp_path: Path) -> None:
    code, out, err = normkit(
        "--data",
        images,
        "--norm",
        "batch",
        "--norm",
        "none",
        "--epochs",
        1,
        "--batch-size",
        64,
        "--verify",
        "--out",
        "run",
    )
    assert code == 0, err
    assert "test accuracy" in out
    assert "seconds per epoch" in out
    assert "final loss" in out
    assert "same" in out
    assert "Everything is in run:" in out
    assert "curves.png, " not in err
    assert err.count("epoch 1/1") == 2
    assert (tmp_path / "run" / "verify.csv").exists()


def test_defaults_make_a_named_folder_for_the_digits(normkit: Command, tmp_path: Path) -> None:
    code, _, err = normkit("--epochs", 1)
    assert code == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-")
    options = json.loads((folder / "config.json").read_text())["options"]
    assert (options["norms"], options["impls"], options["lr"]) == (["batch"], ["normkit"], 1.0)


def test_json_is_one_object_and_nothing_else(normkit: Command, images: Path) -> None:
    code, out, _ = normkit(
        "--data", images, "--epochs", 1, "--batch-size", 64, "--format", "json", "--trace", "--out", "run"
    )
    assert code == 0
    tree = json.loads(out)
    assert tree["results"][0]["norm"] == "batch"
    assert tree["folder"] == "run"
    assert tree["trace"]["batch"][1] == ["BatchNorm2d", [1, 6, 24, 24]]


def test_trace_prints_every_layer(normkit: Command, images: Path) -> None:
    _, out, _ = normkit("--data", images, "--epochs", 1, "--batch-size", 64, "--trace", "--out", "run")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "AvgPool2d output shape: (1, 16, 4, 4)" in lines
    assert "BatchNorm1d output shape: (1, 84)" in lines
    assert sum("output shape:" in line for line in lines) == 16


def test_exit_status_tells_of_a_difference(normkit: Command, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "QUANTITIES", (Quantity("gradient", "gradient", 0.0),))
    code, out, _ = normkit("--data", images, "--epochs", 1, "--batch-size", 64, "--verify", "--out", "run")
    assert code == 1
    assert "DIFFERS" in out


def few(images: Path) -> list[str | Path | int]:
    return ["--data", images, "--epochs", 1, "--batch-size", 32, "--threads", 1, "--out", "run"]


def test_a_layer_of_ones_own_that_departs(normkit: Command, images: Path, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "textbook.py", tmp_path)
    code, out, _ = normkit("--impl", "textbook.py:BatchNorm", *few(images))
    assert code == 1
    lines = [" ".join(line.replace("│", " ").split()) for line in out.splitlines()]
    for layers in ("normkit", "torch.nn", "BatchNorm"):
        assert sum(line.startswith(f"batch {layers} 0.") for line in lines) == 1
    (row,) = [line for line in lines if line.startswith("BatchNorm batch running variance 1 ")]
    assert row.endswith(" norm3")
    assert (
        "textbook.py:BatchNorm departs from torch.nn at step 1 in the running variance: "
        "normkit check textbook.py:BatchNorm says why"
    ) in lines
    assert any(line.startswith("trained by itself it ends at a test accuracy of 0.") for line in lines)
    assert "drift.png" in out


def test_a_right_layer_of_ones_own(normkit: Command, images: Path) -> None:
    code, out, _ = normkit("--impl", f"{OWN}:RightBatchNorm", *few(images))
    assert code == 0
    assert "RightBatchNorm: same as torch.nn's in all 4 steps" in out


def test_what_a_layer_prints_is_not_in_the_json(normkit: Command, images: Path) -> None:
    code, out, err = normkit("--impl", f"{OWN}:PrintingBatchNorm", "--format", "json", "--trace", *few(images))
    assert code == 0
    tree = json.loads(out)
    assert [row["impl"] for row in tree["results"]] == ["normkit", "torch", "PrintingBatchNorm"]
    assert tree["trace"]["batch-PrintingBatchNorm"][1] == ["PrintingBatchNorm", [1, 6, 24, 24]]
    assert tree["verify"][0]["quantities"][0]["first_step"] is None
    assert "shape (32, 120)" in err


def test_the_published_trace_is_printed_for_every_layer(normkit: Command, images: Path) -> None:
    size = ["--image-size", "224", "--trace", "--batch-size", "128"]
    command: list[str | Path | int] = [
        *size,
        "--impl",
        f"{OWN}:RightBatchNorm",
        "--impl",
        "torch",
        "--data",
        images,
        "--out",
        "/dev/null/run",
    ]
    code, out, err = normkit(*command)  # the folder cannot be written, so that nothing is trained
    assert (code, "cannot write to the folder" in err) == (2, True)
    shapes = [line.split(":")[1].strip() for line in out.splitlines() if "output shape:" in line]
    published = json.loads((Path(__file__).parent.parent / "data" / "published_lenet.json").read_text())["trace"]
    assert shapes == [str(tuple(shape)) for _, shape in published] * 3
    assert "RightBatchNorm output shape: (1, 6, 220, 220)" in " ".join(out.split())


def test_resuming_tells_what_a_layer_does_not_save(normkit: Command, images: Path) -> None:
    target = f"{OWN}:UnsavedBatchNorm"
    normkit("--impl", target, *few(images))
    code, out, err = normkit("--resume", "run")
    assert code == 0
    said = f"{target} loses its running mean and running variance on save"
    assert said in out
    assert said not in err  # nothing was left to train


def test_help_teaches_by_example(normkit: Command) -> None:
    code, out, _ = normkit("--help")
    assert code == 0
    assert "normkit train --norm batch --norm none" in out
    assert "normkit train --resume runs/" in out
    assert "normkit train --impl layers.py:MyBatchNorm --epochs 5" in out
    assert "package.module:NAME" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "nowhere"], "nor a folder that exists"),
        (["--data", "mnist"], "nor a folder that exists. Fetch MNIST's four .gz files from https://"),
        (["--data", "fashion_mnist"], "did you mean fashion-mnist?"),
        (["--lr", "fast"], "--lr expects RATE or NORM=RATE, as 0.1 or none=3; got 'fast'"),
        (["--lr", "=1"], "--lr expects"),
        (["--lr", "1", "--lr", "batch=2"], "--lr expects one RATE, or a NORM=RATE for each norm"),
        (["--lr", "none=1"], "--lr names none, and the norms to train are batch: drop it"),
        (["--norm", "btach"], "unknown norm 'btach'"),
        (["--impl", "jax"], "unknown implementation 'jax'"),
        (["--impl", "nowhere.py:Mine"], "nowhere.py does not exist"),
        (["--impl", f"{OWN}:NumPyBatchNorm"], f"--impl {OWN}:NumPyBatchNorm is a class that works on NumPy arrays"),
        (["--impl", f"{OWN}:LayerNorm"], "add --norm layer"),
        (["--impl", f"{OWN}:RightBatchNorm", "--sync"], "drop --sync"),
        (["--image-size", "15"], "--image-size must be 16 or more"),
        (["--image-size", "100000"], "use a smaller --image-size"),
        (["--epochs", "0"], "--epochs must be 1 or more"),
        (["--lr", "-1"], "--lr must be a finite number above 0"),
        (["--batch-size", "0"], "--batch-size must be 1 or more"),
        (["--batch-size", "1"], "variance of a single value"),
        (["--batch-size", str(10**12)], "not enough memory"),
        (["--batch-size", "1443"], "more than the 1,442 training images: use --batch-size 1442 or less"),
        (["--threads", "0"], "--threads must be between"),
        (["--seed", "-1"], "--seed must be between"),
        (["--format", "xml"], "--format must be table or json"),
        (["--impl", "torch", "--verify"], "drop one of them"),
        (["--data", "fashion-mnist", "--data-dir", "nowhere"], "apt install dataset-fashion-mnist"),
        (["--resume", "nowhere"], "holds no run to resume"),
        (["--resume", "nowhere", "--out", "run"], "drop --out"),
        (["--out", "file/run"], "cannot write to the folder"),
        (["--out", "."], "is not empty"),
    ],
)
def test_bad_options_are_explained_and_leave_nothing(
    normkit: Command, tmp_path: Path, options: list[str], says: str
) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = normkit(*options)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda content: gzip.compress(content)[:-300], "ends too early"),
        (lambda content: gzip.compress(b"\x00\x00\x08\x04" + content[4:]), "expected the magic number 0x00000803"),
        (
            lambda content: gzip.compress(content[:4] + (127).to_bytes(4, "big") + content[8:-784]),
            "128 labels for the 127",
        ),
    ],
    ids=["truncated", "magic", "count"],
)
def test_bad_files_are_explained_and_leave_nothing(
    normkit: Command, images: Path, tmp_path: Path, spoil: object, says: str
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for file in images.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert callable(spoil)
    (folder / f"{IMAGES}.gz").write_bytes(spoil(gzip.decompress((images / f"{IMAGES}.gz").read_bytes())))
    code, _, err = normkit("--data", folder, "--batch-size", 64, "--out", "run")
    assert code == 2
    assert says in err
    assert str(folder) in err
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(normkit: Command, images: Path, tmp_path: Path) -> None:
    options = ["--data", str(images), "--batch-size", "64", "--epochs", "1", "--norm", "none", "--out", "run"]
    assert normkit(*options)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    code, _, err = normkit(*options)
    assert code == 2
    assert "already holds a run" in err
    code, _, err = normkit("--resume", "run", "--lr", "0.5")
    assert code == 2
    assert "lr is 1.0, asked 0.5" in err
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    code, _, err = normkit("--resume", "run", "--epochs", "2")
    assert code == 0
    assert "epoch 2/2" in err
    assert "epoch 1/2" not in err
    assert normkit("--resume", "run")[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["epochs"] == 2


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_ends_with_the_same_weights(images: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "normkit", "train"]
    options = ["--data", str(images), "--batch-size", "16", "--epochs", "60", "--norm", "none", "--threads", "1"]
    config = train.TrainConfig(data=str(images), batch_size=16, epochs=60, norms=["none"], threads=1)
    train.run(config, tmp_path / "straight")

    with subprocess.Popen(
        [*command, *options, "--out", "run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "checkpoint-none.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "normkit train --resume run" in err
    assert "Traceback" not in err

    resumed = subprocess.run([*command, "--resume", "run"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "epoch 60/60" in resumed.stderr
    assert "epoch  1/60" not in resumed.stderr
    ends = [
        torch.load(tmp_path / name / "checkpoint-none.pt", weights_only=True)["model"] for name in ("straight", "run")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
