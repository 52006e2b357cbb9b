"""A whole run: every contender trained, compared and written to the run folder."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from normkit.errors import UserError
from normkit.train import folder as run_folder
from normkit.train import memory, report, style
from normkit.train.config import TrainConfig
from normkit.train.contenders import contenders
from normkit.train.data import load_dataset
from normkit.train.drift_picture import drift_picture
from normkit.train.guard import OwnLayerError
from normkit.train.loop import Training
from normkit.train.own import shown
from normkit.train.progress import Progress
from normkit.train.results import EpochMetrics, StepDifference
from normkit.train.run_result import RunResult, lost_note
from normkit.train.verify import verdict


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; what was done until then is saved.

    Attributes:
        result: The run as far as it went.
    """

    def __init__(self, result: RunResult) -> None:
        super().__init__()
        self.result = result


def run(
    config: TrainConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    draw: bool = True,
) -> RunResult:
    """Train everything that ``config`` names and write metrics, checkpoints and pictures.

    Args:
        config: What to train.
        out: The run folder; ``runs/<data>-<time>`` if None.
        resume: Go on with the run in ``out``, whose options must be ``config``.
        progress: Shows every step and epoch.
        draw: Draw the pictures, which takes longer than some trainings.
    Raises:
        UserError: something cannot be used; if found before the training, nothing has been written.
        Interrupted: Ctrl-C; all finished epochs are saved and drawn.
    """
    progress = progress or Progress()
    dataset = load_dataset(config.data, config.data_dir)
    memory.check_batch(config, len(dataset.train_labels))
    found = contenders(config)
    out = out or default_folder(config)
    layers = {contender.own.target: contender.own.fingerprint for contender in found if contender.own}
    inputs = run_folder.Inputs(config, dataset.fingerprint(), layers)
    if resume:
        _check_same(out, inputs)
    else:
        run_folder.create(out, inputs)

    trainings = [Training(config, contender, dataset) for contender in found]
    for training in trainings:
        state = run_folder.load_checkpoint(out, training.result.label)
        if state is not None:
            _restore(training, state, run_folder.checkpoint_path(out, training.result.label))
            if training.result.lost_on_save and training.epochs_done < config.epochs:
                progress.note(lost_note(training.result))
    try:
        with _threads(config.threads), memory.shortage_explained(config.batch_size):
            _train(out, config, trainings, progress)
    except KeyboardInterrupt:
        raise Interrupted(_finish(out, config, trainings, draw=draw)) from None
    except OwnLayerError as error:
        _finish(out, config, trainings, draw=draw)
        raise OwnLayerError(f"{error}. All epochs that were finished are in {out}") from error
    finally:
        progress.end()
    return _finish(out, config, trainings, draw=draw)


def _check_same(out: Path, inputs: run_folder.Inputs) -> None:
    """Raise ``UserError`` unless the run in ``out`` was begun with the same options, images and layers."""
    saved, config = run_folder.read_config(out), inputs.config
    saved.config.check_same(config.to_json())
    if saved.data_sha256 != inputs.data_sha256:
        raise UserError(f"{out}: the images in {config.data} are not those that this run began with: start a new run")
    for target, fingerprint in inputs.layers_sha256.items():
        if saved.layers_sha256.get(target) != fingerprint:
            raise UserError(f"{out}: {shown(target)} was changed since this run began: start a new run")
    if config.epochs > saved.config.epochs:
        run_folder.write_config(out, inputs)


def _restore(training: Training, state: dict[str, Any], path: Path) -> None:
    """Give a training the state of a checkpoint; raise ``UserError`` where it is that of something else."""
    try:
        training.load_state_dict(state)
    except UserError:
        raise
    except Exception as error:  # torch raises KeyError, RuntimeError, ValueError and more for a state that does not fit
        raise UserError(
            f"{path} does not fit this run ({type(error).__name__}): remove it to train "
            f"{training.result.label!r} again from the start"
        ) from error


def _rates(config: TrainConfig) -> str:
    if not isinstance(config.lr, Mapping):
        return f"{config.lr:g}"
    return ", ".join(f"{rate:g} ({norm})" for norm, rate in config.lr.items())


def _train(out: Path, config: TrainConfig, trainings: list[Training], progress: Progress) -> None:
    steps = len(trainings[0].batches(1))
    epochs_done = sum(training.epochs_done for training in trainings)
    progress.begin(config.epochs * len(trainings) * steps, epochs_done * steps)
    for training in trainings:
        while training.epochs_done < config.epochs:
            training.run_epoch(progress)
            run_folder.save_checkpoint(out, training.result.label, training.state_dict())
            _write_tables(_result(out, config, trainings))
            progress.epoch(training.result.epochs[-1], config.epochs)


def _result(out: Path, config: TrainConfig, trainings: list[Training]) -> RunResult:
    norms = [training.result for training in trainings if training.epochs_done]
    files = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    return RunResult(
        folder=out,
        config=config,
        norms=norms,
        verdicts=[verdict(result) for result in norms if result.differences],
        files=sorted(files | {"metrics.csv", "metrics.json"}),
    )


def _write_tables(result: RunResult) -> None:
    differences = [row for norm in result.norms for row in norm.differences]
    if differences:
        run_folder.write(result.folder / "verify.csv", report.to_csv(differences, StepDifference))
    epochs = [row for norm in result.norms for row in norm.epochs]
    run_folder.write(result.folder / "metrics.csv", report.to_csv(epochs, EpochMetrics))
    run_folder.write_json(result.folder / "metrics.json", result.to_json())


def _finish(out: Path, config: TrainConfig, trainings: list[Training], *, draw: bool) -> RunResult:
    results = [training.result for training in trainings if training.epochs_done and draw]
    colours = style.colours(results)
    if results:
        whose = f"{config.impls[0]} layers, " if len(config.impls) == 1 else ""
        title = (
            f"LeNet on {Path(config.data).name}, {whose}"
            f"SGD with learning rate {_rates(config)}, batches of {config.batch_size}"
        )
        run_folder.write(out / "curves.png", report.curves(results, title))
    compared = [result for result in results if result.differences]
    if compared:
        run_folder.write(out / "drift.png", drift_picture(compared, colours))
    for result in results:
        run_folder.write(
            out / f"activations-{result.label}.png", report.activation_histograms(result, colours[result.label])
        )
    finished = _result(out, config, trainings)
    _write_tables(finished)
    return finished


def resume_config(out: Path, given: Mapping[str, Any]) -> TrainConfig:
    """Return the options of the run in ``out``; raise ``UserError`` if one of those ``given`` differs.

    More epochs than it was begun with make it longer.
    """
    config = run_folder.read_config(out).config
    config.check_same(given)
    return replace(config, epochs=given.get("epochs", config.epochs))


def default_folder(config: TrainConfig) -> Path:
    """Return a new folder's name, by data and time."""
    return Path("runs") / f"{Path(config.data).name}-{time.strftime('%Y%m%d-%H%M%S')}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
