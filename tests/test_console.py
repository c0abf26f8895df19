"""What is printed fits the screen, says the numbers and needs neither colours nor a terminal."""

import io
import math

import fakes
import pytest
from rich.console import Console

from diet_jax import console
from diet_jax.summary import METHODS, summarize


def screen(width=80, terminal=False):
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def printed(show, *args, width=80):
    target = screen(width)
    show(*args, target)
    return target.file.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_and_are_not_cut(width):
    archs = (*fakes.ARCHS, "FinalMLP-wide")
    records = fakes.run_records(stages=20, archs=archs)
    for record in records:  # as large as numbers get
        if record["kind"] == "eval" and record["method"] == "full":
            record |= {"rows": 45_840_617, "seconds": 12_345.6}
    text = printed(console.print_stage, records, 13, width=width)
    text += printed(console.print_summary, records, width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "45,840,617" in text and "12,346" in text and "FinalMLP-wide" in text


def test_the_stage_table_says_the_numbers():
    records = fakes.beside_the_past(fakes.run_records(stages=8))
    text = printed(console.print_stage, records, 3)
    found = summarize(records)
    cell = next(c for c in found["cells"] if (c["stage"], c["arch"]) == (3, "FM"))
    line = next(line for line in text.splitlines() if line.split()[:1] == ["FM"])
    aucs = [f"{cell['auc'][m]['mean']:.4f}" for m in fakes.METHODS]
    assert line.split() == ["FM", *aucs, f"{cell['R']:.2f}"]
    assert "Stage 3 of 8: AUC on stage 4, mean of 3 seeds" in text
    assert text.split("slots")[0].split()[-1] == "683"


def test_tables_say_what_judged():
    records = fakes.run_records(stages=8)
    assert "Stage 3 of 8: AUC on its validation rows" in printed(console.print_stage, records, 3)
    text = " ".join(printed(console.print_summary, records).split())
    assert "AUC on validation rows of the same stage" in text and "after" not in text
    text = " ".join(printed(console.print_summary, fakes.beside_the_past(records)).split())
    assert "AUC on the stage after" in text and "validation" not in text
    null = [r | {"auc_current": None} if r["kind"] == "eval" else r for r in records]
    assert "AUC on stage 4" in printed(console.print_stage, null, 3)  # of one class, but scored


def test_the_stage_table_says_how_many_rows_a_slot_mixes():
    records = [r | {"mix": 4} if r["kind"] == "stage" else r for r in fakes.run_records(stages=8)]
    assert "683 slots of 4 mixed rows for 37,812 rows" in printed(console.print_stage, records, 3)


def test_the_summary_says_the_numbers():
    records = fakes.run_records(stages=8)
    text = printed(console.print_summary, records)
    overall = summarize(records)["overall"]
    rows = {line[:20].strip(): line[20:].split() for line in text.splitlines()}
    means = [f"{overall['auc'][m]:.4f}" for m in fakes.METHODS]
    ratios = [f"{overall[name]['mean_of_ratios']:.2f}" for name in ("R", "R_soft")]
    assert rows["mean AUC"] == means + ratios
    assert rows["Kendall tau"] == [f"{overall['tau'][m]:.2f}" for m in fakes.METHODS[1:]]
    assert rows["regret, AUC"] == [f"{overall['regret'][m]:.4f}" for m in fakes.METHODS[1:]]
    assert rows["rows per trial"] == ["50,416", "1,008", "1,008", "1,008"]
    assert f"Ratio of the mean gaps: R {overall['R']['ratio_of_means']:.2f}" in text
    assert "not finished" not in text and "3 min 32 s" in text


def test_unfinished_and_empty_runs():
    assert "resume" in printed(console.print_summary, fakes.run_records(stages=8, done=2))
    assert "No stage" in printed(console.print_summary, [])
    assert printed(console.print_stage, fakes.run_records(stages=8, done=2), 5) == ""
    one_seed = printed(console.print_summary, fakes.run_records(stages=2, seeds=(0,)))
    assert "Mean over 1 stage:" in one_seed


def test_trainings_that_died_are_named_and_no_more_than_five_of_them():
    records = fakes.stage_records(1, stages=2)
    evals = [r for r in records if r["kind"] == "eval"]
    assert "died" not in printed(console.print_summary, records)
    evals[0] |= {"auc": 0.5}  # by chance: users are told apart
    evals[1] |= {"auc": 0.5, "gauc": 0.5}
    evals[2] |= {"auc": 0.5, "gauc": None}
    text = " ".join(printed(console.print_summary, records).split())
    first, second = (
        f"{r['arch']} on {METHODS[r['method']]}, stage 1, seed {r['seed']}" for r in evals[1:3]
    )
    assert "ordering no rows: 2. They count" in text and f"(eval.lr) of {first}; {second}." in text
    for record in evals:
        record |= {"auc": 0.5, "gauc": 0.5}
    text = " ".join(printed(console.print_summary, records).split())
    assert f"ordering no rows: {len(evals)}." in text and text.count(", stage 1, seed") == 5


def test_a_memory_below_random_rows_or_of_few_slots_is_not_shown_without_a_word():
    records = fakes.run_records(stages=3)
    good = printed(console.print_summary, records)
    assert "worse than random" not in good and "too few" not in good
    for record in records:
        if record["kind"] == "stage":
            record["slots"] = 7
        if record.get("method") == "memory":
            record["auc"] = 0.4
    text = " ".join(printed(console.print_summary, records).split())
    assert "The memory is worse than random rows. Is the teacher trained enough" in text
    assert "The memory has 7 slots, too few" in text


def test_what_is_not_defined_is_a_dash():
    records = fakes.stage_records(1)
    for record in records:
        if record["kind"] == "eval":
            record["auc"] = 0.5
    text = printed(console.print_stage, records, 1)
    assert next(line for line in text.splitlines() if " FM " in line).split()[-1] == "-"


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    target = screen()
    with console.stage_progress(2, 8, 50, target) as update:
        clock[0] += 99  # to compile, which says nothing of the steps
        for step in range(1, 51):
            clock[0] += 0.5
            update(step, 0.5 + 1 / step)
    assert target.file.getvalue().splitlines() == [
        "stage 2/8: step 2/50, outer loss 1.0000, 24 s left",
        "stage 2/8: step 22/50, outer loss 0.5455, 14 s left",
        "stage 2/8: step 42/50, outer loss 0.5238, 4.0 s left",
    ]


def test_progress_on_a_terminal_is_a_bar_that_goes_away():
    target = screen(terminal=True)
    with console.stage_progress(2, 8, 50, target) as update:
        for step in range(1, 51):
            update(step, 0.6125)
    text = target.file.getvalue()
    assert "stage 2/8" in text and "50/50" in text and "outer loss 0.6125" in text
    assert text.endswith("\x1b[2K")  # the line is erased


def test_a_failure_inside_a_stage_gives_the_terminal_back():
    target = screen(terminal=True)
    with pytest.raises(ZeroDivisionError), console.stage_progress(1, 2, 3, target):
        raise ZeroDivisionError
    assert "\x1b[?25h" in target.file.getvalue()  # the cursor is shown again


def test_number_formats():
    assert [console.seconds(s) for s in (0.04, 9.94, 42.4, 59.6, 185, 7799)] == [
        *("0.04 s", "9.9 s", "42 s", "1 min 00 s", "3 min 05 s", "2 h 09 min")
    ]
    assert [console.ratio(v) for v in (-0.001, 0.555, -1.2, math.nan)] == [
        *("0.00", "0.56", "-1.20", "-")
    ]
    assert [console.plain(v) for v in (0.5, 12.345, 1234.5)] == ["0.5", "12.3", "1,234"]
    assert console.auc(math.nan) == console.count(math.nan) == console.seconds(math.nan) == "-"
