"""The board: the memory beside every rival, with the same rows, steps and trials of tuning.

    python -m benchmarks.board --config=configs/movielens_100k.py --config.data.path=FOLDER

For each --rates (slots per row) and method, learning rate and L2 are chosen for every architecture
on validation slices (the last tenth of each stage, kept from everything) from one grid, with
--tune_seeds; then --seeds are judged on the next stage. A method is a baseline (SELECTOR_hard or
SELECTOR_soft, see diet_jax/baselines.py), a variant of the distillation (VARIANTS below), or
VARIANT_hard, its memory with labels rounded and weights one. What is done is kept in
benchmarks/results/board/NAME.jsonl and not done again; the table goes to docs/board/NAME.md.
"""

import hashlib
import itertools
import json
import time
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from scipy import stats

from benchmarks.windows import unlocked
from diet_jax.baselines import SURE
from diet_jax.files import replace_file, replace_text
from diet_jax.job import prepare
from diet_jax.record import software_versions
from diet_jax.run import begin, judge, rewrite, settle
from diet_jax.select import SELECTORS
from diet_jax.types import Config, Memory

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

ANY = [f"{s}_{labels}" for s in (*SELECTORS, "reservoir", "window") for labels in ("hard", "soft")]
LABELS = {"outer.label_share": 1.0, "outer.hide_above": 1.0}  # the outer loss on labels as they are
PLAIN = {"growth.select": "random", "inner.archs": ("DeepFM",), "memory.scratch": "stage"}
# Where a trajectory ends at any step, its mode is one_step.
MATCHING = {
    "gradient": "one_step",
    "distribution": "one_step",
    "trajectory": "random",
    "kernel": "one_step",
}
PROXIES = ("LR", "FM", "MLP", "DeepFM", "DCNv2")
# What all variants share but where they say otherwise, whatever the config has: a slot is one row.
BASE = {"memory.mix": 1, "inner.archs": ("LR", "DeepFM"), "outer.schedule": "constant"}
# What a config had when its board was begun: all methods on it learn from one teacher.
BEGUN = {
    name: {"teacher.arch": "MLP", "teacher.lr": 1e-3, "teacher.first_epochs": 2.0}
    for name in ("movielens_100k", "transfer")
}
COSINE = {"outer.schedule": "cosine"}
MIX4 = {"memory.mix": 4, "inner.archs": ("DeepFM",)}
VARIANTS = {
    "diet": {},
    "diet_cosine": COSINE,
    "diet_on_DeepFM_cosine": COSINE | {"inner.archs": ("DeepFM",)},  # the default, one row a slot
    **{f"diet_mix4_on_{arch}_cosine": MIX4 | COSINE | {"inner.archs": (arch,)} for arch in PROXIES},
    "rat_bptt_teacher_cosine": PLAIN | COSINE,
    "rat_bptt_mix4_teacher_cosine": PLAIN | MIX4 | COSINE,
    "diet_labels": LABELS,
    **{f"diet_on_{arch}": {"inner.archs": (arch,)} for arch in PROXIES},
    "diet_mix4": {"memory.mix": 4},
    **{f"diet_mix{m}_on_DeepFM": MIX4 | {"memory.mix": m} for m in (4, 8)},
    # Random rows, mixed by their labels, with the teacher's as they are: what mixing alone gives.
    "random_mix4_soft": {
        "memory.mix": 4,
        "growth.select": "random",
        "growth.rounds": 1,
        "outer.steps": 1,
        "outer.lr": 0.0,
    },
    **{f"diet_{name}": {"growth.select": name} for name in ("random", "el2n", "grand", "tracin")},
    "rat_bptt_labels": PLAIN | LABELS,
    "rat_bptt_teacher": PLAIN,
    "bptt_labels": PLAIN | LABELS | {"inner.mode": "full"},
    "bptt_teacher": PLAIN | {"inner.mode": "full"},
    **{
        f"{name}_{target}": change | {"outer.objective": name, "inner.mode": mode}
        for name, mode in MATCHING.items()
        for target, change in (("labels", PLAIN | LABELS), ("teacher", PLAIN))
    },
    "one_step_labels": PLAIN | LABELS | {"inner.mode": "one_step"},
    "one_step_teacher": PLAIN | {"inner.mode": "one_step"},
}
# Of which the difference is told beside that to `diet`.
PAIRS = (
    ("diet_mix4_on_DeepFM_cosine", "rat_bptt_mix4_teacher_cosine"),
    ("diet_cosine", "rat_bptt_teacher_cosine"),
    ("diet_on_DeepFM_cosine", "rat_bptt_teacher_cosine"),
    ("diet_cosine", "diet"),
    ("rat_bptt_teacher_cosine", "rat_bptt_teacher"),
)
ALSO_HARD = ("diet", "rat_bptt_teacher")

# A value that a key has now, and what stood for it when the first cells were made (None: nothing).
SINCE = {
    "resident_mebibytes": (1024, None),
    "data.more_labels": ([], None),
    "memory.mix": (1, None),
    "inner.unroll": (0, None),
    "memory.budget": (0, None),
    "checkpoint.every": (10.0, None),
    "outer.schedule": ("constant", None),
    "addressing.swap_share": (0.0, None),
    "outer.learn": (["label_logit", "log_weight", "mix"], ["label_logit", "log_weight"]),
}

CONFIG = config_flags.DEFINE_config_file("config", None, "The config of the log.")
RATES = flags.DEFINE_list("rates", "0.01,0.02", "Slots per row.")
SEEDS = flags.DEFINE_list("seeds", "0,1,2,3,4", "Seeds of everything.")
TUNE = flags.DEFINE_list("tune_seeds", "0", "Seeds with which rates are chosen.")
METHODS = flags.DEFINE_list("methods", [*ANY, *VARIANTS], "Baselines and variants.")
LRS = flags.DEFINE_list("lrs", "0.00125,0.0025,0.005,0.01,0.02,0.04,0.08,0.16", "Their grid.")
L2 = flags.DEFINE_list("l2", "0,0.03,0.1,0.3,1", "That of L2 on embeddings.")
MEASURE = flags.DEFINE_bool("measure", True, "--nomeasure only renders the cells that are there.")
ROOT = flags.DEFINE_string("root", ".", "Folder that holds benchmarks/ and docs/.")

# On the next stage; on the stage just seen, and the mean over those before.
FIGURES = ("auc", "logloss", "auc_current", "auc_past")

Rates = dict[tuple[str, str], tuple[float, float]]  # (method, architecture) -> learning rate, L2


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    file = Path(ROOT.value) / "benchmarks" / "results" / "board" / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    baselines = tuple(m for m in METHODS.value if m not in VARIANTS)
    groups = [baselines] * bool(baselines) + [(m,) for m in METHODS.value if m in VARIANTS]
    phases = [("tune", int(s)) for s in TUNE.value] + [("test", int(s)) for s in SEEDS.value]
    for rate, group, (phase, seed) in itertools.product(map(float, RATES.value), groups, phases):
        config = unlocked(CONFIG.value)
        config.memory.rate, config.seed = rate, 0
        config.update_from_flattened_dict(BASE | BEGUN.get(name, {}) | VARIANTS.get(group[0], {}))
        about = {"rate": rate, "config": digest(config), "phase": phase, "seed": seed}
        config.seed, config.eval.on = seed, "validation" if phase == "tune" else "next"
        mine = [x for x in read(file) if (x["rate"], x["config"]) == (rate, about["config"])]
        done = {x["method"] for x in mine if (x["phase"], x["seed"]) == (phase, seed)}
        todo = [name for name in names_of(group, phase) if name not in done]
        if todo and MEASURE.value:
            lines = tune(config, todo) if phase == "tune" else test(config, todo, choose(mine))
            with open(file, "a") as out:
                out.write("".join(json.dumps(about | line) + "\n" for line in lines))
            print(f"{name}: {rate:g} {phase} {seed}: {', '.join(todo)[:60]}", flush=True)
    render(name, [line for line in read(file) if line["phase"] == "test"])


def digest(config: Config) -> str:
    """By which a cell is known: what was asked for, but not where the log lies on this machine, and
    not the rates that are chosen here.

    A config that says with newer keys what it once said without them keeps its digest.
    """
    said = json.loads(config.to_json())
    said["data"]["path"] = ""
    for block in ("lr", "l2"):
        said["eval"][block] = {"full": said["eval"][block]["full"]}
    for name, (now, before) in SINCE.items():
        *block, key = name.split(".")
        where = said[block[0]] if block else said
        if where[key] == now:
            where[key] = before
        if where[key] is None:
            del where[key]
    said = {key: value for key, value in said.items() if value != {}}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def names_of(group: tuple[str, ...], phase: str) -> tuple[str, ...]:
    """The methods that a group gives: baselines, or a variant and its hard form. The reference on
    all rows comes with baselines; its rates are the config's, from the same grid."""
    if group[0] not in VARIANTS:
        return (*group, "full") if phase == "test" else group
    return (*group, f"{group[0]}_hard") if group[0] in ALSO_HARD else group


def turns(config: Config, names: list[str]):
    """The job, and after each stage its number, the state to judge and the seconds so far."""
    variant = next((name for name in names if name.removesuffix("_hard") in VARIANTS), "")
    job = prepare(config, rivals=() if variant else tuple(n for n in names if n != "full"))
    state, seconds = job.first, 0.0
    for number in range(1, len(job.steps) + 1):
        began = time.perf_counter()
        turn = begin(job, state, number)
        memory = state.memory
        if variant:
            memory, _ = rewrite(job, state, turn, lambda step, loss: None)
        state = judged = settle(job, state, turn, memory)
        seconds += time.perf_counter() - began
        if variant:
            shown = {name: harden(memory) if name not in VARIANTS else memory for name in names}
            copies = len(config.eval.seeds)
            judged = state._replace(baselines={n: (m,) * copies for n, m in shown.items()})
        yield job, number, judged, seconds


def harden(memory: Memory) -> Memory:
    """Labels rounded, weights one."""
    logit = np.where(memory.label_logit > 0, SURE, -SURE).astype(np.float32)
    return memory._replace(label_logit=logit, log_weight=np.zeros_like(memory.log_weight))


def tune(config: Config, names: list[str]) -> list[dict]:
    """For each method a line with the grid: [architecture, lr, l2, mean AUC over stages]."""
    found = defaultdict(list)
    for job, number, state, _ in turns(config, names):
        for lr, l2 in itertools.product(map(float, LRS.value), map(float, L2.value)):
            plan = job.evaluation._replace(rates=lambda method, arch, lr=lr, l2=l2: (lr, l2))
            for r in judge(job._replace(evaluation=plan), state, number, names):
                found[r["method"], r["arch"], lr, l2].append(r["auc"])
    grids = defaultdict(list)
    for (method, arch, lr, l2), aucs in found.items():
        grids[method].append([arch, lr, l2, round(float(np.mean(aucs)), 6)])
    return [{"method": method, "grid": grid} for method, grid in grids.items()]


def choose(lines: list[dict]) -> Rates:
    """The rates of the highest mean AUC over the tuning seeds, of equals the first."""
    found = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for arch, lr, l2, auc in line.get("grid", []):
            found[line["method"], arch][lr, l2].append(auc)
    return {key: max(grid, key=lambda r: float(np.mean(grid[r]))) for key, grid in found.items()}


def test(config: Config, names: list[str], best: Rates) -> list[dict]:
    """For each method a line: by architecture the rates and, by stage, the figures of FIGURES."""
    lines: dict[str, dict] = {
        n: {"method": n, "rates": {}, **{what: {} for what in FIGURES}} for n in names
    }
    for job, number, state, seconds in turns(config, names):

        def rates(method, arch, job=job):
            return best.get((method, arch)) or job.evaluation.rates(method, arch)

        found = defaultdict(list)
        plan = job.evaluation._replace(rates=rates)
        for r in judge(job._replace(evaluation=plan), state, number, names):
            found[r["method"], r["arch"]].append(r)
        for (method, arch), records in found.items():
            line = lines[method]
            line["rates"][arch], line["seconds"] = rates(method, arch), round(seconds, 1)
            for what in FIGURES:
                if what in records[0]:  # of past stages there are none at first
                    mean = round(float(np.mean([r[what] for r in records])), 6)
                    line[what].setdefault(arch, []).append(mean)
    return list(lines.values())


def render(name: str, lines: list[dict]) -> None:
    """The table and the figure of all cells that are there."""
    folder = Path(ROOT.value) / "docs" / "board"
    folder.mkdir(parents=True, exist_ok=True)
    env = software_versions()
    text = [f"# {name}", ""]
    text += [
        "Written by `python -m benchmarks.board`; see its first lines for the protocol. AUC on the",
        "next stage, mean over architectures and stages; ± is the standard deviation over seeds.",
        "R: share of the gap from random rows with their own labels to full data; R_soft: from",
        "random rows with the teacher's labels. Behind: AUC of `diet` minus that of the method by",
        "seed, with a 95 % interval (Student's t). tau: Kendall's, between the architectures by",
        "the method and by full data with the other seeds, mean over seeds; that of full data is",
        f"the most there is to reach. JAX {env['jax']}, CPU.",
    ]
    fig, axes = plt.subplots(1, len(RATES.value), figsize=(6 * len(RATES.value), 9), squeeze=False)
    for rate, axis in zip(map(float, RATES.value), axes[0], strict=True):
        mine = [line for line in lines if line["rate"] == rate]
        by_seed: dict[str, dict[int, float]] = defaultdict(dict)
        for line in mine:
            by_seed[line["method"]][line["seed"]] = float(np.mean([*line["auc"].values()]))
        rows = table(by_seed, ranks(mine))
        head = "| method | AUC | R | R_soft | tau | behind diet | seeds |"
        text += ["", f"## {100 * rate:g} % of the rows", "", head, "|---" * 7 + "|"]
        text += [f"| {' | '.join(row)} |" for row in rows]
        if any(line.get("auc_past") for line in mine):
            text += ["", *forgetting(mine, [row[0].strip("`") for row in rows])]
        gaps = [(*pair, ahead(by_seed, *pair)) for pair in PAIRS]
        told = [f"- `{a}` minus `{b}`, by seed: {gap}" for a, b, gap in gaps if gap]
        text += ["", *told] if told else []
        text += transfer(mine)
        missing = [m for m in METHODS.value if m not in by_seed]
        text += ["", f"Missing: {', '.join(missing)}."] if missing else []
        draw(axis, f"{name}, {100 * rate:g} %", by_seed)
    fig.tight_layout()
    replace_file(folder / f"{name}.svg", lambda draft: fig.savefig(draft, format="svg"))
    replace_text(folder / f"{name}.md", "\n".join([*text, "", f"![AUC by method]({name}.svg)", ""]))


def forgetting(lines: list[dict], methods: list[str]) -> list[str]:
    """Stage by stage and after the last one, means over architectures and seeds."""
    whole = [line for line in lines if line.get("auc_past")]
    n = max(len(aucs) for line in whole for aucs in line["auc"].values())
    heads = [f"stage {s}" for s in range(1, n + 1)] + ["last seen", "past", "H-mean"]
    text = [
        "AUC on the next stage after each stage; then, after the last, on the stage just seen, the",
        "mean over those before it, and the harmonic mean of that and of the next stage's.",
        "",
        f"| method | {' | '.join(heads)} |",
        "|---" * (1 + len(heads)) + "|",
    ]
    for method in methods:
        mine = [line for line in whole if line["method"] == method]
        if mine:
            by_stage = np.mean([[*line["auc"].values()] for line in mine], (0, 1))
            seen, past = (
                float(np.mean([[x[-1] for x in line[what].values()] for line in mine]))
                for what in ("auc_current", "auc_past")
            )
            both = stats.hmean([by_stage[-1], past])
            cells = " | ".join(f"{x:.4f}" for x in (*by_stage, seen, past, both))
            text.append(f"| `{method}` | {cells} |")
    return text


def transfer(lines: list[dict]) -> list[str]:
    """AUC of each architecture trained on memories that were distilled with one proxy alone."""
    text = []
    for family in ("diet_on_{}", "diet_mix4_on_{}_cosine"):
        names = {proxy: family.format(proxy) for proxy in PROXIES}
        found = {
            proxy: [line["auc"] for line in lines if line["method"] == name]
            for proxy, name in names.items()
        }
        found = {proxy: aucs for proxy, aucs in found.items() if aucs}
        if len(found) < 3:
            continue
        archs = list(next(iter(found.values()))[0])
        means = {
            p: {a: float(np.mean([x[a] for x in aucs])) for a in archs} for p, aucs in found.items()
        }
        text += [
            "",
            f"Transfer: AUC of each architecture (columns) trained on `{family.format('...')}`,",
            "distilled with one proxy alone (rows). Lost: how much better a target does on",
            "a memory distilled with itself, mean over the other proxies' architectures.",
            "",
            f"| | {' | '.join(archs)} | lost |",
            "|---" * (2 + len(archs)) + "|",
        ]
        for proxy, aucs in means.items():
            others = [means[a][a] - aucs[a] for a in archs if a in means and a != proxy]
            cells = [f"{aucs[a]:.4f}" for a in archs]
            text.append(f"| {proxy} | {' | '.join(cells)} | {np.mean(others):+.4f} |")
    return text


def ranks(lines: list[dict]) -> dict[str, list[float]]:
    """By method, for each seed tau_b between its architectures and full data's of other seeds."""
    full = {x["seed"]: x["auc"] for x in lines if x["method"] == "full"}
    found = defaultdict(list)
    for line in lines:
        others = [auc for seed, auc in full.items() if seed != line["seed"]]
        if others:
            aucs = [float(np.mean(x)) for x in line["auc"].values()]
            means = [float(np.mean([o[a] for o in others])) for a in line["auc"]]
            tau, _ = stats.kendalltau(aucs, means)
            found[line["method"]].append(float(tau))  # pyright: ignore[reportArgumentType]
    return found


def ahead(by_seed: dict[str, dict[int, float]], one: str, other: str) -> str:
    """By how much, by the seeds that both have, with a 95 % interval; empty for less than two."""
    a, b = by_seed.get(one, {}), by_seed.get(other, {})
    gaps = np.array([a[seed] - b[seed] for seed in sorted(set(a) & set(b))])
    if len(gaps) < 2:
        return ""
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
    return f"{gaps.mean():+.4f} ({gaps.mean() - half:+.4f} .. {gaps.mean() + half:+.4f})"


def table(by_seed: dict[str, dict[int, float]], taus: dict[str, list[float]]) -> list[list[str]]:
    mean = {method: float(np.mean([*aucs.values()])) for method, aucs in by_seed.items()}
    rows = []
    for method in sorted(mean, key=lambda m: -mean[m]):
        aucs = by_seed[method]
        shown = [f"`{method}`", f"{mean[method]:.4f} ± {sd(aucs.values()):.4f}"]
        for base in ("random_hard", "random_soft"):
            known = {"full", base} <= set(mean)
            shown.append(f"{recovery(mean, method, base):.2f}" if known else "")
        tau = taus.get(method)
        shown.append(f"{np.mean(tau):.2f} ± {sd(tau):.2f}" if tau else "")
        shown.append("" if method == "diet" else ahead(by_seed, "diet", method))
        rows.append([*shown, str(len(aucs))])
    return rows


def recovery(mean: dict[str, float], method: str, base: str) -> float:
    return (mean[method] - mean[base]) / (mean["full"] - mean[base])


def sd(values) -> float:
    return float(np.std([*values], ddof=1)) if len(values) > 1 else 0.0


def draw(axis, title: str, by_seed: dict[str, dict[int, float]]) -> None:
    order = sorted(by_seed, key=lambda m: np.mean([*by_seed[m].values()]))
    for y, method in enumerate(order):
        values = [*by_seed[method].values()]
        color = "#0072b2" if method.startswith("diet") else "#d55e00" if "soft" in method else "0.5"
        axis.errorbar(np.mean(values), y, xerr=sd(values), fmt="o", color=color, markersize=4)
    axis.set_yticks(range(len(order)), order, fontsize=7)
    axis.set_xlabel("AUC on the next stage")
    axis.set_title(title)
    axis.grid(axis="x", alpha=0.3)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
