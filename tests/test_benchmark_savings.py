"""A memory is paid for once the trials on it have saved what distilling it took."""

import pytest

from benchmarks.savings import line, markdown


def test_the_seconds_of_a_run_give_what_trials_save_and_when_it_is_paid_for():
    # method: AUC, seconds, seconds to compile
    found = {
        "full": (0.8, 10.0, 3.0),
        "memory": (0.75, 0.5, 1.5),
        "random_hard": (0.6, 0.5, 0.0),
        "random_soft": (0.7, 0.5, 0.0),
    }
    records = [
        {
            **{"kind": "eval", "stage": 1, "method": method, "arch": arch, "seed": 0},
            **{"auc": auc, "gauc": auc, "logloss": 0.5, "steps": 1, "rows": 1},
            **{"seconds": factor * seconds, "seconds_compile": compiling},
        }
        for method, (auc, seconds, compiling) in found.items()
        for arch, factor in (("LR", 0.5), ("MLP", 1.5))
    ]
    parts = {"seconds_teacher": 1.0, "seconds_influence": 4.0, "seconds_outer": 14.0}
    records += [{"kind": "stage", "stage": 1, "stages": 2, "slots": 9, "seconds": 40.0, **parts}]
    row = line(records)
    assert row["distilling"] == 19.0 and row["slots"] == 9
    assert row["trial_cheaper"] == pytest.approx(20) and row["first_cheaper"] == pytest.approx(6.5)
    assert row["trial_break_even"] == pytest.approx(2)
    assert row["first_break_even"] == pytest.approx(19 / 11)
    assert row["R"] == pytest.approx(0.75) and row["R_soft"] == pytest.approx(0.5)
    assert "| 1,000 | 9 | 0.8000 |" in markdown([{"rows": 1000, **row}])


def test_a_memory_that_saves_nothing_is_never_paid_for():
    base = {"kind": "eval", "stage": 1, "arch": "LR", "seed": 0, "steps": 1, "rows": 1}
    base |= {"auc": 0.7, "gauc": 0.7, "logloss": 0.5, "seconds_compile": 0.0}
    methods = {"full": 0.1, "memory": 0.2, "random_hard": 0.2, "random_soft": 0.2}
    records = [base | {"method": name, "seconds": s} for name, s in methods.items()]
    parts = {f"seconds_{part}": 1.0 for part in ("teacher", "influence", "outer")}
    records += [{"kind": "stage", "stage": 1, "stages": 2, "slots": 9, "seconds": 3.0, **parts}]
    row = line(records)
    assert row["trial_break_even"] is None
    assert "| never | never |" in markdown([{"rows": 1000, **row}])
