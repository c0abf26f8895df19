"""One of four processes with two devices each: `python four.py FILE COORDINATOR N NUMBER`.

The first one writes what they computed together; every one checks what they tell one another.
"""

import sys

import jax
import numpy as np
import pytest
import toy

from diet_jax import sharding
from diet_jax.models import make_model
from diet_jax.models.linear import init_first_order
from diet_jax.sharding import Placement, make_place
from diet_jax.teacher import make_teacher
from diet_jax.types import InputError


def taught(place: Placement) -> np.ndarray:
    """The table of a teacher after a pass over 100 rows on the devices, and another that is fed."""
    rng, model = np.random.default_rng(0), make_model("LR", dim=1, hidden=())
    rows = toy.rows(rng, 100)
    table, net = np.zeros((toy.VOCAB, 1), np.float32), init_first_order(rows.dense)
    params = {"table": table, "net": net}
    for chunk in (0, 5):
        teacher = make_teacher(model, 0.05, 8, toy.VOCAB, 3, 1, 100, place, chunk)
        params = teacher.advance(params, rows, 1.0, rng)
    return params["table"]


def member(path: str, coordinator: str, n: int, number: int) -> None:
    sharding.join(coordinator, n, number)
    assert sharding.several() and jax.device_count() == 8
    assert sharding.told_by_first(lambda: {"from": number}) == {"from": 0}
    assert [sharding.any_process(number == k) for k in (3, 4)] == [True, False]
    assert sharding.of_first(np.arange(3) + number).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="not hold the same log; see to it"):
        sharding.same_everywhere("log", number // 3, "see to it")

    def fails():
        raise InputError("of the first")

    with pytest.raises(InputError, match="of the first"):
        sharding.told_by_first(fails)
    place, asked = make_place(1, data=2, table=4), []

    def read(index):
        asked.append(np.arange(16).reshape(2, 8)[index])
        return asked[-1]

    place.spread((2, 8), (None, "data"), read)
    # Both devices of a process hold the same half, which is read once.
    assert [part.shape for part in asked] == [(2, 4)]
    table = taught(place)
    if sharding.is_first():
        np.save(path, table)


if __name__ == "__main__":
    path, *flags = sys.argv[1:]
    coordinator, n, number = (flag.partition("=")[2] for flag in flags)
    member(path, coordinator, int(n), int(number))
