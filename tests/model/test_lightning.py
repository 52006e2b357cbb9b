"""The Lightning callback, where Lightning is installed."""

from typing import Any

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.interop
lightning = pytest.importorskip("lightning.pytorch", reason="needs Lightning: pip install lightning")

from normkit.lightning import DiagnoseNorms  # noqa: E402


class Net(lightning.LightningModule):  # type: ignore[name-defined, misc]
    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=momentum), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.net(x)
        return y

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        x, y = batch
        return nn.functional.mse_loss(self(x)[:, 0], y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.001)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("momentum", "healthy"), [(0.1, True), (0.0, False)])
def test_it_diagnoses_after_every_epoch(
    momentum: float, healthy: bool, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    x = 5.0 + torch.randn(512, 8)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1)), batch_size=32, shuffle=True)
    callback, module = DiagnoseNorms(8), Net(momentum)
    trainer = lightning.Trainer(
        max_epochs=8,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader)
    assert callback.found is not None
    assert callback.found.healthy == healthy
    assert float(trainer.callback_metrics["norm_gap"]) == pytest.approx(callback.found.gap)
    assert ("diagnose" in capsys.readouterr().out) == (not healthy)
