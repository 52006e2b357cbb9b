"""Pictures: what one norm averages, the norms side by side, and running statistics over the steps."""

import contextlib
import io
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any, Final

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normkit.explaining.comparison import Comparison, Panel
from normkit.explaining.drawing import GREY, Drawing, bare
from normkit.explaining.normalization import Normalization
from normkit.explaining.palette import INK
from normkit.explaining.running import RunningStatistics
from normkit.explaining.slabs import axes_of_slab, is_cut
from normkit.explaining.text import formula, shape_text
from normkit.explaining.words import Words, words

FRAME: Final = "#d0d7de"

LETTER_CELL: Final = 0.25
"""Inches of a cell that bears a letter alone."""

CJK_FONTS: Final = (
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
)
"""Fonts with Chinese characters, of Linux, macOS and Windows."""


def has_font(lang: str) -> bool:
    """Whether a font with the characters of a language is installed."""
    return lang == "en" or bool(_cjk_fonts())


def draw_normalization(seen: Normalization, suffix: str, lang: str = "en") -> bytes:
    """Draw an array before and after, and its weight."""
    with _style(lang, suffix):
        say, case = words(lang), seen.case
        before, after = Drawing(case, seen.x), Drawing(case, seen.y)
        figure = _figure(max(6.4, 0.6 * before.width + 1.6), 2 * (0.5 * before.height + 0.3) + 1.3)
        figure.suptitle(f"{say(case.kind)}\n{case.layer}", fontsize=13, linespacing=1.4)
        counts = "counts rms" if case.kind == "rms" else "counts"
        caption = say(counts, sets=case.num_sets, count=case.count, weight=shape_text(case.weight_shape))
        if is_cut(case):
            caption += f" {say('cut')}"
        figure.supxlabel(_wrapped(caption, lang, 80), fontsize=10, color=GREY)
        above, below = figure.subplots(2, 1)
        before.draw(above, say)
        after.draw(below, say)
        above.set_title(f"x, ({', '.join(case.axes)}) = {shape_text(case.shape)}", fontsize=10, loc="left")
        below.set_title(f"y = {formula(case.kind)}", fontsize=10, loc="left")
        return _bytes(figure, suffix)


def draw_comparison(comparison: Comparison, suffix: str, lang: str = "en") -> bytes:
    """Draw all norms of all inputs: a row of pictures a norm, a column an input."""
    with _style(lang, suffix):
        say, inputs = words(lang), comparison.rows
        norms = list(zip(*[row.panels for row in inputs], strict=True))
        widths = [max(Drawing(panel.case).width for panel in row.panels) + 2.4 for row in inputs]
        heights = [max(Drawing(panel.case).height for panel in panels) for panels in norms]
        figure = _figure(LETTER_CELL * sum(widths) + 0.9, LETTER_CELL * sum(heights) + 0.55 * len(heights) + 1.3)
        ratios = {"width_ratios": widths, "height_ratios": heights}
        grid = figure.subplots(len(norms), len(inputs), squeeze=False, gridspec_kw=ratios)
        for panels, height, drawn in zip(norms, heights, grid, strict=True):
            drawn[0].set_ylabel(_name(panels[0], say), fontsize=12, color=INK)
            for axes, panel, width in zip(drawn, panels, widths, strict=True):
                _draw_panel(axes, panel, say, (width, height))
        for axes, row in zip(grid[0], inputs, strict=True):
            rows_of, columns_of = axes_of_slab(row.panels[0].case)
            drawn_along = say("panel axes", rows=", ".join(rows_of), columns=", ".join(columns_of))
            axes.set_title(f"({', '.join(row.axes)}) = {shape_text(row.shape)}\n{drawn_along}", fontsize=11)
        figure.suptitle(say("compare"), fontsize=14)
        figure.supxlabel(_wrapped(say("compare note"), lang, 100), fontsize=10, color=GREY)
        return _bytes(figure, suffix)


def draw_running(running: RunningStatistics, suffix: str, lang: str = "en") -> bytes:
    """Draw the running statistics of channel 0 over the steps."""
    with _style(lang, suffix):
        say, steps = words(lang), running.steps
        figure = _figure(9.6, 4.4)
        momentum = "None" if running.momentum is None else f"{running.momentum:g}"
        title = say("running", layer=running.layer, steps=len(steps), momentum=momentum)
        figure.suptitle(title, fontsize=12)
        mean_axes, var_axes = figure.subplots(1, 2)
        numbers = [step.number for step in steps]
        mean_axes.plot(numbers, [step.batch_mean[0] for step in steps], "o", color="#999999", label=say("of batch"))
        var_axes.plot(numbers, [step.batch_var[0] for step in steps], "o", color="#999999")
        stored: dict[str, Any] = {"marker": "s", "color": "#0072B2", "markersize": 4}
        biased: dict[str, Any] = {"marker": "^", "color": "#D55E00", "markersize": 4, "linestyle": "--"}
        # before the first step the mean is 0 and the variance 1
        mean_axes.plot([0, *numbers], [0.0, *(step.mean[0] for step in steps)], **stored, label=say("stored"))
        var_axes.plot([0, *numbers], [1.0, *(step.var[0] for step in steps)], **stored)
        var_axes.plot(
            [0, *numbers], [1.0, *(step.var_biased[0] for step in steps)], **biased, label=say("stored biased")
        )
        for axes, name in ((mean_axes, "mean"), (var_axes, "var")):
            axes.set(xlabel=say("number of steps"), ylabel=say(name))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return _bytes(figure, suffix)


def _name(panel: Panel, say: Words) -> str:
    """Return the name of a norm, with its number of groups."""
    norm = panel.case.norm
    return say(f"{panel.case.kind} short") + (f" (G = {norm.num_groups})" if norm.kind == "group" else "")


def _draw_panel(axes: Axes, panel: Panel, say: Words, size: tuple[float, float]) -> None:
    """Draw one norm of one input in the middle of an area of this size, in cells."""
    case = panel.case
    if not panel.is_defined:
        axes.text(0.5, 0.6, say("not defined"), ha="center", va="center", fontsize=9, color=GREY)
        bare(axes)
        return
    Drawing(case).draw(axes, say, size)
    counts = say("means of", sets=case.num_sets, count=case.count)
    over = say("mean over", axes=", ".join(case.reduced))
    axes.set_xlabel(f"{over}\n{counts}", fontsize=9, color=INK)


def _wrapped(text: str, lang: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width if lang == "en" else width // 2))  # Chinese characters are twice as wide


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set(facecolor="white", edgecolor=FRAME, linewidth=2)  # opaque: readable on a dark page too
    return figure


@contextlib.contextmanager
def _style(lang: str, suffix: str) -> Iterator[None]:
    """Set fonts and colours; the same picture gives the same file."""
    # named one by one in Matplotlib's types, where Any stands for all of them
    settings: Any = {"svg.hashsalt": "normkit", "font.size": 10, "text.color": INK, "axes.labelcolor": INK}
    if lang != "en":
        fonts = _cjk_fonts()
        settings["font.family"] = [*fonts, "DejaVu Sans"] if fonts else ["DejaVu Sans", "sans-serif"]
        settings["svg.fonttype"] = "path" if fonts else "none"
    with mpl.rc_context(settings), warnings.catch_warnings():
        if suffix == ".svg":
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader of the SVG has them
        yield


def _cjk_fonts() -> list[str]:
    """Return the fonts with Chinese characters, also those that were installed since Matplotlib last looked."""
    manager = font_manager.fontManager
    if not {*CJK_FONTS} & {*manager.get_font_names()}:
        for path in {*font_manager.findSystemFonts()} - {font.fname for font in manager.ttflist}:
            with contextlib.suppress(OSError, RuntimeError):  # a damaged file
                manager.addfont(path)
    installed = manager.get_font_names()
    return [name for name in CJK_FONTS if name in installed]


def _bytes(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    edge = figure.patch.get_edgecolor()
    metadata = {"Date": None} if suffix == ".svg" else None
    figure.savefig(buffer, format=suffix.removeprefix("."), dpi=150, metadata=metadata, edgecolor=edge)
    return buffer.getvalue()
