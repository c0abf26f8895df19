"""What a comparison over a zoo found: one page of Markdown with its figures, from its records."""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from diet_jax.files import replace_file, replace_text
from diet_jax.ranking import agreement, rate_transfer
from diet_jax.report.figures import RC, STYLE
from diet_jax.summary import METHODS, about_dead, dead

Board = dict[str, np.ndarray]  # run -> AUC [variants, seeds]


class Choice(NamedTuple):
    """What a training is free to choose. setting: of the architecture, as in "init_scale=0.1"."""

    lr: float
    l2: float
    setting: str = ""


Choices = dict[tuple[str, str], Choice]  # by method and variant


def write(
    out: Path,
    records: list[dict[str, Any]],
    variants: dict[str, dict],
    chosen: Choices,
    env: dict[str, str],
) -> Path:
    """Writes zoo.md and its figures into `out` and returns the page's path.

    records: of `diet_jax.evaluate`, of one comparison. variants: the specs by name. chosen: of
    what was tried, what the page shows.
    """
    names = list(variants)
    mine = [r for r in records if at(r) == chosen.get(place(r))]
    boards = {m: board(mine, m, names) for m in METHODS}
    boards = {m: by_run for m, by_run in boards.items() if by_run}
    text = ["# Do models rank alike?", "", *headline(boards, mine, names)]
    text += ["", "## Agreement with full data", "", *ranks(boards)]
    text += ["", "## Does the best learning rate carry over?", "", *transfer(records, names)]
    text += ["", "## Every variant", "", *table(boards, names), *settings(chosen)]
    text += [line for said in about_dead(dead(mine)) for line in ("", said)]
    text += ["", "## Other figures, mean over variants", "", *others(mine, boards)]
    text += ["", f"JAX {env['jax']} on {env['device']}.", ""]
    if {"full", "memory"} <= set(boards):
        with matplotlib.rc_context(RC):
            figure = draw(boards, mine, names)
            replace_file(out / "zoo.svg", lambda draft: figure.savefig(draft, format="svg"))
        text += ["![full data against subsets, ranks, cost](zoo.svg)", ""]
    return replace_text(out / "zoo.md", "\n".join(text))


def at(record: dict[str, Any]) -> Choice:
    return Choice(record["lr"], record["l2"], record.get("setting", ""))


def place(record: dict[str, Any]) -> tuple[str, str]:
    return record["method"], record["variant"]


def board(records: list[dict[str, Any]], method: str, names: list[str]) -> Board:
    """AUC [variants, seeds] of the runs that have every variant."""
    found = defaultdict(lambda: defaultdict(dict))
    for r in records:
        if r["method"] == method:
            found[r["run"]][r["variant"]][r["seed"]] = r["auc"]
    return {
        run: np.array([[by_name[n][s] for s in sorted(by_name[n])] for n in names])
        for run, by_name in found.items()
        if set(names) <= set(by_name)
    }


def headline(boards: dict[str, Board], records: list[dict], names: list[str]) -> list[str]:
    """By method: mean AUC, mean absolute distance from full data in AUC, R, R_soft, seconds."""
    runs = max((len(by_run) for by_run in boards.values()), default=0)
    seeds = {m: next(iter(b.values())).shape[1] for m, b in boards.items()}
    shown = ", ".join(f"{METHODS[m]} {n}" for m, n in seeds.items())
    memories = "1 memory" if runs == 1 else f"{runs} memories (runs of other seeds)"
    text = [
        f"{len(names)} variants, {memories}; training seeds of each: {shown}.",
        "AUC on the rows that judge the last stage. Written by `python -m diet_jax.evaluate`.",
        "",
        "| | mean AUC | distance | R | R_soft | training, s | cheaper | compiling, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    spent = {m: cost(records, m, seeds[m], "seconds") for m in boards}
    mean = {m: float(np.mean([b.mean() for b in by_run.values()])) for m, by_run in boards.items()}

    def recovered(m: str, base: str) -> str:
        """The share of the gap from `base` to full data that `m` closes."""
        if m in ("full", base) or not {"full", base} <= set(mean):
            return ""
        return f"{(mean[m] - mean[base]) / (mean['full'] - mean[base]):.2f}"

    for m, by_run in boards.items():
        full = boards.get("full", {}).values()
        gaps = [np.abs(b.mean(1) - f.mean(1)) for f in full for b in by_run.values()]
        away = f"{np.mean(gaps):.4f}" if m != "full" and gaps else ""
        less = f"{spent['full'] / spent[m]:.0f} x" if m != "full" and "full" in spent else ""
        compiling = cost(records, m, seeds[m], "seconds_compile")
        cells = f"{mean[m]:.4f} | {away} | {recovered(m, 'random_hard')}"
        cells += f" | {recovered(m, 'random_soft')} | {spent[m]:.1f} | {less} | {compiling:.0f}"
        text.append(f"| {METHODS[m]} | {cells} |")
    return [
        *text,
        "",
        "Distance from full data: mean over variants of the difference of AUC, without its sign.",
        "R, R_soft: share of the gap between mean AUCs, from random rows, or from those with the",
        "teacher's labels, to full data. Seconds: of the whole grid, for one seed and one subset.",
        "What is compiled for one subset serves all others, so that the first of them has it all.",
    ]


def cost(records: list[dict], method: str, n_seeds: int, what: str) -> float:
    """Seconds of all variants, one training each; compiling is done once for all runs."""
    mine = [r for r in records if r["method"] == method]
    runs = len({r["run"] for r in mine}) if what == "seconds" else 1
    return sum(r[what] for r in mine) / n_seeds / runs


def ranks(boards: dict[str, Board]) -> list[str]:
    """By subset: the figures of `ranking.agreement`, means over runs."""
    text = [
        "tau: Kendall's tau_b with full data, mean over runs (95 % bootstrap interval over seeds,",
        "mean over runs). Ceiling: tau of two full boards that differ in seeds only. Pairs:",
        "those that full data tells apart by more than two standard errors, and how many of them",
        "are in the same order. Regret: AUC on full data lost by picking the subset's first model,",
        "or the best of its first three.",
        "",
        "| | tau | ceiling | Spearman | pairs in order | regret | regret of three |",
        "|---|---|---|---|---|---|---|",
    ]
    for m, by_run in boards.items():
        full = next(iter(boards.get("full", {}).values()), np.zeros((0, 0)))
        if m == "full" or len(full) < 2:
            continue
        found = [agreement(full, b) for b in by_run.values()]
        mean = {k: float(np.nanmean([f[k] for f in found])) for k in found[0]}
        spread = f" ± {np.std([f['tau'] for f in found], ddof=1):.2f}" if len(found) > 1 else ""
        text.append(
            f"| {METHODS[m]} | {mean['tau']:.2f}{spread} ({mean['low']:.2f} .. {mean['high']:.2f}) "
            f"| {mean['ceiling']:.2f} | {mean['spearman']:.2f} "
            f"| {100 * mean['separable']:.0f} % of {mean['pairs']:.0f} "
            f"| {mean['regret']:.4f} | {mean['regret_top']:.4f} |"
        )
    return text


def transfer(records: list[dict], names: list[str]) -> list[str]:
    """Of the choices that every method tried, which is best, on what."""
    auc = defaultdict(lambda: defaultdict(list))
    for r in records:
        auc[place(r)][at(r)].append(r["auc"])
    common = set.intersection(*(set(grid) for grid in auc.values())) if auc else set()
    if not all(("full", n) in auc for n in names):
        return ["Not judged: `full` is not among the zoo's `methods`."]
    if len(common) < 2:
        return ["Not judged: the methods have no two choices in common (`lrs` of the zoo)."]
    grid = sorted(common)
    mean = {key: [np.mean(found[rates]) for rates in grid] for key, found in auc.items()}
    text = [
        f"{len(grid)} choices of learning rate and L2 that all tried. Lost: AUC on full data at",
        "the one that is best on the subset, below its best.",
        "",
        "| | same best | lost |",
        "|---|---|---|",
    ]
    for m in METHODS:
        if m != "full" and all((m, n) in mean for n in names):
            found = rate_transfer(*(np.array([mean[k, n] for n in names]) for k in ("full", m)))
            text.append(f"| {METHODS[m]} | {100 * found['same']:.0f} % | {found['lost']:.4f} |")
    return text


def table(boards: dict[str, Board], names: list[str]) -> list[str]:
    text = [f"| | {' | '.join(METHODS[m] for m in boards)} |", "|---" * (1 + len(boards)) + "|"]
    means = {m: np.stack([b.mean(1) for b in by_run.values()]) for m, by_run in boards.items()}
    for k, name in enumerate(names):
        cells = [spread(means[m][:, k], boards[m], k) for m in boards]
        text.append(f"| {name} | {' | '.join(cells)} |")
    return text


def settings(chosen: Choices) -> list[str]:
    """What was set in a model beside its rates, if anything was."""
    found = defaultdict(list)
    for (method, name), choice in chosen.items():
        if choice.setting:
            found[f"- {choice.setting} on {METHODS[method]}: "].append(name)
    lines = [start + ", ".join(names) for start, names in found.items()]
    return ["", "Set, as it was best where rates were chosen:", "", *lines] if lines else []


def spread(means: np.ndarray, by_run: Board, k: int) -> str:
    """Mean and standard deviation over runs, or over training seeds where there is one run."""
    values = means if len(means) > 1 else next(iter(by_run.values()))[k]
    sd = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{sd}"


def others(records: list[dict], boards: dict[str, Board]) -> list[str]:
    """By method: what beside AUC was measured, means over variants, seeds and runs."""
    text = [
        "Relative improvement of AUC over random rows, (AUC - 0.5) / (AUC of random - 0.5) - 1;",
        "calibration error in 15 bins; predicted clicks over observed ones.",
        "",
        "| | relative improvement | GAUC | log loss | calibration error | predicted / observed |",
        "|---|---|---|---|---|---|",
    ]
    base = boards.get("random_hard")
    floor = np.mean([b.mean() for b in base.values()]) - 0.5 if base else float("nan")
    for m, by_run in boards.items():
        mine = [r for r in records if r["method"] == m]
        gain = (np.mean([b.mean() for b in by_run.values()]) - 0.5) / floor - 1
        cells = [
            f"{np.mean([r[k] for r in mine if r[k] is not None]):.4f}"
            for k in ("gauc", "logloss", "ece", "ctr_ratio")
        ]
        text.append(f"| {METHODS[m]} | {100 * gain:+.1f} % | {' | '.join(cells)} |")
    return text


def draw(boards: dict[str, Board], records: list[dict], names: list[str]) -> Figure:
    """Left: AUC on a subset against full data. Middle: ranks. Right: fidelity against cost."""
    figure = Figure(figsize=(13, 5.5))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
    full = np.mean([b.mean(1) for b in boards["full"].values()], 0)
    seconds = {
        m: {n: np.mean([r["seconds"] for r in records if place(r) == (m, n)]) for n in names}
        for m in boards
    }
    for m in boards:
        means = np.stack([b.mean(1) for b in boards[m].values()])
        y = means.mean(0)
        look = STYLE[m] | {"linestyle": "none"}
        if m != "full":
            bars = means.std(0, ddof=1) if len(means) > 1 else None
            left.errorbar(full, y, yerr=bars, label=METHODS[m], elinewidth=0.8, **look)
        x = [seconds[m][n] for n in names]
        right.plot(x, y, label=METHODS[m], **look)
    left.set(xlabel="AUC, full data", ylabel="AUC, subset", title="Each variant")
    left.legend(loc="best", fontsize=8)
    place_of = {
        m: np.argsort(np.argsort(-np.mean([b.mean(1) for b in boards[m].values()], 0)))
        for m in ("full", "memory")
    }
    for k, name in enumerate(names):
        a, b = (1 + place_of[m][k] for m in ("full", "memory"))
        middle.plot((0, 1), (a, b), color="#0072b2", lw=1, alpha=0.7, marker="o")
        middle.annotate(
            name, (0, a), (-5, 0), "data", "offset points", ha="right", va="center", fontsize=6
        )
        middle.annotate(name, (1, b), (5, 0), "data", "offset points", va="center", fontsize=6)
    middle.set(xlim=(-0.9, 1.9), title="Ranks, full data and memory")
    middle.set_xticks((0, 1), ("full data", "memory"))
    middle.invert_yaxis()
    middle.grid(visible=False)
    right.set_xscale("log")
    right.set(xlabel="seconds of a training", ylabel="AUC", title="Cost and quality")
    return figure
