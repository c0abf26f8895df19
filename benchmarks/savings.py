"""What a run of one stage says of a memory's cost: what trials on it save, and what it took."""

import numpy as np

from diet_jax.record import Record
from diet_jax.summary import summarize

METHODS = ("full", "memory", "random_hard", "random_soft")


def line(records: list[Record]) -> dict[str, float | None]:
    """Fidelity and cost of one run of one stage; seconds. A memory that saves nothing is never paid
    for: None."""
    (stage,) = (r for r in records if r["kind"] == "stage")
    overall = summarize(records)["overall"]
    evals = [r for r in records if r["kind"] == "eval"]

    def mean(method: str, *what: str) -> float:
        """Over architectures and seeds, the sum of these seconds."""
        return float(np.mean([sum(r[w] for w in what) for r in evals if r["method"] == method]))

    distilling = sum(stage[f"seconds_{part}"] for part in ("teacher", "influence", "outer"))
    costs = {}
    for name, what in {"trial": ("seconds",), "first": ("seconds", "seconds_compile")}.items():
        full, memory = mean("full", *what), mean("memory", *what)
        costs |= {f"{name}_full": full, f"{name}_memory": memory, f"{name}_cheaper": full / memory}
        costs[f"{name}_break_even"] = distilling / (full - memory) if full > memory else None
    return {
        "slots": stage["slots"],
        **{method: overall["auc"][method] for method in METHODS},
        **{name: overall[name]["mean_of_ratios"] for name in ("R", "R_soft")},
        "distilling": distilling,
        **costs,
    }


def markdown(lines: list[dict]) -> str:
    head = ["rows", "slots", "full data", "memory", "random", "random + teacher", "R", "R_soft"]
    head += ["s a trial: full data", "memory", "cheaper", "with compiling", "s of distilling"]
    head += ["trials that pay for it", "with compiling"]
    out = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in lines:
        cells = [f"{row['rows']:,}", f"{row['slots']:,}"]
        cells += [f"{row[m]:.4f}" for m in METHODS] + [f"{row[r]:.2f}" for r in ("R", "R_soft")]
        cells += [f"{row['trial_full']:.2f}", f"{row['trial_memory']:.3f}"]
        cells += [f"{row[name + '_cheaper']:.1f}" for name in ("trial", "first")]
        cells += [f"{row['distilling']:.0f}"]
        paid = [row[name + "_break_even"] for name in ("trial", "first")]
        cells += ["never" if n is None else f"{n:.1f}" for n in paid]
        out.append(f"| {' | '.join(cells)} |")
    return "\n".join(out)
