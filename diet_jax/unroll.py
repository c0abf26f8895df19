"""A loop to differentiate through within a budget of bytes, by nested recomputation.

Reverse mode needs the state before every step. At level 0 each step keeps all that its derivative
needs; at level 1 its state alone, and the rest is computed again; at level k states are kept at
about length^(1/k) points of each of k nested loops, which costs k further forward passes.
"""

import jax
from jax.ad_checkpoint import checkpoint_name

from diet_jax.types import InputError

LEVELS = 5  # beyond this a further level saves next to nothing


def scan_steps(step, state, xs, length: int, level: int, offload: bool = False, unroll: int = 1):
    """The state after `step(state, x) -> state` for each of the `length` entries of xs.

    level: as above. offload: keep the outermost states in the host's memory (level 1 or more).
    unroll: turns that are compiled as one, of the loop over steps (not of those around it, which
    would take more memory and longer to compile, nor of one whose states go to the host, which
    failed on a GPU).
    """

    def body(state, x):
        return step(state, x), None

    if level == 0:
        return jax.lax.scan(body, state, xs, unroll=unroll)[0]
    keep = {}
    if offload:
        keep["policy"] = jax.checkpoint_policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=["state"],
            offload_src="device",
            offload_dst="pinned_host",
        )
    size = part(length, level)

    def segment(state, x):
        state = checkpoint_name(state, "state") if offload else state
        return scan_steps(step, state, x, size, level - 1, unroll=unroll), None

    n, rest = divmod(length, size)
    head = jax.tree.map(lambda a: a[: n * size].reshape(n, size, *a.shape[1:]), xs)
    turns = unroll if size == 1 and not offload else 1
    state = jax.lax.scan(jax.checkpoint(segment, **keep), state, head, unroll=turns)[0]
    if rest:
        tail = jax.tree.map(lambda a: a[n * size :], xs)
        state = scan_steps(step, state, tail, rest, level, unroll=unroll)
    return state


def part(length: int, level: int) -> int:
    """Steps between two states that the outermost of `level` nested loops keeps."""
    return max(1, round(length ** (1 - 1 / level)))


def bytes_kept(length: int, level: int, state: int, step: int) -> int:
    """Bytes that a loop holds: `state` is one state's, `step` what one step's derivative needs."""
    if level == 0:
        return length * step
    size = part(length, level)
    return -(-length // size) * state + bytes_kept(size, level - 1, state, step)


def choose_level(
    step, state, xs, length: int, budget: int, by_row: tuple[int, int] = (0, 1), lowest: int = 1
) -> int:
    """The lowest level at which `scan_steps` holds no more than `budget` bytes of a device.

    by_row: what has so many rows lies by row on so many devices. Read from shapes alone. lowest: 0
    for a step that keeps no more than it needs; of another one, to write and read back what it
    keeps takes longer than to compute it again (measured on CPUs, 1.2 to 1.4 times the whole
    gradient).
    Raises InputError, with what would do, when no level fits.
    """
    x = jax.tree.map(lambda a: a[0], xs)
    residuals = jax.eval_shape(lambda state, x: jax.vjp(step, state, x)[1], state, x)
    sizes = size_of(state, *by_row), size_of(residuals, *by_row)
    needs = [bytes_kept(length, level, *sizes) for level in range(lowest, LEVELS + 1)]
    for level, need in enumerate(needs, lowest):
        if need <= budget:
            return level
    raise InputError(
        f"{length} differentiated steps need {min(needs) / 2**20:.0f} MiB a trajectory, and "
        f"inner.mebibytes leaves {budget / 2**20:.0f}; "
        "set it or mesh.table higher, or inner.window lower"
    )


def size_of(tree, rows: int = 0, parts: int = 1) -> int:
    """Bytes of the arrays (or shapes) of a pytree, of those with `rows` rows one of `parts`."""
    return sum(
        leaf.size * leaf.dtype.itemsize // (parts if leaf.shape[:1] == (rows,) else 1)
        for leaf in jax.tree.leaves(tree)
    )
