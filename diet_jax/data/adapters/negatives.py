"""Gives a log of nothing but clicks the rows that were not clicked, drawn from its own past."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from diet_jax.data.source import Block, Part
from diet_jax.types import InputError

LABEL = "label"
# Counts are brought up to date after each CHUNK clicks of the part, wherever its blocks end: so
# draws do not depend on the blocks, and memory is bounded by the number of items.
CHUNK = 1 << 14
_NUMBER = "number of the item"
# The last half of them by the other way to sample: one item may hold nearly all clicks, and in a
# log out of order most items may lie in the future.
_TRIES = 8


class _Past(NamedTuple):
    """What is known of the clicks before a row; items are numbered by their first click.

    count, first: int64 [items], clicks and earliest time of each item as of the chunk's start; an
    item that is newer has no count and the time of its first row. item, time: int64 [< CHUNK], the
    chunk's clicks so far.
    """

    count: np.ndarray
    first: np.ndarray
    item: np.ndarray
    time: np.ndarray


def with_negatives(
    part: Part,
    item: str,
    time: str,
    of_item: tuple[str, ...] = (),
    *,
    negatives: int = 1,
    sampling: str = "popularity",
    seed: int = 0,
) -> Part:
    """The part with a column 'label': 1 in the rows it has, 0 in `negatives` rows after each.

    A negative row is its click with another item: one that was clicked in an earlier row and at no
    later time. "popularity" draws the item of an earlier click, "uniform" one of the items seen so
    far. Draws depend on (seed, row number, what came before) alone. A click for which the past
    offers no other item (the first ones of a log) has fewer negatives, and a row without item or
    time has none. time: a Date or Datetime column. of_item: columns that belong to the item; clicks
    and negatives alike hold the value of the item's first row, which can so not tell them apart.
    Raises InputError for options that make no sense.
    """
    if sampling not in ("popularity", "uniform"):
        raise InputError(f"sampling is {sampling!r}; set it to 'popularity' or 'uniform'")
    if not (isinstance(negatives, int) and negatives >= 0):
        raise InputError(f"negatives is {negatives!r}; set it to a whole number of 0 or more")
    if not isinstance(seed, int):
        raise InputError(f"seed is {seed!r}; set it to a whole number")

    def blocks() -> Iterator[Block]:
        table = pl.DataFrame()  # the items seen so far, one row each
        none = np.zeros(0, np.int64)
        past = _Past(none, none, none, none)
        for block in part.blocks():
            micros = block.frame[time].cast(pl.Datetime("us")).dt.epoch("us")
            table, number = _number(table, block.frame, item, of_item, micros)
            usable = number.is_not_null().arg_true().to_numpy()
            code = number.drop_nulls().to_numpy()
            when, row = (x.gather(usable).to_numpy() for x in (micros, block.rows))
            seen = len(past.first)
            new = np.unique(code[code >= seen], return_index=True)[1]
            past = past._replace(
                count=np.concatenate([past.count, np.zeros(len(new), np.int64)]),
                first=np.concatenate([past.first, when[code >= seen][new]]),
            )
            known = np.maximum.accumulate(np.concatenate([[seen], code + 1]))[:-1]
            drawn = np.full((len(block.frame), negatives), -1)
            start = 0
            while start < len(code):
                cut = slice(start, min(len(code), start + CHUNK - len(past.item)))
                click = (code[cut], when[cut], row[cut].astype(np.uint64), known[cut])
                drawn[usable[cut]], past = _draw(past, *click, negatives, sampling, seed)
                start = cut.stop
            yield _lay_out(block, table, number, drawn)

    return part._replace(blocks=blocks)


def _number(table, frame, item, of_item, micros) -> tuple[pl.DataFrame, pl.Series]:
    """The items with those that are new, and the rows' numbers in it, null where unusable."""
    clicks = frame.select(item, *of_item)
    usable = clicks.filter(micros.is_not_null() & clicks[item].is_not_null())
    first = usable.unique(item, keep="first", maintain_order=True)
    # The items may be many more than a block's: hash the block's.
    old = table.join(first, item, "semi") if len(table) else first.clear().with_row_index(_NUMBER)
    new = first.join(old, item, "anti", maintain_order="left").with_row_index(_NUMBER, len(table))
    table = pl.concat([table, new], rechunk=True) if len(table) else new
    known = pl.concat([old, new]).select(item, pl.col(_NUMBER).cast(pl.Int64))
    number = clicks.join(known, item, "left", maintain_order="left")[_NUMBER]
    return table, number.set(micros.is_null(), None)


def _draw(past, code, when, row, known, negatives, sampling, seed) -> tuple[np.ndarray, _Past]:
    """Items int64 [n, negatives] for n clicks of one chunk, -1 for none, and the past after them.

    known: int64 [n], how many items were seen before each click.
    """
    before = np.cumsum(past.count)
    total = int(before[-1]) if len(before) else 0
    recent = np.concatenate([past.item, code])
    earlier = total + len(past.item) + np.arange(len(code))
    others = known - (code < known)
    drawn = np.full((len(code), negatives), -1)
    for nth in range(negatives):
        left = np.flatnonzero(others > 0)
        for attempt in range(_TRIES):
            dice = _dice(seed, row[left], nth * _TRIES + attempt)
            if (sampling == "popularity") == (attempt < _TRIES // 2):
                pick = (dice % earlier[left].astype(np.uint64)).astype(np.int64)
                guess = recent[np.maximum(pick - total, 0)]
                old = pick < total
                guess[old] = np.searchsorted(before, pick[old], side="right")
            else:
                guess = (dice % others[left].astype(np.uint64)).astype(np.int64)
                guess += guess >= code[left]  # passes over the clicked item
            good = (guess != code[left]) & (past.first[guess] <= when[left])
            drawn[left[good], nth] = guess[good]
            left = left[~good]
    times = np.concatenate([past.time, when])
    if len(recent) < CHUNK:
        return drawn, past._replace(item=recent, time=times)
    first = past.first.copy()
    np.minimum.at(first, recent, times)
    count = past.count + np.bincount(recent, minlength=len(first))
    return drawn, _Past(count, first, recent[:0], times[:0])


def _dice(seed: int, row: np.ndarray, nth: int) -> np.ndarray:
    """uint64 [n] of random bits, a pure function of (seed, row, nth): SplitMix64 twice."""
    bits = row
    for key in (seed, nth):
        bits = bits + np.uint64((key + 1) * 0x9E3779B97F4A7C15 % 2**64)
        bits = (bits ^ (bits >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> 27)) * np.uint64(0x94D049BB133111EB)
        bits = bits ^ (bits >> 31)
    return bits


def _lay_out(block: Block, table: pl.DataFrame, number: pl.Series, drawn: np.ndarray) -> Block:
    """Each click followed by its negatives, which repeat its row number."""
    clicked = number.fill_null(-1).to_numpy()
    every = np.concatenate([clicked[:, None], drawn], axis=1)
    positive = np.zeros(every.shape, bool)
    positive[:, 0] = True
    keep = positive | (every >= 0)
    of = np.nonzero(keep)[0]
    item = pl.Series(every[keep])
    items = table.drop(_NUMBER).select(pl.all().gather(item.set(item < 0, None)))
    label = pl.Series(LABEL, positive[keep].astype(np.int8))
    frame = block.frame[of].with_columns(items.get_columns()).with_columns(label)
    return block._replace(frame=frame, rows=block.rows[of])
