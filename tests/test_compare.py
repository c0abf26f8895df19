"""A comparison over a zoo trains every variant on every subset once, and says how ranks agree."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import cli
import jax
import numpy as np
import polars as pl
import pytest
import toy
from absl.testing import flagsaver
from ml_collections import ConfigDict

from configs import default
from configs import zoo as published_zoo
from diet_jax import checkpoint, evaluate
from diet_jax.job import State, prepare
from diet_jax.models import MODELS
from diet_jax.opened import Run, open_run
from diet_jax.record import alone, append_records, read_records
from diet_jax.report import zoo as page
from diet_jax.report.zoo import Choice
from diet_jax.run import begin, extend, judge
from diet_jax.types import Busy, InputError

ENV = {"jax": "1", "device": "toy"}
SUBSETS = ("memory", "random_soft")


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """What one stage of a run of two evaluation seeds might leave: random rows as its memory."""
    root = tmp_path_factory.mktemp("runs")
    pl.DataFrame(toy.log()).write_parquet(root / "log.parquet")
    job = prepare(
        toy.config(str(root / "log.parquet"), **{"eval.seeds": (0, 4), "teacher.arch": "LR"})
    )
    turn = begin(job, job.first, 1)
    rivals = extend(job, job.first, turn)
    state = State(rivals["random_soft"][0], turn.look.params, rivals)
    return Run(root / "run", job, state, 1)


def grid(lrs=(), settings=(), dim=2, methods=("full", "memory", "random_soft")) -> ConfigDict:
    variants = {
        "LR": {"arch": "LR", "dim": 1, "hidden": ()},
        "FM": {"arch": "FM", "dim": dim, "hidden": ()},
    }
    found = {"methods": methods, "lrs": lrs, "l2s": (), "settings": settings}
    return ConfigDict(found | {"variants": variants})


def measured(runs, zoo, chosen, done):
    return evaluate.measure(runs, zoo, evaluate.with_usual(chosen, runs[0], zoo), done)


def test_every_variant_is_trained_once_and_full_data_with_twice_the_seeds(memory):
    records = sum(measured([memory], grid(), {}, []), [])
    seeds = {"full": {0, 4, 5, 6}, "memory": {0, 4}, "random_soft": {0, 4}}
    assert len(records) == 2 * (4 + 2 + 2)
    for method, wanted in seeds.items():
        for name in ("LR", "FM"):
            mine = [r for r in records if (r["method"], r["variant"]) == (method, name)]
            assert {r["seed"] for r in mine} == wanted
            assert {(r["lr"], r["l2"]) for r in mine} == {memory.job.evaluation.rates(method, name)}
    own = [r["auc"] for r in judge(memory.job, memory.state, 1, ("memory",))]
    assert [r["auc"] for r in records if place(r) == ("memory", "LR")] == pytest.approx(own)
    assert not [*measured([memory], grid(), {}, records)]
    more = sum(measured([memory], grid(lrs=(0.5,)), {("full", "FM"): Choice(0.3, 0)}, records), [])
    assert {r["lr"] for r in more if place(r) == ("full", "FM")} == {0.3, 0.5}
    assert {r["lr"] for r in more if place(r) != ("full", "FM")} == {0.5}


def place(record):
    return record["method"], record["variant"]


def specs(zoo):
    return {name: evaluate.spec_of(spec) for name, spec in zoo.variants.items()}


def test_all_rows_are_trained_on_once_for_all_runs(memory):
    runs, zoo = [memory, memory._replace(folder=Path("other"))], grid(methods=("full", "memory"))
    records = sum(measured(runs, zoo, {}, []), [])
    for run, wanted in (("run", (8, 4)), ("other", (0, 4))):
        methods = [r["method"] for r in records if r["run"] == run]
        assert (methods.count("full"), methods.count("memory")) == wanted
    alone = [r | {"run": "other"} for r in records if r["method"] == "full"]  # of a call for it
    pages = (evaluate.ours(found, runs, specs(zoo)) for found in (records, records + alone))
    assert next(pages) == next(pages)


def test_records_of_other_runs_stages_configs_and_specs_are_told_apart(memory):
    zoo = grid(methods=("memory",))
    records = sum(measured([memory], zoo, {}, []), [])
    others = [
        {"run": "other"},
        {"stage": 2},
        {"config": records[0]["config"] + 1},
        {"spec": records[0]["spec"] | {"dim": 16}},
        {"variant": "LR 16"},
    ]
    strange = [r | other | {"auc": 0.0} for r in records for other in others]
    assert evaluate.ours(strange, [memory], specs(zoo)) == []
    assert evaluate.ours(strange + records, [memory], specs(zoo)) == records
    older = [{k: v for k, v in r.items() if k != "config"} for r in records]
    assert evaluate.ours(older, [memory], specs(zoo)) == records


def configured(memory, **change):
    config = memory.job.config.copy_and_resolve_references()
    config.update_from_flattened_dict(change)
    return memory._replace(job=memory.job._replace(config=config))


def test_the_config_tells_runs_apart_but_not_where_they_took_place(memory):
    changes = {"mesh.table": 2, "checkpoint.every": 0.5}, {"seed": 1}, {"memory.rate": 0.2}
    runs = [memory, *(configured(memory, **change) for change in changes)]
    marks = [evaluate.run_of(run)["config"] for run in runs]
    assert marks[0] == marks[1] and len(set(marks)) == 3
    shared = [evaluate.others_than_seed(run) for run in runs]
    assert shared[0] == shared[1] == shared[2] != shared[3]


def test_settings_are_tried_at_every_rate_and_obeyed_when_chosen(memory):
    zoo = grid(lrs=(0.5,), settings=("", "init_scale=3.0"))
    records = sum(measured([memory], zoo, {}, []), [])
    mine = [r for r in records if place(r) == ("memory", "FM") and r["lr"] == 0.5]
    small, large = ({r["auc"] for r in mine if r["setting"] == s} for s in zoo.settings)
    assert len(small) == len(large) == 2 and not small & large
    best = {("memory", "FM"): Choice(0.5, 0.0, "init_scale=3.0")}
    again = sum(measured([memory], grid(), best, []), [])
    assert {r["auc"] for r in again if place(r) == ("memory", "FM")} == large


def test_the_best_rates_are_those_of_the_highest_mean():
    aucs = {(0.1, 0.0): (0.6, 0.9), (0.2, 0.0): (0.7, 0.7), (0.2, 0.5): (0.8, 0.75)}
    records = [
        {"method": "memory", "variant": "FM", "spec": {"dim": 2}, "lr": lr, "l2": l2, "auc": auc}
        for (lr, l2), two in aucs.items()
        for auc in two
    ]
    mine = {"FM": {"dim": 2}}
    assert evaluate.best(records, mine) == {("memory", "FM"): Choice(0.2, 0.5)}
    records.append(records[0] | {"auc": 1.0, "lr": 0.3, "spec": {"dim": 16}})
    assert evaluate.best(records, mine) == {("memory", "FM"): Choice(0.2, 0.5)}
    records.append(records[0] | {"auc": 0.95, "setting": "init_scale=0.1"})
    assert evaluate.best(records, mine) == {("memory", "FM"): Choice(0.1, 0.0, "init_scale=0.1")}


@pytest.fixture
def compare(monkeypatch, memory, tmp_path):
    """f(zoo) -> of a comparison, the part of its page without seconds, and all lines of --out."""

    def compare(zoo, out="out", rates=(), run=memory):
        rates = [str(tmp_path / folder) for folder in rates]
        flags = {"MEMORY": [str(run.folder)], "ZOO": zoo, "RATES": rates, "OUT": tmp_path / out}
        for name, value in flags.items():
            monkeypatch.setattr(evaluate, name, SimpleNamespace(value=value))
        monkeypatch.setattr(evaluate, "open_run", {run.folder: run}.get)
        text = evaluate.compare().read_text()
        lines = (tmp_path / out / "trials.jsonl").read_text().splitlines()
        return text.split("## Every variant")[1], [json.loads(line) for line in lines]

    return compare


def test_a_page_shows_its_own_zoo_and_run_alone(compare, memory):
    zoo = grid(methods=SUBSETS)
    shown, records = compare(zoo)
    other, more = compare(grid(dim=3, methods=SUBSETS))
    assert len(more) == 1.5 * len(records)  # FM alone is another
    (fm, lr), (wide, same) = ([t.splitlines()[k] for k in (4, 5)] for t in (shown, other))
    assert lr == same and fm != wide  # which was trained as wide as it says
    assert compare(zoo) == (shown, more)
    plan = memory.job.evaluation._replace(steps=9)
    run = configured(
        memory._replace(job=memory.job._replace(evaluation=plan)), **{"inner.steps": 9}
    )
    again, most = compare(zoo, run=run)
    assert len(most) == len(more) + len(records) and again != shown
    assert compare(zoo) == (shown, most)


@pytest.mark.parametrize("cut", [-1, -7, None])
def test_what_a_kill_cut_off_is_done_anew(compare, tmp_path, cut):
    zoo, file = grid(methods=SUBSETS), tmp_path / "out" / "trials.jsonl"
    shown, records = compare(zoo)
    text = file.read_text()[:cut] if cut else file.read_text().rsplit("\n", 2)[0] + "\n"
    file.write_text(text)
    again, more = compare(zoo)
    assert again == shown
    assert more[: text.count("\n")] == records[: text.count("\n")]
    assert [(*place(r), r["seed"]) for r in more[-2:]] == [("random_soft", "LR", s) for s in (0, 4)]


def test_the_rates_of_earlier_comparisons_are_used(compare, tmp_path):
    zoo = grid(methods=("memory",))
    usual = compare(zoo)[1]
    for folder, lr, auc in (("tuned", 0.3, 0.9), ("more", 0.2, 0.8)):
        (tmp_path / folder).mkdir()
        found = [r | {"lr": lr, "auc": auc} for r in usual]
        append_records(tmp_path / folder / "trials.jsonl", found)
    others = [r | {"spec": {}, "lr": 7.0, "auc": 1.0} for r in usual]
    append_records(tmp_path / "more" / "trials.jsonl", others)
    records = compare(zoo, "chosen", ("more", "tuned"))[1]
    assert [r["lr"] for r in records] == [0.3] * 4
    assert not {r["auc"] for r in records} & {r["auc"] for r in usual}  # and trained with
    with pytest.raises(InputError, match="rates of FM on memory for another spec than .*'dim': 3"):
        compare(grid(dim=3, methods=("memory",)), "chosen", ("more", "tuned"))


def test_two_comparisons_do_not_write_one_folder(compare, tmp_path):
    zoo = grid(methods=("memory",))
    shown, records = compare(zoo)
    with alone(tmp_path / "out"), pytest.raises(Busy, match="another process writes to .*out"):
        compare(zoo)
    assert compare(zoo) == (shown, records)


def test_the_published_zoo_has_two_dozen_variants_of_known_architectures():
    for how in ("", "tune", "tune_full"):
        variants = published_zoo.get_config(how).variants
        assert len(variants) >= 24 and {v.arch for v in variants.values()} <= set(MODELS)
    with pytest.raises(InputError, match="no 'tunee'; choose from tune, tune_fine, tune_full"):
        published_zoo.get_config("tunee")


def test_published_results_can_be_read(memory, tmp_path):
    """They name no config."""
    zoo = published_zoo.get_config()
    file = cli.ROOT / "benchmarks/results/zoo/movielens_100k_2.jsonl"
    records, runs = read_records(file), [memory._replace(folder=Path(f"m{k}")) for k in range(3)]
    chosen, mine = evaluate.best(records, specs(zoo)), evaluate.ours(records, runs, specs(zoo))
    assert len(mine) == len(records) == 792 and len(chosen) == 4 * len(zoo.variants)
    text = page.write(tmp_path, mine, specs(zoo), chosen, ENV).read_text()
    assert "24 variants, 3 memories" in text and "nan" not in text


def test_a_run_is_opened_on_the_devices_at_hand(memory, tmp_path):
    mesh = {"mesh.trajectory": 3, "mesh.data": 5, "mesh.table": 2}
    config = configured(memory, **mesh).job.config
    (tmp_path / "metrics.jsonl").write_text('{"kind": "stage", "stage": 1}\n')
    with pytest.raises(InputError, match="holds no finished run"):
        open_run(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "run"}\n')
    for _ in range(2):
        with pytest.raises(InputError, match="holds no readable config.json"):
            open_run(tmp_path)
        (tmp_path / "config.json").write_text("{")
    (tmp_path / "config.json").write_text(config.to_json())
    with pytest.raises(InputError, match="has no checkpoint of stage 1"):
        open_run(tmp_path)
    checkpoint.save(tmp_path, 1, memory.state, {})
    (tmp_path / "log.json").write_text('{"key": "another"}')
    with pytest.raises(InputError, match="holds a run on another log"):
        open_run(tmp_path)
    (tmp_path / "log.json").write_text(json.dumps({"key": memory.job.stream.key}))
    found = open_run(tmp_path)
    assert (
        found.job.config.mesh.to_dict() == default.get_config().mesh.to_dict() and found.stage == 1
    )
    jax.tree.map(np.testing.assert_array_equal, found.state, memory.state)
    assert evaluate.others_than_seed(found) == evaluate.others_than_seed(memory)


def test_each_zoo_has_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(cli.ROOT)
    monkeypatch.setattr(sys, "argv", [])
    (tmp_path / "mine.py").write_text("from configs.zoo import get_config")
    for file, name in (
        ("configs/zoo.py", "zoo"),
        ("configs/zoo.py:tune", "zoo_tune"),
        (f"{tmp_path}/mine.py", "mine"),
    ):
        with flagsaver.flagsaver():
            evaluate.parse(["evaluate", "--memory=run", f"--zoo={file}"])
            assert evaluate.name_of("zoo") == name


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "holds no finished run"),
        (("--rates=nowhere",), "nowhere/trials.jsonl does not exist"),
        (("--zoo=nope.py",), "the file of --zoo cannot be read: .*nope.py"),
        (("--zoo=configs/zoo.py:tunee",), "no 'tunee'"),
        (("--zoo.methodss=full",), "methodss"),
        (("--zoo.methods=memry",), "zoo.methods has 'memry'; choose from full, memory"),
        (("--config=configs/quickstart.py",), "--config has no part in this"),
    ],
)
def test_a_bad_command_line_ends_with_one_line(monkeypatch, capsys, tmp_path, args, words):
    monkeypatch.chdir(cli.ROOT)
    monkeypatch.setattr(sys, "argv", [])
    args = ["evaluate", f"--memory={tmp_path}", "--zoo=configs/zoo.py", *args]
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as caught:
        evaluate.main(evaluate.parse(args))
    out, err = capsys.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    assert re.match(f"error: .*{words}", err), err


def synthetic(order, noise):
    """Records of three variants on full data, and on a memory that ranks them by `order`."""
    rng = np.random.default_rng(0)
    records = []
    for run_name in ("a", "b"):
        for method, base, seeds in (
            ("full", 0.70, 4),
            ("memory", 0.65, 2),
            ("random_hard", 0.6, 2),
        ):
            for k, name in enumerate(("x", "y", "z")):
                at = order[k] if method == "memory" else k
                for lr, loss in ((0.1, 0.0), (0.2, 0.005)):
                    for seed in range(seeds):
                        auc = base + 0.01 * at - loss + noise * rng.normal()
                        record = {"auc": auc, "gauc": auc, "logloss": 0.5, "ece": 0.1}
                        record |= {"seconds": 9.0 if method == "full" else 1.0, "lr": lr, "l2": 0.0}
                        record |= {"seconds_compile": float(run_name == "a"), "ctr_ratio": 1.0}
                        about = {"seed": seed, "run": run_name, "method": method, "variant": name}
                        about |= {"arch": name, "stage": 1}
                        records.append(record | about)
    return records


@pytest.mark.parametrize(
    ("order", "tau"), [((0, 1, 2), "1.00 ± 0.00"), ((2, 1, 0), "-1.00 ± 0.00")]
)
def test_the_page_says_how_the_ranks_agree_and_what_it_cost(tmp_path, order, tau):
    records = synthetic(order, 1e-6)
    chosen = {(m, n): Choice(0.1, 0.0) for m in ("full", "memory", "random_hard") for n in "xyz"}
    variants = {name: {"arch": "LR"} for name in "xyz"}
    text = page.write(tmp_path, records, variants, chosen, ENV).read_text()
    rows = {tuple(line.split(" | "))[0]: line for line in text.splitlines() if line.startswith("|")}
    ranks = next(line for line in text.splitlines() if line.startswith(f"| memory | {tau}"))
    assert "| 1.00 |" in ranks  # the ceiling
    assert ("100 % of 3" in ranks) == (order == (0, 1, 2))
    assert "| full data | 0.7100 |  |  |  | 27.0 |  | 3 |" in text
    # Half of the way from random rows; of those with the teacher's labels there are none.
    assert "| memory | 0.6600 | 0.0500 | 0.50 |  | 3.0 | 9 x | 3 |" in text
    assert "| memory | 100 % | 0.0000 |" in text  # the best rate carries over
    assert rows["| x"].startswith("| x | 0.7000 ± 0.0000 |")
    assert (tmp_path / "zoo.svg").stat().st_size > 1000
    assert "died" not in text and "Set, as" not in text
    set_so = chosen | {("memory", "x"): Choice(0.1, 0.0, "dim=4")}
    assert "- dim=4 on memory: x\n" in "\n".join([*page.settings(set_so), ""])
    one = next(i for i, r in enumerate(records) if (r["method"], r["lr"]) == ("memory", 0.1))
    records[one] |= {"auc": 0.5, "gauc": 0.5}
    text = page.write(tmp_path, records, variants, chosen, ENV).read_text()
    assert "died, their model ordering no rows: 1." in text
    assert "x on memory, stage 1, seed 0 of a." in text
