"""What a compiled program sends between devices, read from its HLO text."""

import re
from typing import NamedTuple

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}
_LINE = re.compile(rf"= (\(?[a-z].*?) ({'|'.join(KINDS)})(?:-start)?\(")
_SHAPE = re.compile(r"([a-z]+[0-9]*)\[([0-9,]*)\]")


class Collective(NamedTuple):
    """One of them: its kind, and the bytes of what each device holds once it is done."""

    kind: str
    bytes: int


def collectives(hlo: str) -> list[Collective]:
    """All that a program's text names; one within a loop counts once, for one pass of it."""
    found = []
    for line in hlo.splitlines():
        match = _LINE.search(line)
        if match:
            sizes = [
                BYTES.get(kind, 4) * int(np.prod([int(n) for n in shape.split(",") if n]))
                for kind, shape in _SHAPE.findall(match[1])
            ]
            found.append(Collective(match[2], sum(sizes)))
    return found
