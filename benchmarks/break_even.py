"""What a memory saves by the size of the log: a trial's cost, and how many trials pay for it.

    python -m benchmarks.break_even --config=configs/simulator.py --sizes=100000,1000000,10000000 \
        --workdir=runs/break_even --out=benchmarks/results/break_even.json -- ARGUMENTS

For each size one run of the main job on a simulated log of so many rows, of which the first nine
tenths are the stage and the last the test; without sizes (`--sizes=`) one run of the config as it
is, whose stream has one stage and its test. Finished runs are not run again, and what follows `--`
goes to every run. A trial is one architecture trained from scratch: on all rows, or on the memory.
The rows told are the whole log's either way, those of the test among them.
The memory is paid for once n architectures have been tried:

    n = seconds of distilling, teacher included
        / (seconds of a trial on all rows - seconds of one on the memory)

Seconds are means over architectures, with each one's compilation, from an empty cache, or without.
Writes every record and the table to --out, and prints the table.
"""

import json
import subprocess
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict

from benchmarks.record import write
from benchmarks.savings import line, markdown
from diet_jax.data import load_stream
from diet_jax.record import read_records

CONFIG = flags.DEFINE_string("config", "configs/simulator.py", "The config.")
SIZES = flags.DEFINE_list("sizes", "100000,1000000,10000000", "Rows of simulated logs; or none.")
WORKDIR = flags.DEFINE_string("workdir", "runs/break_even", "Folder of the runs.")
OUT = flags.DEFINE_string("out", "benchmarks/results/break_even.json", "Result file.")


def main(argv: list[str]) -> None:
    lines, records, env = [], [], {}
    for size in map(int, SIZES.value or [0]):
        run = Path(WORKDIR.value) / (f"rows_{size}" if size else "log")
        command = [sys.executable, "-m", "diet_jax.main", f"--config={CONFIG.value}"]
        command += [f"--workdir={run}"]
        if size:
            command += [f"--config.data.options.n_rows={size}", "--config.data.options.n_stages=10"]
            command += ["--config.stages.fractions=(0.9,0.1)"]
        subprocess.run([*command, *argv[1:]], check=True, stdout=subprocess.DEVNULL)
        found = read_records(run / "metrics.jsonl")
        env = json.loads((run / "env.json").read_text())
        log = load_stream(ConfigDict(json.loads((run / "config.json").read_text())))
        rows = sum(len(stage.user) for stage in log.stages)
        lines.append({"rows": rows, **line(found)})
        records += [{"size": rows, **r} for r in found if r["kind"] in ("eval", "stage")]
        print(markdown(lines), flush=True)
    write(OUT.value, {"env": env, "table": lines, "records": records})


if __name__ == "__main__":
    app.run(main)
