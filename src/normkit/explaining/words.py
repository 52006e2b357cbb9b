"""The words of explanations, in English and Chinese. Formulas, names of arguments and letters of axes are the same."""

import locale
import os
from collections.abc import Callable
from typing import Final

from normkit.errors import UserError

LANGUAGES: Final = ("en", "zh")

# One entry a message: English, Chinese. Names in braces are filled in.
WORDS: Final[dict[str, tuple[str, str]]] = {
    # the norms
    "batch": ("Batch normalization", "批归一化 (batch norm)"),
    "layer": ("Layer normalization", "层归一化 (layer norm)"),
    "group": ("Group normalization", "组归一化 (group norm)"),
    "instance": ("Instance normalization", "实例归一化 (instance norm)"),
    "rms": ("RMS normalization", "均方根归一化 (RMS norm)"),
    "channel": ("Layer normalization over the channels", "沿通道的层归一化 (LayerNorm2d)"),
    "batch short": ("Batch", "批归一化"),
    "layer short": ("Layer", "层归一化"),
    "group short": ("Group", "组归一化"),
    "instance short": ("Instance", "实例归一化"),
    "rms short": ("RMS", "RMS 归一化"),
    "channel short": ("Layer over C", "沿通道的层归一化"),
    # one normalization
    "axis": ("axis", "轴"),
    "size": ("size", "大小"),
    "statistics": ("mean and variance", "均值与方差"),
    "mean square": ("mean of squares", "均方"),
    "parameters": ("weight and bias", "weight 与 bias"),
    "weight alone": ("weight", "weight"),
    "averaged": ("averaged over", "在此轴上求平均"),
    "kept": ("one per {axis}", "每个 {axis} 一个"),
    "varies": ("one per {axis}", "每个 {axis} 一个"),
    "shared": ("the same", "相同"),
    "counts": (
        "{sets} means and variances, each of {count} values. weight and bias have shape {weight}.",
        "共 {sets} 个均值和方差，每个取自 {count} 个值。weight 和 bias 的形状为 {weight}。",
    ),
    "counts rms": (
        "{sets} mean squares, each of {count} values. weight has shape {weight}. No mean is subtracted.",
        "共 {sets} 个均方，每个取自 {count} 个值。weight 的形状为 {weight}。不减均值。",
    ),
    "view": (
        "4-D view of this memory: (A, R, K, S) = {view}. R and S are averaged over, A and K are kept.",
        "这块内存的四维视图：(A, R, K, S) = {view}。在 R 和 S 上求平均，保留 A 和 K。",
    ),
    "before": (
        "Before: x, axes ({axes}). Cells with the same letter share a mean and a variance.",
        "归一化之前：x，各轴为 ({axes})。字母相同的格子共用一个均值和方差。",
    ),
    "before rms": (
        "Before: x, axes ({axes}). Cells with the same letter share a mean square.",
        "归一化之前：x，各轴为 ({axes})。字母相同的格子共用一个均方。",
    ),
    "after": ("After: y", "归一化之后：y"),
    "sets": ("Each set of cells", "每一组格子"),
    "set": ("set", "组"),
    "values": ("values", "个数"),
    "mean": ("mean", "均值"),
    "var": ("variance", "方差"),
    "mean square after": ("mean of y^2", "y 的均方"),
    "mean after": ("mean of y", "y 的均值"),
    "var after": ("variance of y", "y 的方差"),
    "more": (
        "Shown: {rows} of {all_rows} rows, {columns} of {all_columns} columns. --format json has all.",
        "显示 {all_rows} 行中的 {rows} 行、{all_columns} 列中的 {columns} 列。--format json 给出全部。",
    ),
    "more sets": (
        "Shown: {shown} of {all} sets. --format json has all.",
        "显示 {all} 组中的 {shown} 组。--format json 给出全部。",
    ),
    "variance note": (
        "The variance here is the biased one (divided by n). y has variance var / (var + eps), a little below 1.",
        "这里的方差是有偏方差（除以 n）。y 的方差是 var / (var + eps)，略小于 1。",
    ),
    "rms note": (
        "RMS normalization scales and does not shift: the mean of y is not 0, its mean square is about 1.",
        "RMS 归一化只缩放，不平移：y 的均值不是 0，均方约为 1。",
    ),
    # side by side
    "compare": (
        "What is averaged: cells of one letter share a mean",
        "对哪些值求平均：字母相同的格子共用一个均值",
    ),
    "map": (
        "Each letter is one cell, in the order of memory; a space ends a row, a bar a sample.",
        "每个字母是一个格子，按内存顺序排列；空格隔开行，竖线隔开样本。",
    ),
    "panel axes": ("rows {rows}, columns {columns}", "行 {rows}，列 {columns}"),
    "compare axes": ("Input ({axes}) = {shape}", "输入 ({axes}) = {shape}"),
    "norm": ("norm", "归一化"),
    "over": ("mean over", "求平均的轴"),
    "means": ("means", "均值个数"),
    "per mean": ("values each", "各含值数"),
    "weight": ("weight", "weight 形状"),
    "single": ("a mean of one value", "均值只含一个值"),
    "mean over": ("mean over {axes}", "在 {axes} 上求平均"),
    "means of": ("{sets} means of {count} values", "{sets} 个均值，每个取自 {count} 个值"),
    "not defined": ("not defined:\na mean of one value", "无定义：\n每个均值只含一个值"),
    "compare note": (
        "Layer norm and group norm of one group agree for images, and differ for sequences (N, L, C): there layer norm "
        "averages over C at each position, group norm over L and C. For images their weights differ: layer norm has "
        "one for each C, H and W, group norm one for each C.",
        "对图像，层归一化与只有一组的组归一化求平均的范围相同；对序列 (N, L, C) 则不同：层归一化在每个位置上对 C "
        "求平均，组归一化对 L 和 C 求平均。对图像，两者的 weight 也不同：层归一化的每个 (C, H, W) 一个，"
        "组归一化的每个 C 一个。",
    ),
    # running statistics
    "running": (
        "{layer}: running statistics over {steps} training steps, momentum {momentum}",
        "{layer}：{steps} 个训练步中的滑动统计量，momentum = {momentum}",
    ),
    "update": (
        "running = (1 - momentum) * running + momentum * batch",
        "running = (1 - momentum) * running + momentum * batch",
    ),
    "update average": (
        "momentum=None: running is the plain average of all batches",
        "momentum=None：running 是所有批次的简单平均",
    ),
    "channel 0": (
        "Channel 0 of {channels}; --format json has all.",
        "{channels} 个通道中的通道 0；--format json 给出全部。",
    ),
    "step": ("step", "步"),
    "batch mean": ("batch mean", "批次均值"),
    "running mean": ("running mean", "running_mean"),
    "batch var": ("batch var", "批次方差"),
    "running var": ("running var", "running_var"),
    "if biased": ("if biased", "若存的是有偏方差"),
    "by torch": ("torch.nn", "torch.nn"),
    "unbiased note": (
        "A batch is normalized by its biased variance (/ n). What is stored is the unbiased one (/ (n - 1)), "
        "here {factor} times as large, since each channel has n = {count} values.",
        "训练时用有偏方差（除以 n）归一化；存下来的是无偏方差（除以 n - 1）。"
        "这里每个通道有 n = {count} 个值，所以后者是前者的 {factor} 倍。",
    ),
    "unbiased note instance": (
        "A batch is normalized by its biased variance (/ n). What is stored is the mean over the samples of the "
        "unbiased one (/ (n - 1)), here {factor} times as large: each channel of a sample has n = {count} values.",
        "训练时用有偏方差（除以 n）归一化；存下来的是无偏方差（除以 n - 1）对各样本的平均。"
        "这里每个样本的每个通道有 n = {count} 个值，所以后者是前者的 {factor} 倍。",
    ),
    "same array": ("Every step sees the same array.", "每一步都用同一个数组。"),
    "evaluation": (
        "Evaluation of the last batch, by the running statistics (channel 0, first values)",
        "用滑动统计量对最后一个批次做评估（通道 0 的前几个值）",
    ),
    "x": ("x", "x"),
    "y": ("y", "y"),
    "agreement": (
        "Largest difference from torch.nn, of all channels, steps and the evaluation: {difference}.",
        "与 torch.nn 的最大差异（所有通道、所有步和评估）：{difference}。",
    ),
    "left": (
        "After {steps} steps {left} of the initial values (mean 0, variance 1) is still in the running statistics.",
        "{steps} 步之后，滑动统计量中仍有 {left} 来自初始值（均值 0，方差 1）。",
    ),
    # a model
    "model": ("The norms of {name}", "{name} 中的归一化层"),
    "layer name": ("layer", "层"),
    "class": ("class", "类"),
    "input": ("input", "输入"),
    "not called": ("not called", "未被调用"),
    "calls": ("calls", "调用次数"),
    "no norms": ("{name} has no normalization layer of torch.nn.", "{name} 中没有 torch.nn 的归一化层。"),
    "unknown norms": (
        "Layers that are none of torch.nn's are not listed: {names}. normkit check FILE.py:CLASS says what they do.",
        "不是 torch.nn 的层未列出：{names}。normkit check FILE.py:CLASS 能查明它们计算的是什么。",
    ),
    # pictures and the page
    "cut": ("Only the first cells are shown.", "只显示前面的格子。"),
    "parameters short": ("weight, bias", "weight、bias"),
    "sample": ("N = {number}", "N = {number}"),
    "number of steps": ("training step", "训练步"),
    "of batch": ("of the batch", "当前批次"),
    "stored": ("running, as torch.nn", "滑动值，同 torch.nn"),
    "stored biased": ("running, if the biased variance were stored", "滑动值，若存的是有偏方差"),
    # the page
    "page title": ("What a normalization averages", "归一化对哪些值求平均"),
    "page theme": ("Light / dark", "浅色 / 深色"),
    "page layout": ("layout", "布局"),
    "page first": ("channels first", "通道在前"),
    "page last": ("channels last", "通道在后"),
    "page groups": ("groups", "组数"),
    "page mode": ("mode", "模式"),
    "page training": ("training", "训练"),
    "page evaluation": ("evaluation", "评估"),
    "page images": ("images", "图像"),
    "page sequences": ("sequences", "序列"),
    "page features": ("features", "特征"),
    "page yours": ("yours", "你的数据"),
    "page step": ("step of the formula", "公式的步骤"),
    "page step x": ("1. x", "1. x"),
    "page step deviation": ("2. subtract the mean", "2. 减去均值"),
    "page step x_hat": ("3. divide by the root", "3. 除以标准差"),
    "page step y": ("4. weight and bias", "4. weight 与 bias"),
    "page cells": ("The cells of the input", "输入的格子"),
    "page hint": (
        "Point at a cell, or move with the arrow keys: the cells that share its mean stay bright, and its weight is "
        "framed. Escape shows all again.",
        "把鼠标移到一个格子上，或用方向键移动：与它共用均值的格子保持明亮，它的 weight 加上边框。按 Esc 恢复。",
    ),
    "page point": ("Point at a cell to see its numbers.", "指向一个格子以查看它的数字。"),
    "page members": ("{count} values share its mean:", "{count} 个值共用它的均值："),
    "page running set": (
        "Its mean and variance are running statistics of its channel. No value of this input is averaged.",
        "它的均值和方差是所在通道的滑动统计量，不对这个输入的任何值求平均。",
    ),
    "page by running": (
        "Evaluation: every channel is normalized by its running mean and variance, here those of ten earlier batches "
        "with momentum 0.1. Nothing of this input is averaged, so each sample's result depends on that sample alone.",
        "评估：每个通道用它的滑动均值和方差归一化，这里来自之前的十个批次，momentum = 0.1。"
        "不对这个输入求平均，所以每个样本的结果只取决于它自己。",
    ),
    "page by own running": (
        "Evaluation: every channel is normalized by its running mean and variance, here after ten steps with momentum "
        "0.1, each of which saw this array. Nothing of this input is averaged now.",
        "评估：每个通道用它的滑动均值和方差归一化，这里来自十个训练步（momentum = 0.1），每一步都用这个数组。"
        "此时不对这个输入求平均。",
    ),
    "page earlier": ("not averaged now", "此时不求平均"),
    "page same": (
        "It has no running statistics: evaluation does the same as training.",
        "它没有滑动统计量：评估与训练的计算相同。",
    ),
    "page refused": ("Refused: {reason}", "被拒绝：{reason}"),
    "page running": ("Running statistics of batch norm over ten training steps", "批归一化在十个训练步中的滑动统计量"),
    "page momentum": ("momentum, the weight of the new batch:", "momentum，新批次的权重："),
    "page channel": ("channel", "通道"),
    "page evaluation values": (
        "Evaluation of the last batch by the running statistics: first values of the channel",
        "用滑动统计量对最后一个批次做评估：该通道的前几个值",
    ),
    "page footer": (
        "Every number was computed by normkit.reference in float64; the columns torch.nn by torch.nn itself.",
        "所有数字由 normkit.reference 以 float64 计算；torch.nn 一列由 torch.nn 自己计算。",
    ),
    "no cjk font": (
        "no font with Chinese characters is installed; the picture is labelled in English "
        "(an .svg or .html takes the fonts of its reader)",
        "没有安装中文字体，图片使用英文标注（.svg 和 .html 使用读者自己的字体）",
    ),
}

Words = Callable[..., str]


def words(lang: str) -> Words:
    """Return a function that gives the text of a message in a language.

    Raises:
        UserError: another language than English or Chinese.
    """
    if lang not in LANGUAGES:
        raise UserError(f"unknown `lang={lang}`: choose from {', '.join(LANGUAGES)}")
    column = LANGUAGES.index(lang)

    def text(message: str, **values: object) -> str:
        return WORDS[message][column].format(**values)

    return text


def language_of_locale() -> str:
    """Return "zh" where the user's locale is Chinese, else "en"."""
    named = next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "")
    if not named:  # Windows and macOS keep it elsewhere
        named = locale.getlocale()[0] or ""
    return "zh" if named.lower().startswith(("zh", "chinese")) else "en"
