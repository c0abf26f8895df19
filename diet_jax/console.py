"""What a person sees of a run: one progress bar and one table a stage, one table at the end.

Progress goes to stderr, tables go to stdout. Nothing is said by colour alone, and every table fits
80 columns.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)
from rich.table import Table
from rich.text import Text

from diet_jax.data.columns import one_line
from diet_jax.data.prepare import Report
from diet_jax.data.profile import Dense, Field
from diet_jax.record import Record
from diet_jax.summary import METHODS, OF_TASK, PARTS, cautions, summarize

LINE_EVERY_S = 10.0  # between two lines of progress where there is no terminal


@contextmanager
def stage_progress(
    stage: int, stages: int, steps: int, console: Console | None = None
) -> Iterator[Callable[[int, float], None]]:
    """Shows how the distillation of a stage (1-based) gets on: `update(step, loss)` after a step.

    `step` counts the outer steps done, of `steps`. On a terminal it is a bar that goes away at the
    end; elsewhere it is a line at most every `LINE_EVERY_S` seconds.
    """
    console = console or Console(stderr=True)
    title = f"stage {stage}/{stages}"
    if not console.is_terminal:
        yield _line_writer(console, title, steps)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("outer loss {task.fields[loss]}, time left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        task = progress.add_task(title, total=steps, loss="-")
        yield lambda step, loss: progress.update(task, completed=step, loss=f"{loss:.4f}")


@contextmanager
def preparation(console: Console | None = None) -> Iterator[Report]:
    """Shows how the preparation of a log gets on: rows read, then rows encoded, and how fast.

    On a terminal it is a bar that goes away at the end; elsewhere a line now and then. A log that
    is prepared already shows nothing.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Report(_rows_writer(console, "read"), _rows_writer(console, "encoded"))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f} rows, {task.fields[speed]:,.0f} a second"),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        tasks = {}

        def told(name: str) -> Callable[[int], None]:
            def update(rows: int) -> None:
                if name not in tasks:
                    # How many rows there are is known once all are read.
                    read = tasks.get("read the log")
                    total = None if read is None else progress.tasks[read].completed
                    tasks[name] = progress.add_task(name, total=total, speed=0)
                took = progress.tasks[tasks[name]].elapsed or 1
                progress.update(tasks[name], completed=rows, speed=rows / took)

            return update

        yield Report(told("read the log"), told("encode it"))


def said_of(rejected: dict[str, int]) -> list[str]:
    """How many rows could not be used, and for what."""
    each = [f"  {count(n)}: {why}" for why, n in sorted(rejected.items())]
    return [f"{count(sum(rejected.values()))} rows rejected", *each]


def along(items: list, title: str) -> Iterable:
    """The items one after another, with a bar on a terminal."""
    console = Console(stderr=True)
    return track(items, title, console=console, transient=True, disable=not console.is_terminal)


def print_preparation(
    manifest: dict,
    columns: tuple[list[Field], list[Dense]],
    folder: Path,
    took: float,
    console: Console | None = None,
):
    """Prints what a prepared log holds, and how many rows were rejected for what.

    columns: its `profile`.
    """
    m, console = manifest, console or Console()
    table = Table(box=box.HORIZONTALS, padding=(0, 1))
    for name in ("stage", "rows", "from (UTC)", "positive", "table rows"):
        table.add_column(name, justify="right", no_wrap=True)
    start = 0
    for number, stage in enumerate(m["stages"], 1):
        begins = stage["begins"].removesuffix(" 00:00:00")
        share = f"{stage['positives'] / (stage['stop'] - start):.1%}"
        table.add_row(
            str(number), count(stage["stop"] - start), begins, share, count(stage["vocab_size"])
        )
        start = stage["stop"]
    lines = ["Missing, new and common values, and quantiles, are of the last stage."]
    lines += said_of(m["rejected"])
    if m["rejected"]:
        lines.append(f"  all of them in {folder / 'rejected.csv'}")
    speed = f" ({count(m['rows'] / took)} rows a second)" if took > 0.1 else ""
    lines.append(f"Ready after {seconds(took)}{speed}: {folder}")
    title = Text(f"{m['name']}: {count(m['rows'])} rows", style="bold")
    shown = [title, table, *columns_view(*columns), *map(Text, lines)]
    console.print(Group(*shown), soft_wrap=True)


def columns_view(fields: list[Field], dense: list[Dense]) -> list[Table]:
    """Tables of what the columns of a log hold in its last stage, see `profile`."""

    def table(heads: list[str], rows: list[tuple[str, ...]]) -> Table:
        made = Table(box=box.HORIZONTALS, padding=(0, 1))
        for k, head in enumerate(heads):
            made.add_column(head, justify="right" if k else "left", no_wrap=True, max_width=24)
        for row in rows:
            made.add_row(*map(Text, row))
        return made

    def share(x: float) -> str:
        return "-" if math.isnan(x) else f"{x:.1%}"

    def of_scale(feature: Dense, x: float) -> str:  # which cuts what the first stage has not shown
        sign = "≤ " if x <= feature.least else "≥ " if x >= feature.most else ""
        return f"{sign}{x:.4g}"

    of_fields = [
        (
            f.name,
            count(f.values),
            share(f.missing),
            share(f.new),
            one_line(f.common),
            share(f.share),
        )
        for f in fields
    ]
    of_dense = [(d.name, *map(partial(of_scale, d), d.quantiles)) for d in dense]
    heads = ["categorical field", "values", "missing", "new", "most common", "share"]
    tables = [table(heads, of_fields)] if fields else []
    heads = ["dense feature", "least", "5 %", "median", "95 %", "most"]
    return tables + ([table(heads, of_dense)] if dense else [])


def print_stage(records: list[Record], stage: int, console: Console | None = None) -> None:
    """Prints the table of one evaluated stage, or nothing if the stage was not scored."""
    summary = summarize(records)
    if stage in summary["stages"]:
        (console or Console()).print(stage_table(summary, stage))


def print_summary(records: list[Record], console: Console | None = None) -> None:
    """Prints the table and the closing lines of a run, finished or not."""
    (console or Console()).print(summary_view(summarize(records)))


def slots(record: dict[str, Any]) -> str:
    """How many of a stage's record the memory has, and how many rows each mixes, if it does."""
    each = f" of {record['mix']} mixed rows" if record.get("mix", 1) > 1 else ""
    return f"{record['slots']:,} slots{each}"


def stage_table(summary: dict[str, Any], stage: int) -> Group:
    """AUC of each architecture after one stage, by what it was trained on, and its gap recovery."""
    cells = [cell for cell in summary["cells"] if cell["stage"] == stage]
    methods, record = summary["methods"], _record_of(summary, stage)
    table = _table([METHODS[m] for m in methods] + ["R"])
    for cell in cells:
        aucs = [cell["auc"].get(m, {"mean": math.nan})["mean"] for m in methods]
        table.add_row(cell["arch"], *map(auc, aucs), ratio(cell["R"]))
    judge = "its validation rows" if summary["held_out"] else f"stage {stage + 1}"
    title = f"Stage {stage} of {record['stages']}: AUC on {judge}{_over(summary)}"
    note = (
        f"{slots(record)} for {record['rows_so_far']:,} rows"
        f" ({record['slots'] / record['rows_so_far']:.1%})"
        f"; {record['new']:,} new, {record['written']:,} old ones updated;"
        f" {seconds(record['seconds'])}"
    )
    return Group(Text(title, style="bold"), table, Text(note, style="dim"), Text())


def summary_view(summary: dict[str, Any]) -> Group:
    """The closing table: means over the evaluated stages."""
    if not summary["cells"]:
        return Group(Text("No stage has been evaluated yet."))
    methods, overall = summary["methods"], summary["overall"]
    table = _table([METHODS[m] for m in methods] + ["R", "R_soft"])
    for arch, row in summary["by_arch"].items():
        aucs = [auc(row["auc"][m]) for m in methods]
        table.add_row(arch, *aucs, ratio(row["R"]), ratio(row["R_soft"]))
    table.add_section()
    means = [ratio(overall[name]["mean_of_ratios"]) for name in ("R", "R_soft")]
    table.add_row("mean AUC", *(auc(overall["auc"][m]) for m in methods), *means)
    for key in [key for key in overall if key.startswith(OF_TASK)]:
        name = f"AUC of {key.removeprefix(OF_TASK)}"
        table.add_row(name, *(auc(overall[key][m]) for m in methods))
    table.add_row("mean GAUC", *(auc(overall["gauc"][m]) for m in methods))
    table.add_row("mean log loss", *(auc(overall["logloss"][m]) for m in methods))
    for name, key in (("AUC on this stage", "auc_current"), ("AUC on past ones", "auc_past")):
        table.add_row(name, *(auc(overall[key][m]) for m in methods))
    for name, key, text in (("Kendall tau", "tau", ratio), ("regret, AUC", "regret", auc)):
        table.add_row(name, *(text(overall[key][m]) if m != "full" else "" for m in methods))
    table.add_section()
    table.add_row("rows per trial", *(count(overall["rows"][m]) for m in methods))
    table.add_row("seconds per trial", *(plain(overall["seconds"][m]) for m in methods))
    judge = "validation rows of the same stage" if summary["held_out"] else "the stage after"
    title = f"Mean over {_stages_text(summary)}{_over(summary)}: AUC on {judge}"
    return Group(Text(title, style="bold"), table, *map(Text, _closing_lines(summary)))


def _closing_lines(summary: dict[str, Any]) -> list[str]:
    r, r_soft = summary["overall"]["R"], summary["overall"]["R_soft"]
    cost = summary["cost"]
    parts = {p: sum(row[p] for row in cost["parts"]) for p in PARTS}
    lines = [
        "R is the share of the AUC gap from random to full data that the memory closes;",
        "R_soft is the same from random + teacher.",
        f"Mean of {r['cells']} stage x architecture cells: R {ratio(r['mean_of_ratios'])},"
        f" R_soft {ratio(r_soft['mean_of_ratios'])}.",
        f"Ratio of the mean gaps: R {ratio(r['ratio_of_means'])},"
        f" R_soft {ratio(r_soft['ratio_of_means'])}.",
        f"The teacher's own answers: AUC {auc(summary['teacher_auc'])}.",
        f"Distillation: {seconds(cost['distill_seconds'])} (teacher {seconds(parts['teacher'])},"
        f" influence {seconds(parts['influence'])}, outer {seconds(parts['outer'])}).",
    ]
    lines += cautions(summary)
    if not math.isnan(cost["run_seconds"]):
        took = seconds(cost["run_seconds"])
        lines.append(f"Run: {took} (its last session, where it was resumed).")
    if not summary["finished"]:
        lines.append("The run is not finished: run the same command again to resume it.")
    return lines


def auc(value: float) -> str:
    """Four digits, or "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def ratio(value: float) -> str:
    """Two digits, or "-" for NaN; never "-0.00"."""
    return "-" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"


def count(value: float) -> str:
    """A whole number with thousands separated, or "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:,.0f}"


def plain(value: float) -> str:
    """Three significant digits, or "-" for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(value: float) -> str:
    """A duration: "0.016 s", "0.8 s", "42 s", "3 min 05 s", "2 h 10 min", or "-" for NaN."""
    if math.isnan(value):
        return "-"
    if 0 < value < 0.095:  # of a trial on a memory
        return f"{value:.2g} s"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _line_writer(console: Console, title: str, steps: int) -> Callable[[int, float], None]:
    last, first = time.monotonic(), (0.0, 0)

    def update(step: int, loss: float) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = first if first[1] else (now, step)  # until then steps were compiled
        if now - last < LINE_EVERY_S or step <= first[1]:
            return
        last = now
        left = (now - first[0]) / (step - first[1]) * (steps - step)
        text = f"{title}: step {step}/{steps}, outer loss {loss:.4f}, {seconds(left)} left"
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    return update


def _rows_writer(console: Console, done: str) -> Callable[[int], None]:
    last, first = time.monotonic(), (0.0, 0)

    def update(rows: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = first if first[1] else (now, rows)  # until then rows were read, or nothing done
        if now - last >= LINE_EVERY_S and rows > first[1]:
            last = now
            speed = (rows - first[1]) / (now - first[0])
            text = f"{rows:,} rows {done}, {speed:,.0f} a second"
            console.print(text, soft_wrap=True, highlight=False, markup=False)

    return update


def _table(columns: list[str]) -> Table:
    table = Table(box=box.HORIZONTALS, padding=(0, 1), show_edge=True)
    table.add_column("architecture", no_wrap=True)
    for name in columns:
        table.add_column(name.replace("random + teacher", "random\n+ teacher"), justify="right")
    return table


def _record_of(summary: dict[str, Any], stage: int) -> Record:
    return next(r for r in summary["stage_records"] if r["stage"] == stage)


def _over(summary: dict[str, Any]) -> str:
    n = len(summary["seeds"])
    return f", mean of {n} seeds" if n > 1 else ""


def _stages_text(summary: dict[str, Any]) -> str:
    n = len(summary["stages"])
    return f"{n} stages" if n > 1 else "1 stage"
