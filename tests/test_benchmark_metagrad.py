"""The benchmark of the meta-gradient runs, and its engines agree."""

import json
import subprocess
import sys

import cli


def test_engines_agree_on_a_tiny_problem(tmp_path):
    command = [sys.executable, "-m", "benchmarks.metagrad", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, check=True, cwd=cli.ROOT, capture_output=True)
    table = json.loads((tmp_path / "metagrad.json").read_text())["table"]
    assert {(r["optimizer"], r["engine"]) for r in table} == {
        (o, e) for o in ("sgd", "adam") for e in ("ours", "naive", "remat")
    }
    for row in table:
        assert row["difference"] <= 1e-5 and row["seconds"] > 0 and row["temp_mib"] > 0
    # They are not the same program, though they may come to the same bits.
    assert len({row["temp_mib"] for row in table if row["optimizer"] == "adam"}) > 1
