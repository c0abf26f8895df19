"""Every bad input ends with one line that says what, where and the cure, and leaves nothing."""

import sys
from types import SimpleNamespace

import cli
import numpy as np
import polars as pl
import pytest
import toy
from absl.testing import flagsaver
from ml_collections import ConfigDict

from configs import quickstart
from diet_jax import command, main
from diet_jax.record import open_workdir

ROWS = 240


def log(**change):
    """Columns of a good log, but for some. A pair (row, value) changes one value."""
    columns = {name: values.tolist() for name, values in toy.log().items()}
    for name, (row, value) in change.items():
        columns[name] = list(columns[name])
        columns[name][row] = value
    return pl.DataFrame(columns, strict=False)


def without(column):
    return log().drop(column)


def one_class():
    label = np.arange(ROWS) % 2
    label[60:120] = 1  # the second of four stages
    return log().with_columns(label=pl.Series(label))


@pytest.fixture
def fails(monkeypatch, capsys, tmp_path):
    """f(config) -> the line that a run in this process ends with; nothing else is said or left."""

    def fails(config):
        workdir = tmp_path / "workdir"
        monkeypatch.setattr(command, "CONFIG", SimpleNamespace(value=config))
        monkeypatch.setattr(main, "WORKDIR", SimpleNamespace(value=str(workdir)))
        with pytest.raises(SystemExit) as caught:
            main.main(["diet_jax"])
        out, err = capsys.readouterr()
        assert caught.value.code == 2
        assert out == "" and not workdir.exists()
        return the_line(err)

    return fails


def the_line(err: str) -> str:
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    return err


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (without("price"), ("no column 'price'", "it has: user, item")),
        (without("label"), ("no column 'label'", "data.label")),
        (log(label=(3, 4)), ("row 4, column 'label'", "neither 0 nor 1", "data.threshold")),
        (log(label=(3, None)), ("row 4, column 'label'", "missing")),
        (log(time=(5, "yesterday")).cast({"time": pl.String}), ("row 6, column 'time'", "'yester")),
        (log(time=(5, None)), ("row 6, column 'time'", "missing")),
        (log(price=(2, np.nan)), ("row 3, column 'price'", "finite", "fill or remove")),
        (log(price=(2, np.inf)), ("row 3, column 'price'", "inf", "finite")),
        (log().head(3), ("3 rows", "4 stages", "stages.count")),
        (one_class(), ("stage 2 of 4", "only label 1", "60 rows")),
        (log().clear(), ("no rows",)),
    ],
)
@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_bad_logs(fails, tmp_path, name, frame, words):
    path = tmp_path / name
    frame.write_csv(path) if name.endswith("csv") else frame.write_parquet(path)
    line = fails(toy.config(str(path), **{"data.max_rejected": 0.0}))
    for word in (str(path), *words):
        assert word in line


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_files_that_hold_nothing(fails, tmp_path, name):
    path = tmp_path / name
    assert "does not exist" in fails(toy.config(str(path)))
    path.touch()
    assert "empty" in fails(toy.config(str(path)))
    assert "data.path" in fails(toy.config(""))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data.source": "kafka"}, ("data.source", "'kafka'")),
        ({"stages.count": 1}, ("one stage", "stages.count")),
        ({"stages.fractions": (0.5, 0.2)}, ("stages.fractions", "sum")),
        ({"stages.fractions": ("a",)}, ("stages.fractions has 'a'", "positive shares")),
        ({"inner.archs": ("BERT",)}, ("'BERT'", "DeepFM")),
        ({"inner.archs": ()}, ("inner.archs", "at least one")),
        ({"inner.l2.default": -1.0}, ("inner.l2 is", "-1.0", "0 or more")),
        ({"eval.lr.memory.default": 0.0}, ("eval.lr.memory is", "'default': 0.0", "above 0")),
        ({"eval.l2.full": ConfigDict({"FM": 0.1})}, ("eval.l2.full is", "a table with `default`")),
        ({"eval.seeds": (1, 4_000_000_000)}, ("eval.seeds is", "2^30")),
        ({"teacher.hidden": (8, 0)}, ("teacher.hidden is", "1 or more")),
        ({"teacher.arch": "LR", "teacher.more": ("LR",)}, ("teacher.more is", "distinct names")),
        ({"teacher.arch": "BERT"}, ("'BERT'", "DeepFM")),
        ({"eval.archs": ("LR", "BERT")}, ("'BERT'", "DeepFM")),
        ({"inner.window": 9}, ("inner.window is 9", "inner.steps")),
        ({"inner.window": 0}, ("inner.window is 0",)),
        ({"outer.learn": ("ids",)}, ("outer.learn", "label_logit")),
        ({"outer.learn": ()}, ("outer.learn",)),
        ({"outer.learn": ("mix",)}, ("outer.learn", "more than mix")),
        ({"outer.learn": ("rates",), "inner.mode": "one_step"}, ("outer.learn", "without rates")),
        ({"outer.first_factor": 0.0}, ("outer.first_factor is 0.0", "above 0")),
        (
            {"memory.mix": 4, "memory.rate": 0.3, "growth.pool": 80},
            ("stage 1 has 60 rows", "18 new slots", "72"),
        ),
        ({"memory.rate": 2.0}, ("memory.rate is 2.0", "between 0 and 1")),
        ({"growth.pool": 33}, ("growth.pool is 33", "growth.block")),
        ({"seed": -1}, ("seed is -1",)),
        ({"growth.rounds": 1, "memory.rate": 0.5}, ("growth.pool", "too few candidates")),
        ({"eval.seeds": (1, 1)}, ("eval.seeds", "distinct")),
        ({"eval.seeds": (-1,)}, ("eval.seeds", "from 0")),
        ({"inner.hidden": (0,)}, ("inner.hidden", "1 or more")),
        ({"growth.spread_field": "colour"}, ("growth.spread_field 'colour'", "user, item, place")),
        ({"eval.on": "yesterday"}, ("eval.on", "validation")),
        (
            {"eval.on": "validation", "eval.validation_share": 0.01},
            ("the last 1 of 60 rows of stage 1", "not both labels", "eval.validation_share"),
        ),
        ({"inner.optimizer": "lion"}, ("'lion'", "adagrad")),
        ({"inner.eps_root": 0.0}, ("eps_root", "positive")),
        ({"inner.mode": "sometimes"}, ("inner.mode is 'sometimes'", "one_step")),
        ({"inner.start": "teacher"}, ("inner.start is 'teacher'", "archs and hidden")),
        ({"inner.compute": "int8"}, ("inner.compute is 'int8'", "bfloat16")),
        ({"inner.mebibytes": 0}, ("inner.mebibytes is 0",)),
        ({"resident_mebibytes": -1}, ("resident_mebibytes is -1", "0 or more")),
    ],
)
def test_bad_configs(fails, tmp_path, change, words):
    path = tmp_path / "log.parquet"
    log().write_parquet(path)
    line = fails(toy.config(str(path), **change))
    for word in words:
        assert word in line


def test_a_config_without_a_key(fails, tmp_path):
    path = tmp_path / "log.parquet"
    log().write_parquet(path)
    config = toy.config(str(path))
    with config.unlocked():
        del config.outer.schedule  # as in a run of a version that did not have it
    line = fails(config)
    assert "no key 'schedule'" in line and "configs/default.py" in line


def refusal(monkeypatch, capsys, *args):
    """The line that a command line is refused with, without a run."""
    argv = ["diet_jax", *args]
    monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for --config.KEY
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # a config of another test
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as caught:
        main.parse(argv)
    assert caught.value.code == 2
    return the_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--config.outer.stepss=5"], ("stepss", 'Did you mean "steps"')),
        (["--config.otter.steps=5"], ("otter", 'Did you mean "outer"')),
        (["--config.outer.steps=many"], ("config.outer.steps", "many")),
        (["--config.inner.mixed=perhaps"], ("config.inner.mixed", "perhaps")),
        (["--config.inner.lr.FM=fast"], ("config.inner.lr.FM", "fast")),
        (["--config.data.multi.tags=all"], ("config.data.multi.tags is no int", "'all'")),
        (["--config.inner.FM=0.1"], ("FM", "configs/default.py")),
        (["--config.inner.lrr.FM=0.1"], ("lrr", 'Did you mean "lr"')),
        (["--workdirr=x"], ("workdirr", "workdir")),
        (["distill"], ("distill",)),
    ],
)
def test_bad_command_lines(monkeypatch, capsys, args, words):
    line = refusal(
        monkeypatch, capsys, f"--config={cli.ROOT}/configs/default.py", "--workdir=never", *args
    )
    for word in words:
        assert word in line


OWN = "from configs import default\ndef get_config():\n    c = default.get_config()\n    "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN + "c.memory.ratee = 0.1\n    return c", ("line 4", "ratee", 'Did you mean "rate"')),
        (
            OWN + "c.data.dense = ('price')",
            ("line 4: TypeError: Could not override field 'dense'",),
        ),
        (OWN + "return 1 / 0", ("line 4: ZeroDivisionError: division by zero",)),
        (OWN + "raise ValueError('no file: Error: gone')", ("ValueError: no file: Error: gone",)),
        (OWN + "return {}['what']", ("line 4: KeyError: what",)),
        ("import nothing_of_that_name", ("line 1: ModuleNotFoundError: No module named",)),
        ("def get_config(:", ("line 1: invalid syntax",)),
        ("x = 1", ("--config has no function get_config()",)),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(
    monkeypatch, capsys, tmp_path, text, words
):
    file = tmp_path / "mine.py"
    file.write_text(text)
    line = refusal(monkeypatch, capsys, f"--config={file}", "--workdir=never")
    for word in words if "get_config" in words[0] else (str(file), *words):
        assert word in line


def test_a_rate_can_be_given_for_an_architecture_that_the_config_does_not_name(monkeypatch):
    argv = ["diet_jax", f"--config={cli.ROOT}/configs/default.py", "--workdir=never"]
    argv += ["--config.inner.lr.FM=0.04", "--config.eval.l2.memory.DCNv2=1", "--config.seed=3"]
    argv += ["--config.data.multi.tags=3", "--config.data.scale.price=log"]
    monkeypatch.setattr(sys, "argv", argv)
    with flagsaver.flagsaver():
        assert main.parse(argv) == ["diet_jax"]
        config = command.CONFIG.value
    assert config.data.multi.to_dict() == {"tags": 3} and config.data.scale.price == "log"
    assert (config.inner.lr.FM, config.eval.l2.memory.DCNv2, config.seed) == (0.04, 1.0, 3)
    assert "FM" not in config.eval.lr.memory and config.is_locked and config.inner.lr.is_locked


def test_through_the_command_line(tmp_path):
    """Real processes, side by side: status 2, one line, no traceback, and nothing written."""
    other = tmp_path / "other"
    with open_workdir(other, quickstart.get_config(), {}):
        pass
    before = {p.name: p.read_bytes() for p in other.iterdir()}
    new, quick = tmp_path / "new", "--config=configs/quickstart.py"
    cases = [
        ([quick, f"--workdir={new}", "--config.data.path=no.zip"], ("no.zip",)),
        ([quick, f"--workdir={new}", "--config.outer.stepss=5"], ("stepss", "Did you mean")),
        (["--config=configs/no.py", f"--workdir={new}"], ("no.py",)),
        ([quick, f"--workdir={other}", "--config.seed=7"], ("seed was 0, is now 7", str(other))),
        ([f"--workdir={new}"], ("--config",)),
    ]
    processes = [cli.start(*args) for args, _ in cases]
    for process, (_, words) in zip(processes, cases, strict=True):
        out, err = process.communicate()
        assert (process.returncode, out) == (2, "")
        line = the_line(err)
        for word in words:
            assert word in line
    assert not new.exists()
    assert {p.name: p.read_bytes() for p in other.iterdir()} == before
