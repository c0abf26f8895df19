"""A memory knows nothing of what comes after it: the next stage is not read while it is made."""

import jax
import numpy as np
import polars as pl
import pytest
import toy

from diet_jax import run
from diet_jax.job import prepare
from diet_jax.preemption import Preempted
from diet_jax.record import Recorder


def silent(step, loss):
    pass


def write(folder, columns):
    path = folder / "log.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return str(path)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A prepared job, and its states after 0, 1 and 2 stages."""
    job = prepare(toy.config(write(tmp_path_factory.mktemp("clean"), toy.log())))
    states = [job.first]
    for number in (1, 2):
        states.append(run.distill(job, states[-1], number, silent)[0])
    return job, states


def poisoned(number, new_values):
    """The log with all but the times of the stages after `number` replaced by noise.

    new_values: also by values that were never seen before.
    """
    rng = np.random.default_rng(9)
    columns = toy.log()
    future = slice(toy.ROWS_A_STAGE * number, None)
    n = len(columns["label"][future])
    for name in ("user", "item", "place", "price"):
        past = columns[name][: toy.ROWS_A_STAGE]
        columns[name][future] = rng.choice(past, n) + (1000 if new_values else 0)
    columns["label"][future] = rng.integers(0, 2, n)
    return columns


@pytest.mark.parametrize("new_values", [False, True], ids=["known values", "new values"])
@pytest.mark.parametrize("number", [1, 2])
def test_poison_in_later_stages_leaves_the_memory_bit_identical(
    tmp_path, clean, number, new_values
):
    job, states = clean
    other = prepare(toy.config(write(tmp_path, poisoned(number, new_values))))
    assert not np.array_equal(
        other.steps[number].train.rows.label, job.steps[number].train.rows.label
    )
    # The same compiled functions serve: they hold no data, and the capacities are the same.
    assert other.engine.min_rows == job.engine.min_rows
    assert other.engine.n_stage == job.engine.n_stage
    other = other._replace(engine=job.engine)
    if not new_values:  # else the teacher's table is larger
        other = other._replace(teacher=job.teacher)
    state = other.first
    for turn in range(1, number + 1):
        state, _ = run.distill(other, state, turn, silent)
    want = states[number]
    jax.tree.map(np.testing.assert_array_equal, state.memory, want.memory)
    jax.tree.map(np.testing.assert_array_equal, state.baselines, want.baselines)
    known = len(want.teacher["table"])
    assert np.array_equal(state.teacher["table"][:known], want.teacher["table"])


def test_another_past_makes_another_memory(tmp_path, clean):
    """So that the test above is able to fail."""
    job, states = clean
    columns = toy.log()
    columns["label"][0] = 1 - columns["label"][0]
    other = prepare(toy.config(write(tmp_path, columns)))
    other = other._replace(engine=job.engine, teacher=job.teacher)
    state, _ = run.distill(other, other.first, 1, silent)
    assert not np.array_equal(state.memory.label_logit, states[1].memory.label_logit)


def test_a_run_says_what_of_the_log_it_could_not_use(tmp_path, capsys, monkeypatch):
    columns = toy.log()
    columns["label"][3] = 7
    for name in ("stream_through", "build_report"):
        monkeypatch.setattr(run, name, lambda *args: None)
    monkeypatch.setattr(run.console, "print_summary", lambda records: None)
    run.run(toy.config(write(tmp_path, columns)), str(tmp_path / "run"), {})
    said = capsys.readouterr().out
    assert "1 rows rejected\n  1: is neither 0 nor 1\n" in said


def test_a_notice_during_evaluation_loses_no_finished_trial(tmp_path, monkeypatch):
    """Told to stop after 3 trainings and again after 3: what was measured is not measured again."""
    config, trained, plain = toy.config(write(tmp_path, toy.log())), [], run.trials.run_trials

    def counted(plan, task, arch, *rest):
        trained.append(arch)
        return plain(plan, task, arch, *rest)

    monkeypatch.setattr(run.trials, "run_trials", counted)
    job = prepare(config)

    def go(folder, stops):
        def stop():
            return len(trained) >= stops

        folder.mkdir(exist_ok=True)
        with Recorder(folder) as recorder:
            run.stream_through(job, folder, recorder, stop)

    go(tmp_path / "whole", 99)
    n, trained = len(trained), []
    assert n == 3 * 4  # stages; full data, the memory, two baselines
    for stops in (3, 6):
        with pytest.raises(Preempted):
            go(tmp_path / "told", stops)
        assert len(trained) == stops
    with (tmp_path / "told" / "metrics.jsonl").open() as file:
        assert len([line for line in file if '"eval"' in line]) == 6 * len(config.eval.seeds)
    go(tmp_path / "told", 99)
    assert len(trained) == n

    def said(name):
        records = Recorder(tmp_path / name).records()
        return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in records]

    assert said("told") == said("whole")
