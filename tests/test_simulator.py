"""The simulated log is what it claims to be: its rows, its truth and its planted rows."""

import tracemalloc

import numpy as np
import polars as pl
import pytest

from diet_jax.data import simulator
from diet_jax.data.simulator import BLOCK, World
from diet_jax.metrics import auc
from diet_jax.types import InputError

EFFECTS = ("user", "item", "preference", "daily", "weekly")
EFFECTS += ("order1", "order2", "order3", "dense", "tags", "launch")
PLANTED = ("duplicate", "useless", "influential", "burst")
# Only the bias is left: probability = sigmoid(bias).
BARE = World(n_rows=BLOCK, item_zipf=0.0, position_bias=0.0, exposure=0.0, label_noise=0.0)
BARE = BARE._replace(**dict.fromkeys(EFFECTS + PLANTED, 0.0))
WORLD = World(n_rows=3 * BLOCK + 1000)


def log(world: World) -> pl.DataFrame:
    """The whole log, with the truth as further columns."""
    pairs = [simulator.block(world, k) for k in range(simulator.n_blocks(world))]
    return pl.concat([frame.with_columns(**known._asdict()) for frame, known in pairs])


@pytest.fixture(scope="module")
def plain():
    return log(WORLD)


def sign(values: pl.Series) -> np.ndarray:
    return 1 - 2 * (values.to_numpy() % 2)


def logit(frame: pl.DataFrame) -> np.ndarray:
    p = frame["probability"].to_numpy()
    return np.log(p / (1 - p))


def test_a_block_depends_on_seed_and_number_only(plain):
    start = 0
    alone = {k: simulator.block(WORLD, k) for k in (3, 1, 0, 2)}
    for k, streamed in enumerate(simulator.source(WORLD).parts[0].blocks()):
        frame, known = alone[k]
        assert frame.equals(streamed.frame)
        assert streamed.rows.to_list() == list(range(start + 1, start + len(frame) + 1))
        assert frame.with_columns(**known._asdict()).equals(plain.slice(start, len(frame)))
        start += len(frame)
    assert start == WORLD.n_rows
    whole = simulator.truth(WORLD)
    for name, values in whole._asdict().items():
        assert np.array_equal(values, plain[name])
    other, _ = simulator.block(WORLD._replace(seed=1), 0)
    for column in set(other.columns) - {"label"}:
        assert not other[column].equals(alone[0][0][column]), column


def test_the_source_says_what_it_holds():
    source = simulator.source(WORLD)
    roles, frame = source.roles, next(source.parts[0].blocks()).frame
    raw = [field.name for field in roles.fields if not field.derived]
    named = [roles.label, roles.time, *raw, *(dense.name for dense in roles.dense)]
    assert sorted(named) == sorted(frame.columns)
    assert roles.user in raw and roles.history and roles.history.field in raw
    assert [field.derived for field in roles.fields if field.derived] == ["hour", "weekday"]
    assert frame["tags"].dtype == pl.List(pl.Int32)
    assert frame["tags"].list.len().unique().sort().to_list() == [1, 2, 3, 4]
    assert (frame["tags"].list.len() == frame["tags"].list.n_unique()).all()
    traits = frame.group_by("item").agg(pl.col("tags", "category", "price").n_unique())
    assert traits.drop("item").max().row(0) == (1, 1, 1)


def test_time_ascends_and_spans_the_days(plain):
    time = plain["time"].to_numpy()
    assert (np.diff(time) >= 0).all()
    assert time[0] - simulator.START < 60
    assert abs(time[-1] - simulator.START - WORLD.days * 86_400) < 60


def test_memory_does_not_grow_with_the_log():
    def peak(n_blocks):
        tracemalloc.start()
        for _ in simulator.source(World(n_rows=n_blocks * BLOCK)).parts[0].blocks():
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(4) < 1.5 * peak(1)


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.3])
def test_popularity_follows_zipf(exponent):
    world = BARE._replace(item_zipf=exponent, item_life=36_500.0, n_items=500)
    shares = log(world)["item"].value_counts(sort=True)["count"].to_numpy()[2:50]
    slope, _ = np.polyfit(np.log(np.arange(3, 51) + 0.0), np.log(shares), 1)
    assert abs(slope + exponent) < 0.1


@pytest.mark.parametrize("column", ["user", "item"])
def test_users_and_items_are_born_and_die(plain, column):
    days = (plain["time"] - simulator.START) / 86_400
    regular = plain.filter(pl.col("item") >= WORLD.n_stages * WORLD.launches)
    first, later = set(regular.head(40_000)[column]), set(regular.slice(100_000, 40_000)[column])
    assert first & later and later - first and first - later
    life = (
        plain.with_columns(day=days).group_by(column).agg(pl.col("day").max() - pl.col("day").min())
    )
    assert life["day"].max() <= 1.5 * getattr(WORLD, f"{column}_life")
    # The number alive at one time stays.
    assert regular.head(2000)[column].n_unique() == pytest.approx(
        regular.tail(2000)[column].n_unique(), rel=0.1
    )


def test_labels_are_drawn_from_the_probability(plain):
    kept = plain.filter(~pl.col("duplicate")).sort("probability")
    for part in np.array_split(np.arange(len(kept)), 20):
        p, label = kept["probability"].to_numpy()[part], kept["label"].to_numpy()[part]
        assert abs(label.mean() - p.mean()) < 4.5 * np.sqrt((p * (1 - p)).mean() / len(p))
    assert kept["probability"].min() > 0.02  # label noise and the coins of useless rows


@pytest.mark.parametrize("effect", EFFECTS[:-1])
def test_each_strength_is_the_standard_deviation_of_its_effect(effect):
    frame = log(BARE._replace(**{effect: 0.8}))
    assert logit(frame).std() == pytest.approx(0.8, rel=0.1)
    assert logit(frame).mean() == pytest.approx(BARE.bias, abs=0.3)


def test_orders_have_their_strengths_and_show_in_no_fewer_fields():
    world = BARE._replace(order1=0.2, order2=0.5, order3=0.9)
    frame = log(world)
    product = np.ones(len(frame))
    for name, strength in zip(simulator.CONTEXT, (0.2, 0.5, 0.9), strict=True):
        product = product * sign(frame[name])
        assert (logit(frame) * product).mean() == pytest.approx(strength, abs=0.02)
    frame = log(BARE._replace(order3=0.9))
    for pair in (["device", "place"], ["device", "channel"], ["place", "channel"]):
        means = frame.with_columns(logit=logit(frame)).group_by(pair).agg(pl.col("logit").mean())
        assert means["logit"].std() < 2 * 0.9 / np.sqrt(len(frame) / 16**2)


def test_dense_features_tell_nothing_along_a_line():
    frame = log(BARE._replace(dense=1.0))
    for name in ("price", "load"):
        value = frame[name].rank().to_numpy()
        wave = np.cos(2 * np.pi * value / len(frame))
        assert abs(np.corrcoef(value, logit(frame))[0, 1]) < 0.05
        assert np.corrcoef(wave, logit(frame))[0, 1] == pytest.approx(0.5**0.5, abs=0.05)


def test_seasons_recur():
    for effect, period, bins in (("daily", 86_400, 24), ("weekly", 7 * 86_400, 7)):
        frame = log(BARE._replace(**{effect: 1.0}))
        phase = (pl.col("time") - simulator.START) % period * bins // period
        frame = frame.with_columns(logit=logit(frame), phase=phase)
        halves = frame.head(BLOCK // 2), frame.tail(BLOCK // 2)
        first, second = (
            half.group_by("category", "phase").agg(pl.col("logit").mean()) for half in halves
        )
        both = first.join(second, on=["category", "phase"])
        assert len(both) == World().n_categories * bins
        assert np.corrcoef(both["logit"], both["logit_right"])[0, 1] > 0.95


def test_position_bias_and_exposure():
    examined = np.arange(1, 11) ** -0.5
    world = BARE._replace(position_bias=0.5, preference=1.0)
    for exposure in (0.0, 0.5):
        frame = log(world._replace(exposure=exposure))
        relevance = frame["probability"].to_numpy() / examined[frame["position"].to_numpy() - 1]
        frame = frame.with_columns(relevance=relevance)
        by_position = frame.group_by("position").agg(pl.col("relevance").mean(), n=pl.len())
        by_position = by_position.sort("position")
        assert by_position["position"].to_list() == list(range(1, 11))
        if exposure:
            assert (by_position["relevance"].diff().drop_nulls() < 0).all()
        else:
            spread = by_position["relevance"].max() - by_position["relevance"].min()
            assert spread < 0.02
            np.testing.assert_allclose(by_position["n"] / len(frame), 0.1, rtol=0.05)


def decay(world: World, keys: list[str]) -> tuple[float, float]:
    """AUC on the second and on the last tenth of the rates per `keys` in the first tenth.

    (The logistic model of one categorical feature has no other solution.)
    """
    frame = log(world)
    tenth = len(frame) // 10
    rates = frame.head(tenth).group_by(keys).agg(rate=(pl.col("label").sum() + 1) / (pl.len() + 2))

    def score(start):
        known = frame.slice(start, tenth).join(rates, on=keys, how="left", maintain_order="left")
        return auc(known["label"].to_numpy(), known["rate"].fill_null(0.5).to_numpy())

    return score(tenth), score(9 * tenth)


def test_what_was_learned_goes_stale():
    small = BARE._replace(n_rows=3 * BLOCK, n_users=50, n_categories=8, user_zipf=0.0)
    tastes = small._replace(preference=2.0, user_life=36_500.0)
    near, far = decay(tastes._replace(drift=0.03), ["user", "category"])
    assert near > 0.7 and far < near - 0.1
    near, far = decay(tastes._replace(drift=0.0), ["user", "category"])
    assert far == pytest.approx(near, abs=0.02)
    items = small._replace(item=1.5, n_items=300)
    near, far = decay(items, ["item"])
    assert near > 0.7 and far < near - 0.1
    near, far = decay(items._replace(item_life=36_500.0), ["item"])
    assert far == pytest.approx(near, abs=0.02)


def test_duplicates_repeat_the_row_before(plain):
    planted = plain["duplicate"].to_numpy()
    assert planted.mean() == pytest.approx(WORLD.duplicate, rel=0.1)
    rest = plain.drop("duplicate")
    where = np.flatnonzero(planted)
    assert rest[where].equals(rest[where - 1])
    others = np.flatnonzero(~planted)[1:]
    columns = ["user", "item", "load", "device"]
    same = rest[others].select(columns).to_numpy() == rest[others - 1].select(columns).to_numpy()
    assert not same.all(axis=1).any()


def test_useless_rows_carry_no_signal(plain):
    label, p, useless = (plain[c].to_numpy() for c in ("label", "probability", "useless"))
    assert useless.mean() == pytest.approx(WORLD.useless, rel=0.1)
    assert label[useless].mean() == pytest.approx(0.5, abs=0.03)
    assert auc(label[useless], p[useless]) == pytest.approx(0.5, abs=0.03)
    assert auc(label[~useless], p[~useless]) > 0.75
    # Nothing but the label tells them apart.
    assert auc(useless, p) == pytest.approx(0.5, abs=0.03)


def test_few_early_labels_of_a_launch_tell_the_many_of_the_next_stage(plain):
    n, stages = WORLD.n_rows, WORLD.n_stages
    stage = np.arange(n) * stages // n
    frame = plain.with_columns(stage=pl.Series(stage))
    early = frame.filter("influential")
    assert early["stage"].unique().sort().to_list() == list(range(stages - 1))
    assert len(early) / n == pytest.approx(WORLD.influential * (stages - 1) / stages, rel=0.1)
    born = early.group_by("item").agg(pl.col("stage").unique(), rate=pl.col("label").mean())
    assert 0.95 * (stages - 1) * WORLD.launches < len(born) <= (stages - 1) * WORLD.launches
    late = frame.filter(~pl.col("influential")).join(born.select("item"), on="item", how="semi")
    assert len(late) / n == pytest.approx(WORLD.burst * (stages - 1) / stages, rel=0.05)
    burst = late.group_by("item").agg(pl.col("stage").unique(), rate=pl.col("label").mean())
    both = born.join(burst, on="item", suffix="_late")
    assert len(both) == len(born)
    assert (both["stage"].list.len() == 1).all() and (both["stage_late"].list.len() == 1).all()
    assert (both["stage"].list.first() + 1 == both["stage_late"].list.first()).all()
    assert np.corrcoef(both["rate"], both["rate_late"])[0, 1] > 0.7
    one = simulator.truth(WORLD._replace(n_rows=BLOCK, n_stages=1))
    assert not one.influential.any()


def test_the_best_auc_is_that_of_the_truth(plain):
    label, p = plain["label"].to_numpy(), plain["probability"].to_numpy()
    best = simulator.best_auc(WORLD)
    assert best == auc(label, p)
    assert best > auc(label, p + np.random.default_rng(0).normal(0, 0.05, len(p)))
    assert simulator.best_auc(WORLD._replace(label_noise=0.2)) < best - 0.1
    blind = simulator.best_auc(BARE._replace(user=1e-9))
    assert blind == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_rows": 0}, ("n_rows is 0", "whole number from 1")),
        ({"n_rows": 1e6}, ("n_rows is 1000000.0", "whole number")),
        ({"seed": -1}, ("seed is -1", "from 0")),
        ({"days": float("nan")}, ("days is nan", "0.01")),
        ({"item_life": 0.0}, ("item_life is 0.0",)),
        ({"item_zipf": -1.0}, ("item_zipf is -1.0", "from 0")),
        ({"n_tags": 6}, ("n_tags is 6", "multiple of 4")),
        ({"n_context": 5}, ("n_context is 5", "multiple of 2")),
        ({"label_noise": 0.7}, ("label_noise is 0.7", "0.49")),
        ({"useless": 1.2}, ("useless is 1.2", "0.5")),
        ({"order2": float("inf")}, ("order2 is inf",)),
        ({"drift": "fast"}, ("drift is 'fast'", "a number")),
    ],
)
def test_worlds_that_cannot_be(change, words):
    for ask in (simulator.source, simulator.truth, lambda world: simulator.block(world, 0)):
        with pytest.raises(InputError) as caught:
            ask(World(**change))
        message = str(caught.value)
        assert message.startswith("simulator: ") and "\n" not in message
        assert all(word in message for word in words), message


def test_there_is_no_block_beyond_the_log():
    for number in (-1, 4):
        with pytest.raises(InputError, match="no block .* from 0 to 3"):
            simulator.block(WORLD, number)


@pytest.mark.parametrize(
    "world",
    [
        World(n_rows=1),
        World(n_rows=5, days=0.01, n_users=1, n_items=1, n_categories=1, n_tags=4, n_context=2),
        World(n_rows=10**12, seed=2**63 - 1, n_users=10**12, n_items=10**12, days=36_500.0),
        World(n_rows=2000, **{name: 1 for name in (*EFFECTS, "item_zipf", "position_bias")}),
        World(n_rows=2000, **dict.fromkeys(PLANTED, 0.5), item_zipf=20, launch=20, bias=-20),
    ],
)
def test_extreme_worlds_are_sound(world):
    frame, known = simulator.block(world, simulator.n_blocks(world) - 1)
    assert len(frame) == (world.n_rows - 1) % BLOCK + 1
    assert frame.null_count().sum_horizontal().item() == 0
    assert ((known.probability >= 0) & (known.probability <= 1)).all()
    numbers = frame.drop("tags").cast(pl.Float64)
    assert numbers.select(pl.all().is_finite().all()).row(0) == (True,) * numbers.width
    assert frame.select((pl.col("user", "item", "category") >= 0).all()).row(0) == (True,) * 3
