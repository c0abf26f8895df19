"""Devices: the mesh, and where arrays lie on it; no other file knows devices."""

from typing import NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


class Placement(NamedTuple):
    """A mesh with one axis, `trajectory`, and the two placements that are used on it."""

    mesh: Mesh

    def replicate(self, tree):
        """Put every leaf whole on every device (do it once, or the first call compiles twice)."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def split(self, tree):
        """Inside jit: spread the leading axis of every leaf over the devices."""
        spec = NamedSharding(self.mesh, PartitionSpec("trajectory"))
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, spec), tree)


def all_devices(n_trajectories: int) -> Placement:
    """The most of the local devices that share `n_trajectories` evenly, as a mesh.

    Work is split by trajectory, so the result does not depend on how many devices there are.
    """
    devices = jax.devices()
    n = max(d for d in range(1, len(devices) + 1) if n_trajectories % d == 0)
    # Auto axes: with explicit ones (the default) a plain look-up table[ids] is an error.
    mesh = jax.make_mesh((n,), ("trajectory",), (AxisType.Auto,), devices=devices[:n])
    return Placement(mesh)
