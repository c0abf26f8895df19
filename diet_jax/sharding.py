"""Devices and processes: the mesh, where arrays lie on it, and what processes tell one another.

No other file knows of either. Every process of a job runs the same program on the same inputs, and
its devices are part of one mesh; the first process alone touches the folder of the run.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diet_jax.types import Busy, InputError

AXES = ("trajectory", "data", "table")
# How many processes a launcher says it started; JAX reads the rest from it by itself.
COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")


class Placement(NamedTuple):
    """A mesh of three axes, and the placements that are used on it.

    trajectory: independent runs lie along it: inner trajectories, and the seeds of a trial.
    data: the rows of a batch of full-data training (teacher and reference). table: the rows of an
    embedding table there, and of the compact table of an outer step. Without a mesh everything is
    where JAX puts it, on one device.
    """

    mesh: Mesh | None = None

    def size(self, axis: str) -> int:
        return self.mesh.shape[axis] if self.mesh else 1

    @property
    def whole(self) -> NamedSharding | None:
        """The sharding of what lies whole on every device."""
        return self.mesh and NamedSharding(self.mesh, PartitionSpec())

    def replicate(self, tree):
        """Put every leaf whole on every device, but tables by row, as `tables` does.

        Do it once, or the first call compiles twice. With several processes each gives the same
        values, and nothing is sent.
        """

        def put(path, leaf):
            by_row = self.size("table") > 1 and _is_table(path, leaf)
            where = self._where("table") if by_row else self.whole
            return _put(leaf, where) if several() else jax.device_put(leaf, where)

        return jax.tree_util.tree_map_with_path(put, tree)

    def spread(self, shape: tuple[int, ...], axes: tuple[str | None, ...], read: Callable):
        """An array of this shape whose first axes are spread over those `axes` of the mesh.

        One that its devices cannot share evenly is not spread. read(index) gives the part at a
        tuple of slices; a process is asked for what its own devices hold, and once for each part.
        """
        if self.mesh is None:
            return jax.device_put(read((slice(None),) * len(shape)))
        even = [axis and not n % self.size(axis) for n, axis in zip(shape, axes, strict=False)]
        spec = [axis if fits else None for axis, fits in zip(axes, even, strict=True)]
        parts = {}

        def part(index):
            key = tuple((at.start, at.stop) for at in index)  # slices have no hash before 3.12
            if key not in parts:
                parts[key] = read(index)
            return parts[key]

        where = NamedSharding(self.mesh, PartitionSpec(*spec))
        return jax.make_array_from_callback(shape, where, part)

    def fetch(self, tree):
        """Every leaf whole, as a NumPy array of this process, wherever its parts lie."""

        def get(leaf):
            if several() and not leaf.is_fully_replicated:
                return multihost_utils.process_allgather(leaf, tiled=True)
            return np.asarray(leaf)

        return jax.tree.map(get, tree)

    def _where(self, *spec: str | None) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def _lay(self, leaf, *spec: str | None):
        return jax.lax.with_sharding_constraint(leaf, self._where(*spec))

    def runs(self, tree):
        """Inside jit: spread the leading axis of every leaf, one run each, over `trajectory`."""
        return jax.tree.map(lambda a: self._lay(a, "trajectory"), tree) if self.mesh else tree

    def rows(self, tree):
        """Inside jit: spread the leading axis of every leaf, rows of a batch, over `data`.

        Rows that its devices cannot share evenly stay whole on each of them.
        """
        n = self.size("data")
        if n == 1:
            return tree
        return jax.tree.map(lambda a: a if len(a) % n else self._lay(a, "data"), tree)

    def tables(self, tree):
        """Inside jit: spread the rows of every table [U, D] under a key "table" over `table`.

        Moments of an optimizer lie like their table. U must be a multiple (`even`).
        """
        if self.size("table") == 1:
            return tree

        def lay(path, leaf):
            return self._lay(leaf, "table") if _is_table(path, leaf) else leaf

        return jax.tree_util.tree_map_with_path(lay, tree)

    def even(self, rows: int) -> int:
        """The least number >= `rows` that the devices along `table` share evenly."""
        return -(-rows // self.size("table")) * self.size("table")

    def filled(self, runs: int) -> int:
        """The least number >= `runs` that the devices along `trajectory` share evenly."""
        return -(-runs // self.size("trajectory")) * self.size("trajectory")

    def each(self, f: Callable, axes: tuple[int | None, ...]) -> Callable:
        """vmap of f over runs, which are spread over `trajectory`; the last ones fill it up.

        axes: by argument, 0 for one with a leading axis of runs, None for one that all share.
        """
        n = self.size("trajectory")
        if n == 1:
            return jax.vmap(f, axes)

        def spread(*args):
            first = jax.tree.leaves(args[axes.index(0)])[0]
            some = np.arange(self.filled(len(first))) % len(first)

            def fill(a):
                return a if len(some) == len(a) else a[some]

            args = [
                self.runs(jax.tree.map(fill, arg)) if axis == 0 else arg
                for arg, axis in zip(args, axes, strict=True)
            ]
            out = jax.vmap(f, axes, spmd_axis_name="trajectory")(*args)
            return jax.tree.map(lambda a: a[: len(first)], out)

        return spread


def _is_table(path: tuple, leaf) -> bool:
    return any(getattr(key, "key", None) == "table" for key in path) and np.ndim(leaf) == 2


def _put(leaf, where: NamedSharding | None):
    if isinstance(leaf, jax.Array):
        if not leaf.is_fully_addressable:  # it is there already
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = _put(np.asarray(jax.random.key_data(leaf)), where)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    value = np.asarray(leaf)
    assert where is not None
    return jax.make_array_from_callback(value.shape, where, lambda index: value[index])


ONE_DEVICE = Placement()


def make_place(
    n_trajectories: int, trajectory: int = 0, data: int = 0, table: int = 1
) -> Placement:
    """The mesh of all devices of all processes, as the config's block `mesh` wants it.

    n_trajectories: those that share the axis `trajectory` evenly. trajectory, data: sizes of the
    axes; 0 takes as many devices as share the trajectories, and for `data` all that are left.
    A single process may leave devices idle, several may not. Inner work is split by trajectory, so
    that a memory does not depend on how many devices there are.
    Raises InputError if the devices do not suffice, or cannot be shared like this.
    """
    n = jax.device_count()
    if trajectory and n_trajectories % trajectory:
        raise InputError(
            f"mesh.trajectory is {trajectory}, and outer.trajectories {n_trajectories}; "
            "set the one to a divisor of the other"
        )
    rest = max(data, 1) * table

    def fits(t: int) -> bool:
        return t * rest <= n and n_trajectories % t == 0 and not (several() and n % (t * rest))

    if not trajectory:
        trajectory = max(filter(fits, range(1, n + 1)), default=1)
    data = data or max(1, n // (trajectory * table))
    used = trajectory * data * table
    sizes = f"mesh.trajectory x mesh.data x mesh.table is {trajectory} x {data} x {table}"
    if used > n:
        raise InputError(f"{sizes}, and there are {n} devices; set one of them lower")
    if several() and used < n:
        raise InputError(f"{sizes}, but all {n} devices of several processes have to be used")
    # Auto axes: with explicit ones (the default) a plain look-up table[ids] is an error.
    kinds = (AxisType.Auto,) * len(AXES)
    shape = trajectory, data, table
    return Placement(jax.make_mesh(shape, AXES, kinds, devices=jax.devices()[:used]))


# --- Processes ----------------------------------------------------------------------------------


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    number: int | None = None,
    cluster: str | None = None,
    heartbeat_s: int = 100,
) -> None:
    """Makes this process part of a job of several, before anything else is asked of JAX.

    coordinator: HOST:PORT of the first process. Where these are None, JAX finds them out under
    SLURM, Open MPI, in a JobSet and on TPU VMs; a process that is alone stays so. cluster: the one
    of JAX's detection methods that has to be used. heartbeat_s: seconds of silence after which
    another process counts as dead.
    Raises InputError if only some of the three are given, or if they cannot be right.
    """
    given = [coordinator is not None, processes is not None, number is not None]
    if any(given) and not all(given):
        raise InputError("give all of --coordinator, --num_processes and --process_id, or none")
    if processes is not None and not 0 <= (number or 0) < processes:
        raise InputError(f"--process_id is {number}; set it to 0 .. {processes - 1}")
    if processes == 1 or not (all(given) or cluster or _one_of_several()):
        return
    # Its handler of SIGTERM would take the place of ours, and Orbax would number its points anew.
    jax.config.update("jax_enable_preemption_service", False)
    method = cluster or ("deactivate" if all(given) else None)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            number,
            cluster_detection_method=method,
            heartbeat_timeout_seconds=heartbeat_s,
        )
    except ValueError as error:
        raise InputError(
            f"the job's processes were not found ({error}); "
            "give --coordinator, --num_processes and --process_id"
        ) from None


def _one_of_several() -> bool:
    """Whether a launcher says so, or it has to be asked, as on TPU VMs and in Kubernetes."""
    counts = (int(os.environ.get(name) or 1) for name in COUNTS)
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    chips = any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0")))
    on_tpu_vm = chips and find_spec("libtpu") is not None
    in_job = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    in_job = in_job and find_spec("kubernetes") is not None
    return max(counts) > 1 or "," in hosts or (on_tpu_vm and not hosts) or in_job


def several() -> bool:
    """Whether the job has more than one process."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that reads and writes the folder of the run."""
    return jax.process_index() == 0


def told_by_first(make: Callable[[], Any]) -> Any:
    """What `make` returns in the first process, JSON values, in all of them.

    An error of the first process is raised in the others too, so that none waits for nothing.
    """
    if not several():
        return make()
    said, failed = None, None
    if is_first():
        try:
            said = {"value": make()}
        except InputError as error:
            said, failed = {"error": str(error), "busy": isinstance(error, Busy)}, error
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = text if is_first() else np.zeros(size, np.uint8)
    said = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(text))))
    if "error" in said:
        raise failed or (Busy if said["busy"] else InputError)(said["error"])
    return said["value"]


def of_first(array: np.ndarray) -> np.ndarray:
    """The first process's array in all of them, which have one of its shape and dtype."""
    return np.asarray(multihost_utils.broadcast_one_to_all(array)) if several() else array


def same_everywhere(what: str, digest: int, cure: str) -> None:
    """Raises InputError in every process unless all hold the same `digest` (32 bits) of `what`."""
    if several():
        found = multihost_utils.process_allgather(np.uint32(digest))
        if len(set(found.tolist())) > 1:
            raise InputError(f"the processes do not hold the same {what}; {cure}")


def any_process(mine: bool) -> bool:
    """Whether any process says so; all must ask at the same points."""
    return bool(multihost_utils.process_allgather(np.bool_(mine)).any()) if several() else mine


def device_kinds() -> list[str]:
    return [device.device_kind for device in jax.devices()]


def lost_contact(error: Exception) -> bool:
    """Whether this is what JAX raises when another process has ended."""
    signs = "Gloo", "UNAVAILABLE", "heartbeat", "peer", "DEADLINE_EXCEEDED", "NCCL"
    return several() and any(sign in str(error) for sign in signs)


def leave(status: int) -> NoReturn:
    """Ends a process of several at once, without the wait for the others that JAX has at its exit.

    The first one gives them a moment, since they end with an error of JAX when it is gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(2 * is_first())
    os._exit(status)
