"""The diary survives crashes, refuses another config and stays readable without jax."""

import json
import math
import os
import threading

import fakes
import ml_collections
import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from diet_jax import record
from diet_jax.record import Recorder, look_into, open_workdir, read_records
from diet_jax.types import Busy, InputError

ENV = {"python": "3.11", "devices": ["cpu"]}


@pytest.fixture
def recorder(tmp_path):
    with Recorder(tmp_path) as recorder:
        yield recorder


def config(**changes):
    values = ml_collections.ConfigDict(fakes.CONFIG)
    values.data.fields = ("user", "item")
    values.update(changes)
    return values


def open_once(*args):
    with open_workdir(*args):
        pass


def scalars(workdir):
    """[(tag, step, value)] of the TensorBoard events, read by the file format's definition."""
    found = []
    for path in (workdir / "tb").iterdir():
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            data = data[16 + size :]
    return found


def test_a_new_workdir_holds_config_and_env(tmp_path):
    with open_workdir(tmp_path / "a" / "b", config(), ENV) as recorder:
        assert recorder.records() == []
    files = {p.name: json.loads(p.read_text()) for p in (tmp_path / "a" / "b").glob("*.json")}
    said = {"config.json": json.loads(config().to_json()), "env.json": ENV}
    assert files == said | {"log.json": {"key": "", "stages": []}}


def test_a_run_may_be_taken_up_on_another_mesh(tmp_path):
    open_once(tmp_path, config(mesh={"data": 8}), ENV)
    open_once(tmp_path, config(mesh={"data": 1}, checkpoint={"every": 1.0}), ENV)
    open_once(tmp_path, config(), ENV)
    assert "mesh" not in json.loads((tmp_path / "config.json").read_text())  # the last one's


def test_the_same_config_is_taken_up_again_and_another_is_refused(tmp_path):
    open_once(tmp_path, config(), ENV)
    open_once(tmp_path, config(), ENV | {"python": "3.12"})
    assert json.loads((tmp_path / "env.json").read_text())["python"] == "3.12"
    before = (tmp_path / "config.json").read_bytes()
    other = config(seed=1, extra=True)
    other.memory.rate, other.data.name = 0.01, "1m"
    for look in (lambda: open_once(tmp_path, other, ENV), lambda: look_into(tmp_path, other)):
        with pytest.raises(InputError) as error:
            look()
        message = str(error.value)
        assert 'data.name was "latest-small", is now "1m"' in message
        assert "extra was absent, is now true" in message
        assert "memory.rate was 0.02, is now 0.01" in message
        assert "and 1 more" in message and "seed" not in message
        assert "--workdir" in message and "\n" not in message
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_goes_on_with_its_own_log_alone(tmp_path):
    open_once(tmp_path, config(), ENV, "one")
    open_once(tmp_path, config(), ENV, "one")
    with pytest.raises(InputError, match="another log: the files at data.path.*--workdir"):
        open_once(tmp_path, config(), ENV | {"python": "3.14"}, "other")
    assert json.loads((tmp_path / "env.json").read_text()) == ENV
    (tmp_path / "log.json").write_text('{"key')
    with pytest.raises(InputError, match="another log"):
        open_once(tmp_path, config(), ENV, "one")


def marks(stages):
    """Of stages of 100 rows, but for those that name a smaller number."""
    return [[int(s) if s.isdigit() else 100, s] for s in stages]


def test_a_log_may_lie_elsewhere_and_may_have_grown(tmp_path):
    def open_log(path, key, *stages):
        where = config()
        where.data.path = path
        with open_workdir(tmp_path, where, ENV, key, lambda: marks(stages)) as recorder:
            return recorder.records()

    def place():
        return json.loads((tmp_path / "config.json").read_text())["data"]["path"]

    open_log("a", "one", "a", "b", "50")
    ends = [{"kind": "stage", "stage": n} for n in (1, 2)] + [{"kind": "run"}]
    with Recorder(tmp_path) as recorder:
        recorder.append(ends)
    assert open_log("b", "one") == ends and place() == "b"
    assert open_log("c", "renamed", "a", "b", "50") == ends and place() == "c"
    assert open_log("b", "two", "a", "b", "50", "40") == ends[:2]
    assert open_log("b", "three", "a", "b", "50", "more") == ends[:2]
    for number, *stages in (
        (2, "a", "?", "50", "more"),
        (4, "a", "b", "50"),
        (4, *"ab", "50", "9"),
    ):
        with pytest.raises(InputError, match=f"its stage {number} is not what it was"):
            open_log("d", "four", *stages)
    assert json.loads((tmp_path / "log.json").read_text())["key"] == "three" and place() == "b"


def test_what_was_tested_on_a_stage_that_was_not_whole_is_forgotten(tmp_path):
    def open_log(key, *stages):
        with open_workdir(tmp_path, config(), ENV, key, lambda: marks(stages)) as recorder:
            return recorder.records()

    open_log("one", "a", "b", "50")
    ends = [{"kind": "stage", "stage": n} for n in (1, 2)] + [{"kind": "run"}]
    with Recorder(tmp_path) as recorder:
        recorder.append(ends)
    assert open_log("two", "a", "b", "whole", "40") == ends[:1]


def test_the_environment_of_a_finished_run_is_kept(tmp_path):
    with open_workdir(tmp_path, config(), ENV) as recorder:
        recorder.append([{"kind": "run", "seconds": 1.0, "final_slots": 3}])
    open_once(tmp_path, config(), {"python": "3.14"})
    assert json.loads((tmp_path / "env.json").read_text()) == ENV


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "taken").write_text("x")
    for workdir in (tmp_path / "taken", tmp_path / "taken" / "deeper"):
        with pytest.raises(InputError, match="taken.*--workdir"):
            open_once(workdir, config(), ENV)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    for workdir in (tmp_path, tmp_path / "new"):
        with pytest.raises(InputError, match="cannot be written"):
            look_into(workdir, config())
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_somebody_else_is_named(tmp_path, monkeypatch):
    def refuse(path, *args):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(record, "open", refuse, raising=False)
    with pytest.raises(InputError, match="cannot be written .Permission denied"):
        open_once(tmp_path, config(), ENV)


def test_a_second_process_changes_nothing_and_may_come_back(tmp_path):
    with open_workdir(tmp_path, config(), ENV):
        with pytest.raises(Busy, match=r"remove .*\.lock if that process died"):
            open_once(tmp_path, config(), ENV | {"python": "3.14"})
    assert json.loads((tmp_path / "env.json").read_text()) == ENV
    open_once(tmp_path, config(), ENV)


def test_records_come_back_as_written(recorder):
    records = fakes.run_records(stages=3)
    recorder.append(records[:10])
    recorder.append(records[10:])
    recorder.append([])
    assert recorder.records() == records
    assert record.is_finished(records) and not record.is_finished(records[:-1])
    assert record.evaluated_stages(records) == [1, 2]


def test_numpy_values_and_nan_become_plain_json(recorder):
    recorder.append(
        [{"kind": "outer", "stage": np.int32(1), "step": 1, "loss": np.float32(0.5)}]
        + [{"kind": "x", "stage": 1, "a": np.arange(2), "b": (math.nan, math.inf), "c": None}]
    )
    assert recorder.records() == [
        {"kind": "outer", "stage": 1, "step": 1, "loss": 0.5},
        {"kind": "x", "stage": 1, "a": [0, 1], "b": [None, None], "c": None},
    ]


@pytest.mark.parametrize("lost", [1, 2, 20, 39])
def test_a_torn_write_costs_the_last_record_only(recorder, lost):
    records = fakes.outer_records(1, steps=30)
    recorder.append(records)
    path = recorder.path
    path.write_bytes(path.read_bytes()[:-lost])
    assert read_records(path) == records[:2]
    recorder.append(records[2:])
    assert read_records(path) == records
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("rubbish", [b'{"kind": "ev', b'{"kind": "ev\n', b"\0" * 50, b"\n"])
@pytest.mark.parametrize("tail", [20, 1 << 16])
def test_rubbish_at_the_end_is_cut_away(recorder, monkeypatch, rubbish, tail):
    monkeypatch.setattr(record, "_TAIL_BYTES", tail)
    records = fakes.outer_records(1, steps=40)
    recorder.append(records[:-1])
    with recorder.path.open("ab") as file:
        file.write(rubbish)
    assert recorder.records() == records[:-1]
    recorder.append(records[-1:])
    assert recorder.records() == records


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "a"}\nrubbish\n{"kind": "b"}\n')
    with pytest.raises(InputError, match="line 2"):
        read_records(path)


def test_a_stage_can_be_forgotten(recorder):
    records = fakes.run_records(stages=4)
    recorder.append(records)
    recorder.drop_from(2)
    assert recorder.records() == fakes.run_records(stages=4, done=1)
    recorder.append(fakes.stage_records(2, stages=4))
    assert recorder.records() == fakes.run_records(stages=4, done=2)
    steps = {step for tag, step, _ in scalars(recorder.workdir) if tag == "auc/memory/LR"}
    assert steps == {1, 2}


def test_forgetting_that_is_cut_short_changes_nothing(recorder, tmp_path, monkeypatch):
    recorder.append(fakes.run_records(stages=3))
    before = recorder.path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        recorder.drop_from(1)
    assert recorder.path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "tb"]


def test_tensorboard_mirrors_the_records(tmp_path, capfd):
    threads = threading.active_count()
    with Recorder(tmp_path) as recorder:
        recorder.append([{"kind": "outer", "stage": 1, "step": 5, "loss": 0.5}])
        recorder.append(
            [fakes.eval_record(1, "full", "FM", seed, auc) for seed, auc in enumerate((0.6, 0.7))]
        )
        assert threading.active_count() == threads
    with Recorder(tmp_path) as recorder:  # a resumed run
        recorder.append([{"kind": "outer", "stage": 2, "step": 5, "loss": 0.25}])
    found = {(tag, step): value for tag, step, value in scalars(tmp_path)}
    assert found == {
        ("outer_loss/stage_01", 5): 0.5,
        ("outer_loss/stage_02", 5): 0.25,
        ("auc/full/FM", 1): pytest.approx(0.65),
        ("gauc/full/FM", 1): pytest.approx(0.60),
        ("logloss/full/FM", 1): pytest.approx(0.65),
    }
    assert len(list((tmp_path / "tb").iterdir())) == 1
    assert capfd.readouterr() == ("", "")


def test_other_processes_write_nothing(tmp_path):
    recorder = Recorder(tmp_path / "none", enabled=False)
    recorder.append(fakes.run_records(stages=2))
    recorder.drop_from(1)
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_versions_name_what_decides_a_result():
    versions = record.software_versions()
    assert {"python", "platform", "diet_jax", "jax", "jaxlib", "flax", "optax"} < set(versions)
    assert json.loads(json.dumps(versions)) == versions
