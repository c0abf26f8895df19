"""What a stage should cost on machines that are not here: bytes over bandwidths, nothing measured.

    python -m benchmarks.cost

All programs of a stage are bound by memory: an optimizer step reads and writes the parameters, the
moments and the gradient of a table, and does little with them. So seconds are bytes by bandwidth by
`REACHED`, an assumption. docs/scale.md says what of it has been checked.
"""

from typing import NamedTuple

REACHED = 0.5  # of the bandwidth in a data sheet
FLOAT = 4  # bytes


class Machine(NamedTuple):
    """Devices, and bytes a second of one: of its memory, and of its link to the others."""

    name: str
    devices: int
    memory: float
    link: float


class Log(NamedTuple):
    """A stage: its rows, slots of the memory, table rows in all and that the memory touches.

    moved: floats of a table entry that a step of inner training reads or writes. window: inner
    steps that are differentiated.
    """

    name: str
    rows: float
    slots: float
    table: float
    compact: float
    moved: int
    window: int


# Data sheets: H100 SXM 3.35 TB/s, NVLink 450 GB/s a direction, 400 Gbit/s a GPU between nodes;
# TPU v5p 2.765 TB/s, 4,800 Gbit/s between chips.
MACHINES = (
    Machine("8 x H100", 8, 3.35e12, 450e9),
    Machine("64 x H100", 64, 3.35e12, 50e9),
    Machine("v5p-128 (64 chips)", 64, 2.765e12, 600e9),
)
ADAM, ROWWISE = 8, 4  # parameter, gradient, and Adam's two moments, each read and written
# A day of Criteo 1TB is 4.37e9 / 24 rows; half way 1 % of the rows so far is twelve days' slots.
# The compact tables are the largest that the dry run of benchmarks/scale.py fits into 80 GB.
LOGS = (
    Log("Criteo 1TB, a day", 1.82e8, 4.37e7 / 24 * 12, 1e8, 1 << 22, ADAM, 30),
    Log("10^10 rows a day", 1e10, 1e7, 1e8, 1 << 24, ROWWISE, 8),
)
WIDTH, STEPS, OUTER_STEPS = 64, 60, 400  # columns of a table row, inner steps, outer steps
BATCH, EPOCHS = 65536, 2  # of the teacher
BACKWARD = 4  # a differentiated step: forward, again, and its derivative, twice as much


def outer_step(log: Log, machine: Machine) -> tuple[float, float]:
    """Seconds of work and of the all-reduce of an outer step, with a trajectory on each device.

    A window ends at any step with the same chance, so (STEPS - window) / 2 steps come before it.
    """
    passes = (STEPS - log.window) / 2 + BACKWARD * log.window
    moved = log.compact * WIDTH * FLOAT * log.moved * passes
    gradient = 2 * FLOAT * log.slots  # a label and a weight for each slot
    n = machine.devices
    return (
        moved / (machine.memory * REACHED),
        2 * gradient * (n - 1) / n / (machine.link * REACHED),
    )


def teacher(log: Log, machine: Machine) -> float:
    """Seconds of the teacher, its table sharded by row over all devices."""
    moved = log.table * WIDTH * FLOAT * ADAM / machine.devices
    return EPOCHS * log.rows / BATCH * moved / (machine.memory * REACHED)


def main() -> None:
    print("| stage | machine | teacher | an outer step | of it all-reduce | all outer steps |")
    print("|---" * 6 + "|")
    for log in LOGS:
        for machine in MACHINES:
            work, sent = outer_step(log, machine)
            cells = (
                f"{teacher(log, machine) / 60:.1f} min",
                f"{work + sent:.2f} s",
                f"{1e3 * sent:.1f} ms",
                f"{OUTER_STEPS * (work + sent) / 3600:.2f} h",
            )
            print(f"| {log.name} | {machine.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
