"""Gap recovery, rank agreement, regret and cost against numbers worked out by hand."""

import math

import fakes
import pytest
from fakes import eval_record, stage_record

from diet_jax import summary
from diet_jax.summary import gap_recovery, summarize


def run(aucs, stages=3):
    """Records of {(stage, arch): {method: AUC or AUCs by seed}} with the closing records."""
    records = []
    for (stage, arch), by_method in aucs.items():
        for method, values in by_method.items():
            values = values if isinstance(values, tuple) else (values,)
            records += [eval_record(stage, method, arch, s, v) for s, v in enumerate(values)]
    done = sorted({stage for stage, _ in aucs})
    return records + [stage_record(stage, stages) for stage in done]


def level(full, memory, hard, soft):
    return {"full": full, "memory": memory, "random_hard": hard, "random_soft": soft}


def test_gap_recovery_by_hand():
    assert gap_recovery(0.7, 0.68, 0.6) == pytest.approx(0.8)
    assert gap_recovery(0.7, 0.72, 0.6) == pytest.approx(1.2)
    assert gap_recovery(0.7, 0.55, 0.6) == pytest.approx(-0.5)
    assert math.isnan(gap_recovery(0.6, 0.7, 0.6))
    assert math.isnan(gap_recovery(0.6 + 5e-7, 0.7, 0.6))
    assert math.isnan(gap_recovery(0.5, 0.7, 0.6))
    assert math.isnan(gap_recovery(0.7, math.nan, 0.6))


def test_cells_are_means_and_spreads_over_seeds():
    found = summarize(run({(1, "FM"): level((0.70, 0.72), (0.66, 0.68), (0.60, 0.62), 0.64)}))
    (cell,) = found["cells"]
    assert cell["auc"]["full"] == pytest.approx({"mean": 0.71, "sd": 0.02 / math.sqrt(2), "n": 2})
    assert cell["auc"]["random_soft"]["n"] == 1
    assert math.isnan(cell["auc"]["random_soft"]["sd"])
    assert cell["R"] == pytest.approx(0.06 / 0.10)
    assert cell["R_soft"] == pytest.approx(0.03 / 0.07)
    assert found["seeds"] == [0, 1]


def test_the_two_ways_to_average_gap_recovery():
    found = summarize(
        run(
            {
                (1, "LR"): level(0.70, 0.65, 0.60, 0.60),  # R = 0.5 of a gap of 0.10
                (1, "FM"): level(0.62, 0.62, 0.60, 0.60),  # R = 1.0 of a gap of 0.02
                (2, "LR"): level(0.60, 0.61, 0.60, 0.70),  # nothing to recover
            }
        )
    )
    overall = found["overall"]
    assert [cell["R"] for cell in found["cells"][:2]] == pytest.approx([0.5, 1.0])
    assert "In 1 of 3 cells full data is no better" in "\n".join(summary.cautions(found))
    assert math.isnan(found["cells"][2]["R"])
    assert overall["R"]["mean_of_ratios"] == pytest.approx(0.75)
    assert overall["R"]["cells"] == 2
    assert overall["R"]["ratio_of_means"] == pytest.approx((0.05 + 0.02 + 0.01) / (0.10 + 0.02))
    assert overall["R_soft"]["ratio_of_means"] == pytest.approx((0.05 + 0.02 - 0.09) / 0.02)
    assert found["by_arch"]["LR"]["R"] == pytest.approx(0.5)
    assert found["by_arch"]["LR"]["auc"]["full"] == pytest.approx(0.65)


def test_kendall_tau_with_ties_and_regret():
    # Pairs of (full, memory): AB tied on memory, AC and BC concordant, AD, BD and CD discordant.
    # tau_b = (2 - 3) / sqrt((6 - 0) * (6 - 1)).
    full, memory = (0.60, 0.61, 0.62, 0.63), (0.60, 0.60, 0.65, 0.55)
    aucs = {
        (1, arch): level(f, m, 0.5, 0.5 + f / 100)
        for arch, f, m in zip("ABCD", full, memory, strict=True)
    }
    ranks = {row["method"]: row for row in summarize(run(aucs))["ranks"]}
    assert ranks["memory"]["tau"] == pytest.approx(-1 / math.sqrt(30))
    assert (ranks["memory"]["best"], ranks["memory"]["chosen"]) == ("D", "C")
    assert ranks["memory"]["regret"] == pytest.approx(0.01)
    assert math.isnan(ranks["random_hard"]["tau"])  # all tied: no order to compare
    assert ranks["random_hard"]["chosen"] == "A"
    assert ranks["random_hard"]["regret"] == pytest.approx(0.03)
    assert ranks["random_soft"]["tau"] == pytest.approx(1)
    assert ranks["random_soft"]["regret"] == 0


def test_one_architecture_has_no_rank():
    (row,) = summarize(run({(1, "LR"): {"full": 0.7, "memory": 0.6}}))["ranks"]
    assert math.isnan(row["tau"]) and row["regret"] == 0


def test_cost_by_hand():
    records = [
        eval_record(1, "full", "LR", 0, 0.7, rows=1000, seconds=3.0),
        eval_record(1, "full", "LR", 1, 0.7, rows=1000, seconds=5.0),
        eval_record(1, "full", "FM", 0, 0.7, rows=1000, seconds=6.0),
        eval_record(1, "memory", "LR", 0, 0.7, rows=10, seconds=0.5),
        eval_record(1, "memory", "FM", 0, 0.7, rows=10, seconds=1.5),
        stage_record(1, 2),  # 2.5 + 2.5 + 9.5 s
        {"kind": "run", "seconds": 40.0, "final_slots": 10},
    ]
    cost = summarize(records)["cost"]
    (trial,) = cost["trial"]
    assert trial["rows"]["full"] == 1000 and trial["rows"]["memory"] == 10
    assert trial["seconds"]["full"] == pytest.approx(5.0)
    assert trial["seconds"]["memory"] == pytest.approx(1.0)
    assert math.isnan(trial["rows"]["random_hard"])
    assert cost["parts"] == [{"stage": 1, "teacher": 2.5, "influence": 2.5, "outer": 9.5}]
    assert cost["distill_seconds"] == pytest.approx(14.5)
    assert cost["break_even"] == pytest.approx(14.5 / 4.0)
    assert cost["run_seconds"] == 40.0


def test_a_stage_without_its_closing_record_does_not_count():
    records = fakes.run_records(stages=4, done=2)
    torn = records + [r for r in fakes.stage_records(3, stages=4) if r["kind"] != "stage"]
    found = summarize(torn)
    assert found == summarize(records)
    assert (found["stages"], found["stages_done"], found["stages_total"]) == ([1, 2], 2, 4)
    assert not found["finished"]


def test_the_auc_of_each_label_is_summed_up_too():
    records = run({(1, "LR"): {"full": (0.7, 0.8), "memory": 0.6}})
    for record, of_buy in zip(records, (0.5, 0.7, None), strict=False):
        record |= {"auc:click": record["auc"], "auc:buy": of_buy}
    found = summarize(records)
    assert found["cells"][0]["auc:buy"]["full"]["mean"] == pytest.approx(0.6)
    assert found["overall"]["auc:click"] == found["overall"]["auc"]
    assert math.isnan(found["overall"]["auc:buy"]["memory"])
    assert not any(key.startswith("auc:") for key in summarize(run({}))["overall"])


def test_missing_metrics_are_left_out():
    records = run({(1, "LR"): {"full": (0.7, 0.8), "memory": 0.6}})
    records[0]["gauc"] = None
    found = summarize(records)
    assert found["cells"][0]["gauc"]["full"]["n"] == 1
    assert found["overall"]["gauc"]["full"] == pytest.approx(0.75)


def test_nothing_yet():
    found = summarize([])
    assert found["cells"] == [] and found["stages_total"] is None and not found["finished"]
    assert math.isnan(found["overall"]["R"]["mean_of_ratios"])
    assert list(summary.METHODS) == list(fakes.METHODS)
