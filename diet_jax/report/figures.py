"""The figures of the report, as SVG to be put into HTML: text stays text, ids stay unique."""

import io
import math
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from diet_jax.summary import METHODS

# Told apart by marker and dash as well as by colour (Okabe and Ito's set).
STYLE: dict[str, dict[str, Any]] = {
    "full": {"color": "#222222", "marker": "o", "linestyle": "-"},
    "memory": {"color": "#0072b2", "marker": "s", "linestyle": "-"},
    "random_soft": {"color": "#d55e00", "marker": "^", "linestyle": "--"},
    "random_hard": {"color": "#999999", "marker": "v", "linestyle": ":"},
}
_PARTS = {"teacher": "#999999", "influence": "#e69f00", "outer": "#0072b2"}
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e3",
    "grid.linewidth": 0.7,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_WIDTH = 9.2  # inches; the page shows it at its column's width


def draw(summary: dict[str, Any], outer: dict[int, list[tuple[int, float]]]) -> dict[str, str]:
    """All figures that the records allow, name -> SVG.

    Args:
        summary: of `diet_jax.summary.summarize`.
        outer: outer loss curves, stage -> [(step, loss)].
    """
    measure = f"AUC on {'validation rows' if summary['held_out'] else 'the next stage'}"
    figures = {}
    with matplotlib.rc_context(RC):
        if summary["cells"]:
            fidelity = _fidelity if len(summary["stages"]) > 1 else _fidelity_of_one_stage
            figures["fidelity"] = _svg("fidelity", fidelity(summary, measure))
            figures["cost"] = _svg("cost", _cost(summary))
        if summary["ranks"] and len(summary["archs"]) > 1:
            figures["rank"] = _svg("rank", _rank(summary))
        if summary["stage_records"]:
            figures["memory"] = _svg("memory", _memory(summary["stage_records"]))
        if any(outer.values()):
            figures["outer"] = _svg("outer", _outer(outer))
    return figures


def _fidelity(summary: dict[str, Any], measure: str) -> Figure:
    archs = summary["archs"]
    columns = min(3, len(archs))
    rows = math.ceil(len(archs) / columns)
    figure = Figure(figsize=(_WIDTH, 2.35 * rows + 0.5))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, arch in zip(grid.flat, archs, strict=False):
        cells = [cell for cell in summary["cells"] if cell["arch"] == arch]
        for method, style in STYLE.items():
            shown = [(c["stage"], c["auc"][method]) for c in cells if method in c["auc"]]
            if not shown:
                continue
            x = np.array([stage for stage, _ in shown])
            mean, sd = (np.array([value[k] for _, value in shown]) for k in ("mean", "sd"))
            axes.fill_between(x, mean - sd, mean + sd, color=style["color"], alpha=0.15, lw=0)
            axes.plot(x, mean, label=METHODS[method], **style)
        axes.set_title(arch)
        _stage_axis(axes, summary["stages"])
    for axes in grid.flat[len(archs) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(measure)
    for k in range(columns):
        lowest = grid[[r for r in range(rows) if grid[r, k].get_visible()][-1], k]
        lowest.set_xlabel("stage trained up to")
        lowest.tick_params(labelbottom=True)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4)
    return figure


def _fidelity_of_one_stage(summary: dict[str, Any], measure: str) -> Figure:
    figure = Figure(figsize=(_WIDTH, 3.4))
    axes = figure.subplots()
    archs = summary["archs"]
    for offset, (method, style) in zip((-0.12, -0.04, 0.04, 0.12), STYLE.items(), strict=True):
        shown = [(archs.index(c["arch"]) + offset, c["auc"].get(method)) for c in summary["cells"]]
        shown = [(x, value["mean"], np.nan_to_num(value["sd"])) for x, value in shown if value]
        if shown:
            x, mean, sd = zip(*shown, strict=True)
            look: dict[str, Any] = style | {"linestyle": "none"}
            axes.errorbar(x, mean, sd, label=METHODS[method], **look)
    axes.set_xticks(range(len(archs)), archs)
    axes.set_xlim(-0.6, len(archs) - 0.4)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(measure)
    figure.legend(loc="outside upper left", ncols=4)
    return figure


def _rank(summary: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(_WIDTH, 3.5))
    left, right = figure.subplots(1, 2)
    for arch in summary["archs"]:
        cells = [c["auc"] for c in summary["cells"] if c["arch"] == arch]
        x, x_sd, y, y_sd = (
            np.mean([c[m][k] for c in cells]) for m in ("full", "memory") for k in ("mean", "sd")
        )
        bars = {"xerr": None if np.isnan(x_sd) else x_sd, "yerr": None if np.isnan(y_sd) else y_sd}
        left.errorbar(x, y, **bars, fmt="s", color="#0072b2", ecolor="#9cc3de", elinewidth=1.2)
        left.annotate(arch, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
    left.margins(0.15)
    left.set(xlabel="AUC, full data", ylabel="AUC, memory", title="Architectures, mean over stages")
    for method, style in STYLE.items():
        rows = [r for r in summary["ranks"] if r["method"] == method]
        if rows:
            x, y = [r["stage"] for r in rows], [r["tau"] for r in rows]
            right.plot(x, y, label=METHODS[method], **style)
    right.axhline(0, color="#888888", lw=0.8)
    right.set(ylim=(-1.08, 1.08), xlabel="stage", ylabel="Kendall tau to full data")
    right.set_title("Agreement of the ranking")
    _stage_axis(right, summary["stages"])
    right.legend(loc="lower right", fontsize=8)
    return figure


def _cost(summary: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(_WIDTH, 2.8))
    panels = figure.subplots(1, 3)
    cost = summary["cost"]
    stages = [row["stage"] for row in cost["trial"]]
    for axes, measure in zip(panels, ("rows", "seconds"), strict=False):
        for method in ("full", "memory"):
            values = [row[measure][method] for row in cost["trial"]]
            axes.plot(stages, values, label=METHODS[method], **STYLE[method])
        axes.set(title=f"{measure.capitalize()} per trial")
        _log_axis(axes)
        axes.legend(loc="best", fontsize=8)
    stages = [row["stage"] for row in cost["parts"]]
    base = np.zeros(len(stages))
    for part, color in _PARTS.items():
        values = np.array([row[part] for row in cost["parts"]])
        label = {"outer": "outer steps"}.get(part, part)
        panels[2].bar(stages, values, bottom=base, color=color, label=label, width=0.7)
        base += values
    panels[2].set_title("Distillation, seconds")
    panels[2].set_ylim(0, max(base.max() * 1.4, 1e-9))
    panels[2].legend(loc="upper left", fontsize=8, ncols=3, columnspacing=1, handlelength=1)
    for axes in panels:
        axes.set_xlabel("stage")
        _stage_axis(axes, stages)
    return figure


def _memory(records: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(_WIDTH, 2.9))
    age, labels, weights = figure.subplots(1, 3)
    stages = [r["stage"] for r in records]
    births = max(len(r["born"]) for r in records)
    colors = _ramp(births)
    base = np.zeros(len(stages))
    for birth in range(births):
        slots = np.array([r["born"][birth] if birth < len(r["born"]) else 0 for r in records])
        age.bar(stages, slots, bottom=base, color=colors[birth], width=0.75, label=f"{birth + 1}")
        base += slots
    age.set(title="Slots by stage of writing", xlabel="stage", ylabel="slots")
    _stage_axis(age, stages)

    counts = np.array(records[-1]["label_hist"], float)
    edges = np.linspace(0, 1, len(counts) + 1)
    labels.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color="#0072b2", ec="white")
    labels.set(title=f"Soft labels after stage {stages[-1]}", xlabel="soft label", ylabel="slots")
    labels.set_xlim(0, 1)

    low, first, middle, third, high = np.array([r["weight_quantiles"] for r in records], float).T
    style = {"color": "#0072b2", "lw": 0}
    weights.bar(stages, high - low, 0.3, low, alpha=0.2, label="min to max", **style)
    weights.bar(stages, third - first, 0.7, first, alpha=0.45, label="middle half", **style)
    weights.plot(stages, middle, color="#0b3c5d", marker="s", lw=1, label="median")
    weights.set(title="Sample weights", xlabel="stage")
    _log_axis(weights)
    weights.set_ylim(top=high.max() * 6)
    weights.legend(loc="upper center", fontsize=7, ncols=3, columnspacing=1, handlelength=1.2)
    _stage_axis(weights, stages)
    return figure


def _outer(outer: dict[int, list[tuple[int, float]]]) -> Figure:
    figure = Figure(figsize=(_WIDTH, 3.0))
    axes = figure.subplots()
    for color, (stage, curve) in zip(_ramp(len(outer)), outer.items(), strict=True):
        if curve:
            axes.plot(*zip(*curve, strict=True), color=color, lw=1.2, label=f"stage {stage}")
    axes.set(xlabel="outer step", ylabel="outer loss, nats")
    figure.legend(loc="outside right upper", fontsize=8, ncols=math.ceil(len(outer) / 16))
    return figure


def _stage_axis(axes: Axes, stages: list[int]) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(min(stages) - 0.6, max(stages) + 0.6)


def _log_axis(axes: Axes) -> None:
    low, high = axes.dataLim.intervaly
    few = high / max(low, 1e-12) < 100  # label 1, 2, 5 where whole decades would be too few
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _ramp(n: int) -> list:
    """n colours from light (old) to dark (new)."""
    return list(matplotlib.colormaps["YlGnBu"](np.linspace(0.25, 0.95, n)))


def _svg(name: str, figure: Figure) -> str:
    """The figure as an <svg> element without namespaces or metadata, its ids prefixed by `name`."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|\shref="#|url\(#)', rf"\g<1>{name}-", svg)
    # Sized by the page; text in the page's own typeface.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("'DejaVu Sans'", "inherit")
