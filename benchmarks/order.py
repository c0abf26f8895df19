"""How well subsets rank models as full data does, run by run, from records of `diet_jax.evaluate`.

    python -m benchmarks.order --trials=benchmarks/results/zoo/simulator_teachers.jsonl

Prints for every run and method the mean AUC, Kendall's tau of one trial a model (the mean over
trials) and of the mean of all trials, the pairs in order, and the regret (`diet_jax.ranking`).
Of several rates and starts the best of a run counts, or, with --together, of all runs; --full
names the records of full data if they are not among the trials.
"""

import itertools

import numpy as np
from absl import app, flags

from diet_jax.evaluate import best, latest
from diet_jax.ranking import agreement
from diet_jax.record import read_records
from diet_jax.report.zoo import at, board, place
from diet_jax.summary import METHODS

TRIALS = flags.DEFINE_list("trials", None, "Files of records.", required=True)
FULL = flags.DEFINE_list("full", [], "Files with full data's.")
TOGETHER = flags.DEFINE_bool("together", False, "Choose rates for all runs together.")


def main(_) -> None:
    records = [r for file in TRIALS.value for r in read_records(file)]
    others = [r for file in FULL.value for r in read_records(file)]
    specs = {r["variant"]: r["spec"] for r in records}
    names = sorted(specs)

    def chosen(some: list[dict]) -> list[dict]:
        rates = best(latest(some), specs)
        return [r for r in latest(some) if at(r) == rates[place(r)]]

    (full,) = board(
        chosen([r for r in others or records if r["method"] == "full"]), "full", names
    ).values()
    print(
        "| run | | mean AUC | tau of one trial | of their mean | pairs in order | regret |",
        "|---" * 7 + "|",
        sep="\n",
    )
    runs = sorted({r["run"] for r in records})
    groups = [runs] if TOGETHER.value else [[run] for run in runs]
    for method, group in itertools.product([m for m in METHODS if m != "full"], groups):
        mine = [r for r in records if r["method"] == method and r["run"] in group]
        for run, aucs in board(chosen(mine), method, names).items():
            each = [agreement(full, aucs[:, [k]], draws=1) for k in range(aucs.shape[1])]
            whole = agreement(full, aucs, draws=1)
            cells = [f"{aucs.mean():.4f}", f"{np.mean([a['tau'] for a in each]):.2f}"]
            cells += [
                f"{whole['tau']:.2f}",
                f"{100 * whole['separable']:.0f} % of {whole['pairs']}",
            ]
            print(f"| {run} | {METHODS[method]} | {' | '.join(cells)} | {whole['regret']:.4f} |")
    ceiling = agreement(full, full, draws=1)["ceiling"]
    print(f"| | full data | {full.mean():.4f} | {ceiling:.2f} | | | |")


if __name__ == "__main__":
    app.run(main)
