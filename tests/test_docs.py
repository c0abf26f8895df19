"""What the pages say to type is run: the program of docs/programs.md on a run of a toy log."""

import re

import cli
import polars as pl
import pytest
import toy

from diet_jax import run
from diet_jax.opened import open_run, rows_so_far, rows_that_judge, slots_in_use
from diet_jax.record import read_records
from diet_jax.types import InputError

PAGE = (cli.ROOT / "docs" / "programs.md").read_text()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    pl.DataFrame(toy.log()).write_parquet(folder / "log.parquet")
    config = toy.config(str(folder / "log.parquet"), **{"memory.mix": 2})
    run.run(config, str(folder / "run"), {})
    return folder / "run"


def test_the_programs_do_what_they_say(workdir, capsys):
    first, second = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    capsys.readouterr()
    names = {}
    exec(first.replace("runs/quickstart", str(workdir)), names)
    said = capsys.readouterr().out
    assert re.fullmatch(r"18 slots: 0\.\d{3}; 180 rows: 0\.\d{3}\n", said)
    assert float(said.split()[-1]) > 0.8  # the log is nearly decided by one field
    x, shares = names["one_hot"](names["memory"].ids, names["memory"].mix), 3
    assert x.sum(1) == pytest.approx(shares)  # of each of its fields a slot has one value in all
    exec(second, names)
    lines = capsys.readouterr().out.splitlines()
    measured = [
        f"{r['arch']} {r['seed']} {round(r['auc'], 4)} {r['steps']}"
        for r in read_records(workdir / "metrics.jsonl")
        if r["kind"] == "eval" and (r["method"], r["stage"]) == ("memory", 3)
    ]
    assert lines == measured and len(lines) == 2


def test_every_key_of_the_records_is_explained(workdir):
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", PAGE, re.MULTILINE))
    for record in read_records(workdir / "metrics.jsonl"):
        known = {"kind", "stage"} | set(re.findall(r"`(\w+)`", rows[record["kind"]]))
        assert record.keys() <= known, record.keys() - known


def test_a_run_is_opened_as_it_was_after_any_stage(workdir):
    found = open_run(workdir, 1)
    assert found.stage == 1 and found.state.memory.born.max() == 1
    assert len(slots_in_use(found).target) == 6 and len(rows_so_far(found).label) == 60
    ids = found.job.stream.stages[1].rows.ids
    assert rows_that_judge(found).ids.shape == ids.shape
    with pytest.raises(InputError, match=r"no checkpoint of stage 4, but of \[1, 2, 3\]"):
        open_run(workdir, 4)
