"""One HTML file that says what a run found, readable anywhere: no scripts, no links, no server.

It is made from metrics.jsonl and config.json alone, so that it can be rebuilt anywhere.
"""

import json
import math
import os.path
from pathlib import Path
from typing import Any

import jinja2

from diet_jax import console
from diet_jax.files import replace_text
from diet_jax.record import evaluated_stages, flatten, read_records
from diet_jax.report import figures
from diet_jax.summary import METHODS, cautions, summarize
from diet_jax.types import InputError


def build_report(workdir: str | Path) -> Path:
    """Writes report.html into the workdir of a run, finished or not, and returns its path.

    Raises:
        InputError: the folder holds no config.json, or metrics.jsonl is broken.
    """
    workdir = Path(workdir)
    config, records = read_config(workdir), read_records(workdir / "metrics.jsonl")
    return replace_text(workdir / "report.html", render(config, records))


def read_config(workdir: Path) -> dict[str, Any]:
    """The config of a run. Raises InputError if the folder holds none."""
    try:
        return json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"{workdir} holds no readable config.json; give the --workdir of a run"
        ) from None


def render(config: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """The report as HTML, the same for the same input.

    Args:
        config: the run's config as nested dicts. Absolute paths in it are cut to their last part.
        records: the lines of metrics.jsonl.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("diet_jax", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        auc=console.auc,
        ratio=console.ratio,
        count=console.count,
        slots=console.slots,
        plain=console.plain,
        seconds=console.seconds,
        heat=_heat,
    )
    summary = summarize(records)
    last = summary["stage_records"][-1] if summary["stage_records"] else None
    return environment.get_template("template.html").render(
        s=summary,
        methods=METHODS,
        name=_log_name(config),
        cautions=cautions(summary),
        held_out=summary["held_out"],
        last=last,
        rate=last["slots"] / last["rows_so_far"] if last else math.nan,
        heat_rows=_grid(summary),
        rank_rows=_rank_rows(summary),
        figures=figures.draw(summary, _outer(records)),
        config=[(key, _shown(value)) for key, value in sorted(flatten(config).items())],
    )


def _log_name(config: dict[str, Any]) -> str:
    data = config.get("data", {})
    name = data.get("name") or data.get("source") or "unnamed log"
    return f"MovieLens {name}" if data.get("source") == "movielens" else name


def _outer(records: list[dict[str, Any]]) -> dict[int, list[tuple[int, float]]]:
    """Outer loss curves, stage -> [(step, loss)], of the stages that came to their end."""
    curves: dict[int, list[tuple[int, float]]] = {s: [] for s in evaluated_stages(records)}
    for record in records:
        if record["kind"] == "outer" and record["stage"] in curves and record["loss"] is not None:
            curves[record["stage"]].append((record["step"], record["loss"]))
    return curves


def _grid(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the heat table: R of each architecture by stage, then its mean over the stages."""
    by_place = {(cell["arch"], cell["stage"]): cell["R"] for cell in summary["cells"]}
    return [
        {
            "arch": arch,
            "values": [by_place.get((arch, stage), math.nan) for stage in summary["stages"]],
            "R": summary["by_arch"][arch]["R"],
            "R_soft": summary["by_arch"][arch]["R_soft"],
        }
        for arch in summary["archs"]
    ]


def _rank_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the rank table: means over stages of each method's tau and regret, and its hits."""
    rows = []
    for method in summary["methods"]:
        ranks = [row for row in summary["ranks"] if row["method"] == method]
        if ranks:
            overall = {key: summary["overall"][key][method] for key in ("tau", "regret")}
            hits = sum(row["chosen"] == row["best"] for row in ranks)
            stages = [row["stage"] for row in ranks]
            rows.append({"method": method, "hits": hits, "stages": stages} | overall)
    return rows


def _heat(value: float) -> str:
    """Background for a gap recovery: blue for what is recovered, orange below zero."""
    if math.isnan(value):
        return "#f4f4f2"
    share = min(abs(value), 1.0)
    end = (74, 134, 190) if value >= 0 else (222, 143, 80)
    mixed = (round(255 + (e - 255) * share) for e in end)
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _shown(value: Any) -> str:
    if isinstance(value, str) and (os.path.isabs(value) or value.startswith("~")):
        return "…/" + Path(value).name
    return value if isinstance(value, str) else json.dumps(value)
