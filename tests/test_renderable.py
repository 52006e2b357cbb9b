"""What a notebook shows of a result is what a terminal shows, and no dump of a dataclass."""

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import normkit
from normkit import explaining
from normkit.model.port import port
from normkit.renderable import Renderable, text_of


class WrongEps(nn.LayerNorm):
    """A layer with a finding."""

    def __init__(self, shape: int) -> None:
        super().__init__(shape, eps=1e-2)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


def batches() -> list[torch.Tensor]:
    return [torch.randn(4, 3, 8, 8) for _ in range(4)]


RESULTS = {
    "check": lambda: normkit.check(WrongEps, isolated=False),
    "convert": lambda: normkit.convert(network(), "group"),
    "diagnose": lambda: normkit.diagnose(network(), batches(), batches=4),
    "explain": lambda: normkit.explain("batch"),
    "explaining.compare": explaining.compare,
    "explaining.norms_of": lambda: explaining.norms_of(network(), torch.zeros(1, 3, 8, 8)),
    "explaining.running_statistics": lambda: explaining.running_statistics(steps=2),
    "fold": lambda: normkit.fold(network().eval(), torch.randn(1, 3, 8, 8)),
    "parameter_groups": lambda: normkit.parameter_groups(network(), 0.1),
    "port": lambda: port({"n": {"gamma": torch.ones(3)}}, "keras", "torch", kinds={"n": "layer"}),
    "recalibrate": lambda: normkit.recalibrate(network(), batches()),
    "accelerate": lambda: normkit.accelerate(network()),
    "warmup": lambda: normkit.warmup(network(), batches()[0]),
}


class Printer:
    """IPython's, as far as it is called."""

    def __init__(self) -> None:
        self.said = ""

    def text(self, text: str) -> None:
        self.said += text


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself(name: str) -> None:
    result: Any = RESULTS[name]()
    assert isinstance(result, Renderable)
    html = result._repr_html_()
    assert "<pre" in html
    assert type(result).__name__ + "(" not in html
    first = str(result).splitlines()[0].split()[0]
    assert first in html
    printer = Printer()
    result._repr_pretty_(printer, cycle=False)
    assert printer.said == str(result)


def test_a_report_has_the_same_words_in_colour() -> None:
    report = normkit.check(WrongEps, isolated=False)
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, width=100, highlight=False).print(report)
    (finding,) = report.findings
    assert f"\x1b[1;33m{finding.section().heading.partition(': ')[0]}\x1b[0m" in screen.getvalue()
    assert text_of(report, 4000).split() == str(report).split()
