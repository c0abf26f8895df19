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
    """Devices, and bytes a second of one: of its memory, of its link to all, and to seven near."""

    name: str
    devices: int
    memory: float
    link: float
    near: float


class Log(NamedTuple):
    """A stage: its rows, slots of the memory, table rows in all and that the memory touches.

    moved: floats of a table entry that a step of inner training reads or writes. window: inner
    steps that are differentiated. shared: near devices that share the compact table. by_touched:
    a step moves what its batch looks up (diet_jax/touched.py), and not the compact table.
    """

    name: str
    rows: float
    slots: float
    table: float
    compact: float
    moved: int
    window: int
    shared: int
    by_touched: bool


# Data sheets: H100 SXM 3.35 TB/s, NVLink 450 GB/s a direction, 400 Gbit/s a GPU between nodes;
# TPU v5p 2.765 TB/s, 4,800 Gbit/s between chips.
MACHINES = (
    Machine("8 x H100", 8, 3.35e12, 450e9, 450e9),
    Machine("64 x H100", 64, 3.35e12, 50e9, 450e9),
    Machine("v5p-128 (64 chips)", 64, 2.765e12, 600e9, 600e9),
)
ADAM, ROWWISE = 8, 4  # parameter, gradient, and Adam's two moments, each read and written
# A day of Criteo 1TB is 4.37e9 / 24 rows; half way 1 % of the rows so far is twelve days' slots.
# With these compact tables the outer step and the influence of rows fit 80 GB in the dry run of
# benchmarks/scale.py.
LOGS = (
    Log("Criteo 1TB, a day", 1.82e8, 4.37e7 / 24 * 12, 1e8, 1 << 22, ADAM, 30, 8, False),
    Log("10^10 rows a day", 1e10, 1e7, 1e8, 1 << 24, ROWWISE, 30, 1, True),
)
WIDTH, STEPS, OUTER_STEPS = 64, 60, 400  # columns of a table row, inner steps, outer steps
BATCH, EPOCHS = 65536, 2  # of the teacher
BACKWARD = 4  # a differentiated step: forward, again, and its derivative, twice as much
# Times that an outer step reads or writes all rows once: to draw them, to cut and join the table,
# and for the derivative of the outer loss. As many other rows are looked up as are touched.
ONCE_ROWS = 12 * 2
# Of the dry run: rows of an inner batch and of the outer loss, their fields, and how often a step
# looks up its batch if it is differentiated.
INNER, OUTER, FIELDS, DIFFERENTIATED = 8192, 65536, 26, 3


def outer_step(log: Log, machine: Machine) -> tuple[float, float, float]:
    """Seconds of an outer step: of work, and to all-reduce the gradient and the rows looked up.

    A trajectory on every `shared` devices. A window ends at any step with the same chance, so
    (STEPS - window) / 2 steps come before it.
    """
    before = (STEPS - log.window) / 2
    rows = INNER * FIELDS if log.by_touched else log.compact
    moved = rows * log.moved * (before + BACKWARD * log.window) + ONCE_ROWS * log.compact
    moved *= WIDTH * FLOAT
    gradient = 2 * FLOAT * log.slots  # a label and a weight for each slot
    looked_up = INNER * (before + log.window * DIFFERENTIATED) + OUTER
    looked_up *= FIELDS * WIDTH * FLOAT
    n = machine.devices // log.shared
    return (
        moved / log.shared / (machine.memory * REACHED),
        2 * gradient * (n - 1) / n / (machine.link * REACHED),
        2 * looked_up * (log.shared - 1) / log.shared / (machine.near * REACHED),
    )


def teacher(log: Log, machine: Machine) -> float:
    """Seconds of the teacher, its table sharded by row over all devices."""
    moved = log.table * WIDTH * FLOAT * ADAM / machine.devices
    return EPOCHS * log.rows / BATCH * moved / (machine.memory * REACHED)


def main() -> None:
    columns = "stage | machine | teacher | an outer step | of it gradient | looked-up rows | all"
    print(f"| {columns} outer steps |")
    print("|---" * 7 + "|")
    for log in LOGS:
        for machine in MACHINES:
            work, gradient, rows = outer_step(log, machine)
            step = work + gradient + rows
            cells = (
                f"{teacher(log, machine) / 60:.1f} min",
                f"{step:.2f} s",
                f"{1e3 * gradient:.1f} ms",
                f"{1e3 * rows:.0f} ms",
                f"{OUTER_STEPS * step / 60:.1f} min",
            )
            print(f"| {log.name} | {machine.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
