"""The benchmark of the meta-gradient runs, and its engines agree."""

import json
import subprocess
import sys

import cli

# Flags of a benchmark are those of its process.
ASK = "import json; from benchmarks.metagrad import rows; print(json.dumps(dict(rows({}))))"


def test_engines_agree_on_a_tiny_problem(tmp_path):
    command = [sys.executable, "-m", "benchmarks.metagrad", "--quick"]
    command += ["--jobs=2", f"--out={tmp_path}"]
    subprocess.run(command, check=True, cwd=cli.ROOT, capture_output=True)
    table = json.loads((tmp_path / "metagrad_quick.json").read_text())["table"]
    assert {(r["optimizer"], r["engine"]) for r in table} == {
        (o, e) for o in ("sgd", "adam") for e in ("ours", "naive", "remat")
    }
    for row in table:
        assert row["difference"] <= 1e-5 and row["seconds"] > 0 and row["temp_mib"] > 0
    # They are not the same program, though they may come to the same bits.
    assert len({row["temp_mib"] for row in table if row["optimizer"] == "adam"}) > 1


def test_a_failed_round_is_told_and_costs_no_other():
    good = {"seconds": [1.0, 3.0], "first": 9.0, "peak_rss_mib": 5.0, "gradient": 2.0}
    failed = {"error": "out of memory"}
    found = {"ours": [failed, good], "naive": [good, failed], "remat": [failed, failed]}
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(found)],
        check=True,
        cwd=cli.ROOT,
        capture_output=True,
    )
    rows = json.loads(done.stdout)
    assert rows["remat"] == failed
    for name in ("ours", "naive"):
        assert rows[name]["seconds"] == 2 and rows[name]["difference"] == 0
        assert rows[name]["error"] == "out of memory"
