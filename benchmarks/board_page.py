"""The page of a board: its tables by method, stage and proxy, and its figure."""

from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

from diet_jax.files import replace_file, replace_text

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

# Of which the difference is told beside that to `diet`.
PAIRS = (
    ("diet_mix4_on_DeepFM_cosine", "rat_bptt_mix4_teacher_cosine"),
    ("diet_cosine", "rat_bptt_teacher_cosine"),
    ("diet_on_DeepFM_cosine", "rat_bptt_teacher_cosine"),
    ("diet_cosine", "diet"),
    ("rat_bptt_teacher_cosine", "rat_bptt_teacher"),
)


def render(
    folder: Path,
    name: str,
    rates: list[float],
    methods: list[str],
    mixes: dict[str, int],
    lines: list[dict],
) -> None:
    """NAME.md and NAME.svg in the folder: all cells that are there, and which of them are not.

    mixes: by method, the rows that a slot names, 1 where nothing is said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = [f"# {name}", ""]
    text += [
        "Written by `python -m benchmarks.board`; see its first lines for the protocol. AUC on the",
        "next stage, mean over architectures and stages; ± is the standard deviation over seeds.",
        "R: share of the gap from random rows with their own labels to full data; R_soft: from",
        "random rows with the teacher's labels. Behind: AUC of `diet` minus that of the method by",
        "seed, with a 95 % interval (Student's t). tau: Kendall's, between the architectures by",
        "the method and by full data with the other seeds, mean over seeds; that of full data is",
        f"the most there is to reach. {made_with(lines)}.",
    ]
    fig, axes = plt.subplots(1, len(rates), figsize=(6 * len(rates), 9), squeeze=False)
    for rate, axis in zip(rates, axes[0], strict=True):
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
        missing = [m for m in methods if m not in by_seed]
        text += ["", f"Missing: {', '.join(missing)}."] if missing else []
        draw(axis, f"{name}, {100 * rate:g} %", by_seed)
    text += by_bytes(lines, mixes)
    fig.tight_layout()
    replace_file(folder / f"{name}.svg", lambda draft: fig.savefig(draft, format="svg"))
    replace_text(folder / f"{name}.md", "\n".join([*text, "", f"![AUC by method]({name}.svg)", ""]))


def made_with(lines: list[dict]) -> str:
    """The environments of the cells; the first ones, on CPUs, do not tell theirs."""
    envs = [line["env"] for line in lines if "env" in line]
    told = {f"JAX {env['jax']}, {', '.join(sorted({*env['devices']}))}" for env in envs}
    older = f"{'older cells: ' if told else ''}CPU, versions not kept"
    return "; ".join(sorted(told) + [older] * (len(envs) < len(lines)))


def by_bytes(lines: list[dict], mixes: dict[str, int]) -> list[str]:
    """The same cells by the bytes of the ids that the slots name, as a share of the log's: beside
    them a label and a weight are little."""
    cells: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["method"] != "full":
            share = line["rate"] * mixes.get(line["method"], 1)
            cells[line["method"]][share].append(float(np.mean([*line["auc"].values()])))
    shares = sorted({share for row in cells.values() for share in row})
    if len(shares) < 2:
        return []
    text = [
        "",
        "## By bytes",
        "",
        "AUC by the bytes of the rows' ids in a memory, as a share of the log's: a slot that mixes",
        "M rows holds M of them, but for those that it shares. Sorted by the best.",
        "",
        f"| method | {' | '.join(f'{100 * share:g} %' for share in shares)} |",
        "|---" * (1 + len(shares)) + "|",
    ]
    for method in sorted(cells, key=lambda m: -max(np.mean(x) for x in cells[m].values())):
        row = [f"{np.mean(cells[method][s]):.4f}" if cells[method][s] else "" for s in shares]
        text.append(f"| `{method}` | {' | '.join(row)} |")
    return text


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
    judged = {arch: None for line in lines for arch in line["auc"]}  # in order
    for family in ("diet_on_{}", "diet_mix4_on_{}_cosine"):
        names = {proxy: family.format(proxy) for proxy in judged}
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
        shown = [f"`{method}`", with_spread([*aucs.values()], 4)]
        for base in ("random_hard", "random_soft"):
            known = {"full", base} <= set(mean)
            shown.append(f"{recovery(mean, method, base):.2f}" if known else "")
        tau = taus.get(method)
        shown.append(with_spread(tau, 2) if tau else "")
        shown.append("" if method == "diet" else ahead(by_seed, "diet", method))
        rows.append([*shown, str(len(aucs))])
    return rows


def recovery(mean: dict[str, float], method: str, base: str) -> float:
    return (mean[method] - mean[base]) / (mean["full"] - mean[base])


def with_spread(values: list[float], digits: int) -> str:
    """Their mean and, of more than one, the standard deviation."""
    more = f" ± {sd(values):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{more}"


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
