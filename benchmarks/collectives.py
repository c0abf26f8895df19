"""What a compiled program sends between devices, read from its HLO text."""

import re
from functools import cache
from typing import NamedTuple

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}
_LINE = re.compile(rf"= (\(?[a-z].*?) ({'|'.join(KINDS)})(?:-start)?\(")
_SHAPE = re.compile(r"([a-z]+[0-9]*)\[([0-9,]*)\]")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_USES = re.compile(r"(?:to_apply|body)=%?([\w.-]+)")
_PASSES = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


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


def bytes_sent(hlo: str, passes: float) -> float:
    """The bytes of all collectives of a run; a loop that XLA cannot count takes `passes`."""
    lines, name, entry = {}, "", ""
    for line in hlo.splitlines():
        match = _COMPUTATION.match(line)
        if match:
            name = match[2]
            entry = name if match[1] else entry
        lines.setdefault(name, []).append(line)

    @cache
    def of(name: str) -> float:
        total = sum(one.bytes for one in collectives("\n".join(lines.get(name, []))))
        for line in lines.get(name, []):
            counted = _PASSES.search(line)
            times = (int(counted[1]) if counted else passes) if " while(" in line else 1
            total += sum(times * of(used) for used in _USES.findall(line))
        return total

    return of(entry)
