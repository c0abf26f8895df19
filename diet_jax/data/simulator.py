"""A drifting click log of any size whose truth is known: every row is a function of its number.

All draws are hashes of (seed, purpose, row or id) and the world is closed-form in time, so a block
needs no other block. In logits, with unit-variance effects times the strengths of `World`:

    relevance = bias + user + item + preference + daily + weekly + order1 + order2 + order3
                + dense + tags + launch
    click     = position^-position_bias * sigmoid(relevance)         (examined, and wanted)
    observed  = click + label_noise * (1 - 2 click)                  (the label may be flipped)
    label     ~ observed, or a fair coin in a useless row

- preference: in 4 planes an item has an angle near its category's, and a user one that turns at the
  user's own speed; the sum of the cosines of their differences (rank 8).
- order1, 2, 3: s(device), s(device) s(place), s(device) s(place) s(channel), where s is +1 for even
  values and -1 for odd ones. The fields are independent and uniform, so no product shows in fewer
  of its fields; that they share signs lets gradient descent climb from one order to the next.
- daily, weekly: each category has its own best hour and weekday.
- dense: one whole wave over the quantiles of price (an item's) and of load (a row's): no trend.
- tags: the sum of the weights of an item's 1 to 4 tags over the root of their number.
- launch: in each stage `launches` new items get few rows, the influential ones, and in the next
  stage, and only there, the share `burst` of all rows. Nothing but labels tells whether the effect
  is + or - launch, so each early label decides about many later predictions.
- exposure: the logging policy puts relevant rows at better positions. A duplicate is the event
  before it logged again, with the same time and label.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.special import expit, logit

from diet_jax.data.source import Block, Dense, Field, History, Part, Roles, Source
from diet_jax.metrics import auc
from diet_jax.types import InputError

BLOCK = 131_072
START = 1_704_067_200  # 2024-01-01 00:00 UTC, a Monday
DAY = 86_400
CONTEXT = ("device", "place", "channel")
TAGS = 4  # the most an item has


class World(NamedTuple):
    """The parameters. Shares are of rows; strengths are standard deviations in logits."""

    n_rows: int = 1_000_000
    seed: int = 0
    days: float = 28.0  # that the log spans, at a constant rate of rows
    n_users: int = 20_000  # alive at one time; more over the whole log
    n_items: int = 5_000  # alive at one time
    n_categories: int = 32
    n_tags: int = 64  # a multiple of 4
    n_context: int = 16  # values of each context field, even
    n_positions: int = 10
    user_zipf: float = 0.6  # the user of rank r has a share of about r^-user_zipf
    item_zipf: float = 1.0
    user_life: float = 60.0  # mean days from birth to death; each rank's own is 0.5 to 1.5 of it
    item_life: float = 14.0
    drift: float = 0.02  # mean turns a day of a user's factors, either way
    bias: float = -0.5  # logits
    user: float = 0.4
    item: float = 0.6
    preference: float = 1.0
    daily: float = 0.4
    weekly: float = 0.3
    order1: float = 0.4
    order2: float = 0.7
    order3: float = 0.7
    dense: float = 0.5
    tags: float = 0.4
    position_bias: float = 0.5  # the probability of being examined is position^-position_bias
    exposure: float = 0.3  # shift of a position's logit by one logit of relevance
    label_noise: float = 0.02  # probability that a label is flipped
    duplicate: float = 0.01  # share
    useless: float = 0.02  # share
    influential: float = 0.002  # share, in all stages but the last
    burst: float = 0.1  # share, in all stages but the first
    launches: int = 16  # new items a stage
    launch: float = 3.0  # logits
    n_stages: int = 8  # equal pieces of the log: give the run's stages.count; 1: no launches


class Truth(NamedTuple):
    """What is known of n rows.

    probability: float64 [n], of label 1 given all columns but the label: flips and the share of
    useless rows are in it, so no score can have a better expected AUC or log loss.
    duplicate, useless, influential: bool [n], the planted rows; a duplicate is also what its
    original is.
    """

    probability: np.ndarray
    duplicate: np.ndarray
    useless: np.ndarray
    influential: np.ndarray


_BETWEEN = {
    **dict.fromkeys(("n_rows", "n_users", "n_items"), (1, 10**12)),
    **dict.fromkeys(("n_categories", "n_positions", "launches", "n_stages"), (1, 10_000)),
    **{"seed": (0, 2**63 - 1), "n_tags": (TAGS, 60_000), "n_context": (2, 60_000)},
    **dict.fromkeys(("days", "user_life", "item_life"), (0.01, 36_500)),
    **dict.fromkeys(("duplicate", "useless", "influential", "burst"), (0, 0.5)),
    **{"label_noise": (0, 0.49), "bias": (-20, 20)},
}


def check(world: World) -> None:
    """Raises InputError that names the first parameter that makes no sense, and what would."""
    for (name, value), default in zip(world._asdict().items(), World(), strict=True):
        low, high = _BETWEEN.get(name, (0, 20))
        unit = {"n_tags": TAGS, "n_context": 2}.get(name, int(isinstance(default, int)))
        fits = isinstance(value, int if unit else int | float) and low <= value <= high
        if not fits or (unit and value % unit):
            kind = {0: "a number", 1: "a whole number"}.get(unit, f"a multiple of {unit}")
            cure = f"set it to {kind} from {low} to {high}"
            raise InputError(f"simulator: {name} is {value!r}; {cure}")


def block(world: World, number: int) -> tuple[pl.DataFrame, Truth]:
    """Rows number * BLOCK to (number + 1) * BLOCK - 1 of the log (fewer in the last block).

    Columns: label, time (int64, seconds since 1970, ascending), user, item, category, tags (List),
    position, device, place, channel (integers), price, load (float32).
    Raises InputError if the world makes no sense or has no such block.
    """
    last = n_blocks(world) - 1
    if not 0 <= number <= last:
        raise InputError(f"simulator: no block {number}; give one from 0 to {last}")
    row = np.arange(number * BLOCK, min((number + 1) * BLOCK, world.n_rows))
    duplicate = _unit(_bits(world, "again", row)) < world.duplicate
    duplicate[0] = False
    # A duplicate takes the number of the row before it: all that follows is a function of it.
    row = np.maximum.accumulate(np.where(duplicate, row[0], row))
    columns, relevance, influential = _rows(world, row)

    noise = logit(_quarters(_bits(world, "position", row))[0])
    place = expit(noise - world.exposure * (relevance - world.bias))
    position = np.minimum((world.n_positions * place).astype(np.int64) + 1, world.n_positions)
    click = position ** -float(world.position_bias) * expit(relevance.astype(np.float64))
    observed = click + world.label_noise * (1 - 2 * click)
    useless = (_unit(_bits(world, "useless", row)) < world.useless) & ~influential
    label = _unit(_bits(world, "label", row)) < np.where(useless, 0.5, observed)
    mixed = observed + world.useless * (0.5 - observed)

    frame = pl.DataFrame({"label": label.astype(np.int8), **columns, "position": position})
    return frame, Truth(np.where(influential, observed, mixed), duplicate, useless, influential)


def n_blocks(world: World) -> int:
    """How many blocks the log has; raises InputError as `check` does."""
    check(world)
    return -(-world.n_rows // BLOCK)


def source(world: World) -> Source:
    """The log as a source of one part, without the truth. Raises InputError as `check` does."""
    check(world)

    def blocks() -> Iterator[Block]:
        for number in range(n_blocks(world)):
            frame, _ = block(world, number)
            start = number * BLOCK + 1
            yield Block(frame, pl.int_range(start, start + len(frame), eager=True))

    plain = map(Field, ("user", "item", "category", "position", *CONTEXT))
    derived = (Field(name, derived=name) for name in ("hour", "weekday"))
    fields = (*plain, Field("tags", width=TAGS), *derived)
    dense = (Dense("price", "log"), Dense("load"))
    roles = Roles("label", "time", "user", fields, dense, history=History("item", 20))
    licence = "Made up by the simulator of diet_jax: use it as you like."
    return Source("simulator", (Part("simulator", (), blocks),), roles, licence)


def truth(world: World) -> Truth:
    """The truth of the whole log: 11 bytes a row."""
    parts = [block(world, number)[1] for number in range(n_blocks(world))]
    return Truth(*map(np.concatenate, zip(*parts, strict=True)))


def best_auc(world: World) -> float:
    """The AUC of the true probability, on the first million rows at most; NaN with one class."""
    head = 1_000_000
    pairs = [block(world, number) for number in range(n_blocks(world))[: -(-head // BLOCK)]]
    label = np.concatenate([frame["label"] for frame, _ in pairs])
    return auc(label[:head], np.concatenate([known.probability for _, known in pairs])[:head])


def _rows(world: World, row: np.ndarray) -> tuple[dict[str, object], np.ndarray, np.ndarray]:
    """Columns before the click, relevance float32 [n], influential bool [n] of row numbers [n]."""
    moment = (row + _unit(_bits(world, "moment", row))) / world.n_rows
    time = (moment * world.days * DAY).astype(np.int64)
    days = time / DAY
    user = _alive(world, "user", row, days, world.n_users, world.user_zipf, world.user_life)
    item = _alive(world, "item", row, days, world.n_items, world.item_zipf, world.item_life)
    item, launched, influential = _launch(world, row, item)

    traits = _bits(world, "item", item)
    category = (traits % np.uint64(world.n_categories)).astype(np.int64)
    quality, cost, sign, share = _quarters(_bits(world, "traits", item))
    tags, tags_effect = _tags(world, item, share)
    *chance, load = _quarters(_bits(world, "context", row))
    context = (np.stack(chance) * world.n_context).astype(np.int64)
    order = np.cumprod(1 - 2 * (context % 2), axis=0, dtype=np.float32)

    pace, fondness, *_ = _quarters(_bits(world, "user", user))
    turned = (world.drift * (4 * pace - 2) * days % 1).astype(np.float32)
    style = _quarters(_bits(world, "category", np.arange(world.n_categories)))[:, category]
    angle = _quarters(_bits(world, "taste", user)) + turned - style - _quarters(traits) / 4
    preference = _wave(angle).sum(axis=0) / 2
    best = _quarters(_bits(world, "season", np.arange(world.n_categories)))[:, category]
    hour, weekday = (days % 1).astype(np.float32), (days / 7 % 1).astype(np.float32)

    relevance = np.float32(world.bias) + world.user * _even(fondness) + world.item * _even(quality)
    relevance += world.preference * preference
    relevance += world.daily * _wave(hour - best[0]) + world.weekly * _wave(weekday - best[1])
    relevance += world.order1 * order[0] + world.order2 * order[1] + world.order3 * order[2]
    relevance += world.dense * (_wave(cost) + _wave(load)) / 2**0.5 + world.tags * tags_effect
    relevance += np.where(launched, world.launch * np.sign(sign - np.float32(0.5)), np.float32(0))
    columns = {"time": START + time, "user": user, "item": item, "category": category, "tags": tags}
    columns |= dict(zip(CONTEXT, context, strict=True))
    columns |= {"price": np.sqrt(cost / (1 - cost)), "load": logit(load)}
    return columns, relevance, influential


def _launch(world: World, row: np.ndarray, item: np.ndarray):
    """Items int64 [n] with launches put in; where they are, and where they are still rare."""
    stage = row * world.n_stages // world.n_rows
    chance = _unit(_bits(world, "launch", row))
    early = (chance < world.influential) & (stage < world.n_stages - 1)
    late = (chance >= 1 - world.burst) & (stage > 0)
    one = (_unit(_bits(world, "new item", row)) * world.launches).astype(np.int64)
    new = (stage - late) * world.launches + one
    others = item + world.n_stages * world.launches
    return np.where(early | late, new, others), early | late, early


def _tags(world: World, item: np.ndarray, share: np.ndarray) -> tuple[pl.Series, np.ndarray]:
    """Lists of 1 to 4 tags, the first from the first quarter of all, and so on; their effect."""
    quarter = world.n_tags // TAGS
    tag = (_quarters(_bits(world, "tags", item)) * quarter).astype(np.int32)
    tag = (tag + quarter * np.arange(TAGS, dtype=np.int32)[:, None]).T
    n = (share * TAGS).astype(np.int64) + 1
    has = np.arange(TAGS) < n[:, None]
    weight = _even(_quarters(_bits(world, "tag", np.arange(world.n_tags)))[0])
    effect = (weight[tag] * has).sum(axis=1) / np.sqrt(n).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(n)])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tag[has]))
    return pl.Series("tags", lists), effect


def _alive(world, kind: str, row, days, count: int, exponent: float, life: float) -> np.ndarray:
    """int64 [n], ids: each rank is held by one for its life, then by the next one born.

    A rank is a draw of a bounded power law rounded down: Zipf's law without a table of ranks.
    """
    chance, power = _unit(_bits(world, kind + " drawn", row)), 1 - exponent
    if abs(power) < 1e-6:
        draw = np.exp(chance * np.log(count + 1.0))
    else:
        draw = (1 + chance * ((count + 1.0) ** power - 1)) ** (1 / power)
    rank = np.minimum(draw.astype(np.int64), count) - 1
    length, age, *_ = _quarters(_bits(world, kind + " alive", rank))
    generation = days / (life * (0.5 + length.astype(np.float64))) + age
    return rank + count * generation.astype(np.int64)


def _bits(world: World, use: str, number: np.ndarray) -> np.ndarray:
    """uint64 [n]: the outputs `number` of the SplitMix64 generator that (seed, use) starts."""
    seed = _mix(np.array([world.seed], np.uint64))
    start = _mix(seed + np.uint64(int.from_bytes(use.encode(), "little") % (2**64 - 59)))
    return _mix(number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start)


def _mix(x: np.ndarray) -> np.ndarray:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def _unit(bits: np.ndarray) -> np.ndarray:
    """float64 [n] in [0, 1)."""
    return (bits >> np.uint64(11)) * 2.0**-53


def _quarters(bits: np.ndarray) -> np.ndarray:
    """float32 [4, n] in (0, 1): four independent draws of 16 bits."""
    words = bits.astype("<u8", copy=False).view("<u2").reshape(-1, 4).T
    return (words.astype(np.float32) + np.float32(0.5)) / np.float32(65_536)


def _even(chance: np.ndarray) -> np.ndarray:
    """Spread evenly, with mean 0 and variance 1."""
    return (chance - np.float32(0.5)) * np.float32(12**0.5)


def _wave(turns: np.ndarray) -> np.ndarray:
    """A cosine of turns, with variance 1."""
    return np.cos(np.float32(2 * np.pi) * turns) * np.float32(2**0.5)
