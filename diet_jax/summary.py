"""What the records mean: gap recovery, rank agreement, regret and cost, as plain dicts and lists.

Console and report print what is computed here and nothing else. Only stages that were evaluated to
the end count. A number that is not defined is NaN and is left out of means.
"""

import math
from collections import defaultdict
from statistics import fmean, stdev
from typing import Any

from scipy.stats import kendalltau

from diet_jax.record import Record, evaluated_stages, is_finished

METHODS = {
    "full": "full data",
    "memory": "memory",
    "random_hard": "random",
    "random_soft": "random + teacher",
}
BASELINES = {"R": "random_hard", "R_soft": "random_soft"}
MIN_GAP = 1e-6  # with a smaller gap between full data and random there is nothing to recover

MIN_SLOTS = 50  # with fewer, one slot more or less decides

PARTS = ("teacher", "influence", "outer")
_MEASURES = (
    "auc",
    "gauc",
    "logloss",
    "auc_current",
    "auc_past",
    "steps",
    "rows",
    "seconds",
)
OF_TASK = "auc:"  # how the AUC of one label of several is called, before the label's name


def summarize(records: list[Record]) -> dict[str, Any]:
    """Everything that console and report show.

    Returns a dict:
        finished (bool), stages_done, stages_total (counts; the total is None before stage 1 ends),
        stages, archs, methods, seeds: what was evaluated, in order (stages and seeds ascending);
        cells: a list over stages and architectures, see `cells`;
        ranks: a list over stages and methods, see `ranks`;
        by_arch: architecture -> {"auc": {method: mean over stages}, "R", "R_soft": means of cells};
        overall: {"auc", "gauc", "logloss", "auc_current", "auc_past", "tau", "regret", "steps",
            "rows", "seconds", and of a log with several labels "auc:LABEL": {method: mean over
            stages and architectures}, "R", "R_soft": see `aggregate`};
        cost: see `cost`;
        dead: see `dead`;
        held_out (bool): rows of the stage itself judge it, and not the next stage;
        stage_records: the records of kind "stage", by stage;
        teacher_auc: mean over stages of the AUC of the teacher's own answers.
    """
    done = evaluated_stages(records)
    evals = [r for r in records if r["kind"] == "eval" and r["stage"] in done]
    stage_records = {r["stage"]: r for r in records if r["kind"] == "stage"}
    table = cells(evals)
    order = ranks(table)
    methods = [m for m in METHODS if any(r["method"] == m for r in evals)]
    archs = list(dict.fromkeys(r["arch"] for r in evals))
    return {
        "finished": is_finished(records),
        "stages_done": len(done),
        "stages_total": max((r["stages"] for r in stage_records.values()), default=None),
        "stages": sorted({r["stage"] for r in evals}),
        "archs": archs,
        "methods": methods,
        "seeds": sorted({r["seed"] for r in evals}),
        "cells": table,
        "ranks": order,
        "by_arch": {arch: _over_stages(table, arch, methods) for arch in archs},
        "overall": _overall(table, order, methods),
        "cost": cost(records, table),
        "dead": dead(evals),
        # Only beside the next stage is the stage itself scored, if with no more than a null.
        "held_out": bool(evals) and not any("auc_current" in r for r in evals),
        "stage_records": [stage_records[stage] for stage in done],
        "teacher_auc": _spread([stage_records[s].get("teacher_auc") for s in done])["mean"],
    }


def cells(evals: list[Record]) -> list[dict[str, Any]]:
    """One dict for each stage and architecture, in order of first appearance.

    {"stage", "arch", "auc", "gauc", "logloss", "auc_current", "auc_past", "steps", "rows",
    "seconds", and "auc:LABEL" for each of several labels: {method: {"mean", "sd", "n"}} over seeds
    (sd with n - 1; NaN for one seed), "R", "R_soft"}
    """
    groups: dict = defaultdict(lambda: defaultdict(list))
    for record in evals:
        groups[record["stage"], record["arch"]][record["method"]].append(record)
    table, of_tasks = [], dict.fromkeys(k for r in evals for k in r if k.startswith(OF_TASK))
    for (stage, arch), by_method in groups.items():
        cell: dict[str, Any] = {"stage": stage, "arch": arch}
        for measure in (*_MEASURES, *of_tasks):
            cell[measure] = {
                m: _spread([r.get(measure) for r in by_method[m]])
                for m in METHODS
                if m in by_method
            }
        for name, baseline in BASELINES.items():
            cell[name] = gap_recovery(*(_auc(cell, m) for m in ("full", "memory", baseline)))
        table.append(cell)
    return table


def dead(evals: list[Record]) -> list[str]:
    """Names of the trainings whose model orders nothing: AUC and GAUC of exactly one half, since it
    answers all rows alike, or with what is not finite.

    They count in every mean, so who reads one should know.
    """
    return [
        f"{r['arch']} on {METHODS.get(r['method'], r['method'])}, stage {r['stage']},"
        f" seed {r['seed']}" + (f" of {r['run']}" if "run" in r else "")
        for r in evals
        if r["auc"] == 0.5 and r["gauc"] in (0.5, None)
    ]


def about_dead(names: list[str]) -> list[str]:
    """What to say of them: one line or none."""
    if not names:
        return []
    shown = "; ".join(names[:5]) + ("; .." if len(names) > 5 else "")
    return [
        f"Trainings that died, their model ordering no rows: {len(names)}. They count as"
        f" they are; lower the learning rate (eval.lr) of {shown}."
    ]


def cautions(summary: dict[str, Any]) -> list[str]:
    """What to say of a run whose figures are not to be taken as they are, a line each."""
    lines = about_dead(summary["dead"])
    if summary["overall"]["R"]["mean_of_ratios"] < 0:
        lines.append(
            "The memory is worse than random rows. Is the teacher trained enough (teacher.lr,"
            " teacher.first_epochs), and are rates chosen for this log (diet_jax.tune)?"
        )
    cells = summary["cells"]
    left_out = sum(_auc(c, "full") - _auc(c, "random_hard") <= MIN_GAP for c in cells)
    if left_out:
        lines.append(
            f"In {left_out} of {len(cells)} cells full data is no better than random rows, and the"
            " mean of R leaves them out. Is full data trained enough (eval.full_epochs,"
            " eval.lr.full)?"
        )
    slots = summary["stage_records"][-1]["slots"] if summary["stage_records"] else MIN_SLOTS
    if slots < MIN_SLOTS:
        lines.append(f"The memory has {slots} slots, too few to say much: raise memory.rate.")
    return lines


def gap_recovery(full: float, memory: float, baseline: float) -> float:
    """The share of the AUC gap between a baseline and full data that the memory closes.

    1: as good as all rows; 0: no better than the baseline; NaN when full data beats the baseline by
    at most `MIN_GAP`.
    """
    gap = full - baseline
    return (memory - baseline) / gap if gap > MIN_GAP else math.nan


def aggregate(table: list[dict[str, Any]], name: str) -> dict[str, float | int]:
    """Gap recovery "R" or "R_soft" over all cells, in two ways.

    mean_of_ratios: the mean of the cells' own values, each cell with the same say; cells: how many.
    ratio_of_means: mean(memory - baseline) / mean(full - baseline), each cell with the say of its
        gap, so that cells where full data hardly beats the baseline do not dominate.
    """
    ratios = [cell[name] for cell in table if not math.isnan(cell[name])]
    aucs = [[_auc(c, m) for m in ("full", "memory", BASELINES[name])] for c in table]
    aucs = [row for row in aucs if not any(map(math.isnan, row))]
    return {
        "mean_of_ratios": _mean(ratios),
        "ratio_of_means": gap_recovery(*map(_mean, zip(*aucs, strict=True))) if aucs else math.nan,
        "cells": len(ratios),
    }


def ranks(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How well each method ranks the architectures, stage by stage, by AUC averaged over seeds.

    {"stage", "method", "tau": Kendall's tau_b against full data, "best": the architecture that is
    best on full data, "chosen": the method's best, "regret": what the choice costs in full-data
    AUC}. Of equals the one recorded first is chosen. Only architectures that both have count; tau
    is NaN for fewer than two of them or when one side ties them all.
    """
    result = []
    for stage in dict.fromkeys(cell["stage"] for cell in table):
        here = [c for c in table if c["stage"] == stage and "full" in c["auc"]]
        for method in METHODS:
            both = [c for c in here if method in c["auc"]]
            if method == "full" or not both:
                continue
            full, other = ([_auc(c, m) for c in both] for m in ("full", method))
            tau: Any = kendalltau(full, other, variant="b")[0] if len(both) > 1 else math.nan
            best, chosen = full.index(max(full)), other.index(max(other))
            result.append(
                {
                    "stage": stage,
                    "method": method,
                    "tau": float(tau),
                    "best": both[best]["arch"],
                    "chosen": both[chosen]["arch"],
                    "regret": full[best] - full[chosen],
                }
            )
    return result


def cost(records: list[Record], table: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows and seconds.

    trial: a list over stages, {"stage", "rows", "seconds": {method: mean over architectures}}, of
    one training of one architecture. parts: a list over stages, {"stage", "teacher", "influence",
    "outer": seconds}. distill_seconds: their sum. run_seconds: of the session that finished the
    run (NaN before). break_even: how many trials at every stage make up for the distillation in
    training time saved (NaN if a trial on the memory saves nothing).
    """
    trial = []
    for stage in dict.fromkeys(cell["stage"] for cell in table):
        here = [cell for cell in table if cell["stage"] == stage]
        row: dict[str, Any] = {"stage": stage}
        for measure in ("rows", "seconds"):
            row[measure] = _by_method(here, measure, METHODS)
        trial.append(row)
    parts = [
        {"stage": r["stage"]} | {part: r[f"seconds_{part}"] for part in PARTS}
        for r in records
        if r["kind"] == "stage"
    ]
    total = sum(row[part] for row in parts for part in PARTS)
    saved = sum(t["seconds"]["full"] - t["seconds"]["memory"] for t in trial)
    return {
        "trial": trial,
        "parts": parts,
        "distill_seconds": total,
        "run_seconds": next((r["seconds"] for r in records if r["kind"] == "run"), math.nan),
        "break_even": total / saved if saved > 0 else math.nan,
    }


def _overall(table: list[dict], order: list[dict], methods: list[str]) -> dict[str, Any]:
    of_tasks = [key for cell in table[:1] for key in cell if key.startswith(OF_TASK)]
    measures = (*_MEASURES, *of_tasks)
    overall: dict[str, Any] = {m: _by_method(table, m, methods) for m in measures}
    for key in ("tau", "regret"):
        overall[key] = {
            m: _mean([row[key] for row in order if row["method"] == m])
            for m in methods
            if m != "full"
        }
    return overall | {name: aggregate(table, name) for name in BASELINES}


def _over_stages(table: list[dict], arch: str, methods: list[str]) -> dict[str, Any]:
    mine = [cell for cell in table if cell["arch"] == arch]
    ratios = {name: _mean([cell[name] for cell in mine]) for name in BASELINES}
    return {"auc": _by_method(mine, "auc", methods)} | ratios


def _by_method(table: list[dict], measure: str, methods: Any) -> dict[str, float]:
    """The mean of a measure over some cells, for each method; NaN where no cell has it."""
    return {m: _mean([c[measure][m]["mean"] for c in table if m in c[measure]]) for m in methods}


def _auc(cell: dict[str, Any], method: str) -> float:
    return cell["auc"].get(method, {"mean": math.nan})["mean"]


def _spread(values: list[float | None]) -> dict[str, float | int]:
    known = [float(v) for v in values if v is not None]
    sd = stdev(known) if len(known) > 1 else math.nan
    return {"mean": _mean(known), "sd": sd, "n": len(known)}


def _mean(values: Any) -> float:
    known = [v for v in values if not math.isnan(v)]
    return fmean(known) if known else math.nan
