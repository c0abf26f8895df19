"""What a row says of the past agrees with a plain loop over the rows before it."""

import tracemalloc

import numpy as np
import polars as pl
import pytest
import small_logs
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import ROLES, columns, load, source, texts

from diet_jax.data import features, records
from diet_jax.data.source import Dense, Field, History

SEEDS = st.integers(0, 2**32 - 1)
EVENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 5), st.booleans()),
    min_size=1,
    max_size=40,
)


def brute_histories(user, item, time, positive, length):
    out = np.full((len(user), length), -1)
    for n in range(len(user)):
        past = [
            item[m]
            for m in range(len(user))
            if user[m] == user[n] and positive[m] and time[m] < time[n]
        ][-length:]
        if past:
            out[n, -len(past) :] = past
    return out


@given(EVENTS, st.integers(1, 4), st.integers(1, 7))
def test_histories_agree_with_a_plain_loop(events, length, chunk):
    """Ties in time, and users whose rows are spread over chunks."""
    user, item, time, positive = map(np.array, zip(*events, strict=True))
    time = np.sort(time)
    past, found = features.no_past(3, length), []
    for at in range(0, len(user), chunk):
        cut = slice(at, at + chunk)
        seen, past = features.histories(past, user[cut], item[cut], time[cut], positive[cut])
        found.append(seen)
    expected = brute_histories(user, item, time, positive, length)
    assert np.concatenate(found).tolist() == expected.tolist()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 9))
def test_counts_agree_with_a_plain_loop(codes, chunk):
    codes, counts = np.array(codes), np.zeros(4, np.int64)
    found = [
        features.seen_before(counts, codes[at : at + chunk]) for at in range(0, len(codes), chunk)
    ]
    seen = [(codes[:n] == code).sum() for n, code in enumerate(codes)]
    assert np.concatenate(found).tolist() == [int(s + 1).bit_length() - 1 for s in seen]


@settings(max_examples=15)
@given(SEEDS)
def test_histories_and_counts_of_a_log(tmp_path_factory, seed):
    """In the order of time, not of the file; what is not known yet is unknown."""
    rng, tmp = np.random.default_rng(seed), tmp_path_factory.mktemp("log")
    log = small_logs.random_log(rng, 50)
    log["label"][:2], log["label"][-2:] = (0, 1), (1, 0)
    mixed = pl.DataFrame(log)[rng.permutation(50)]
    roles = ROLES._replace(
        fields=(*ROLES.fields, Field("seen", derived="count:item")), history=History("item", 3)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK", 7)
        stream = load(source(mixed, roles=roles), tmp, stages=1)
    row = mixed.with_row_index().sort("time", maintain_order=True)
    assert texts(stream, "item") == row["item"].cast(pl.String).to_list()
    item = row["item"].to_numpy()
    expected = brute_histories(row["user"], item, row["time"], row["label"], 3)
    assert texts(stream, "history") == [[str(i) for i in r if i >= 0] for r in expected]
    seen = [int((item[:n] == item[n]).sum() + 1).bit_length() - 1 for n in range(50)]
    assert texts(stream, "seen") == [str(s) for s in seen]


def test_rows_without_a_user_share_no_history(tmp_path):
    log = small_logs.random_log(np.random.default_rng(0), 40)
    log |= {"label": [1, 0] * 20, "user": [None, "a"] * 10 + ["b", None] * 10}
    roles = ROLES._replace(history=History("item", 3))
    for fields in (ROLES.fields, ROLES.fields[1:]):  # the user as a field, or not
        stream = load(source(log, roles=roles._replace(fields=fields)), tmp_path, stages=1)
        past = texts(stream, "history")
        assert all(past[row] == [] for row, user in enumerate(log["user"]) if user is None)
        assert any(past[row] for row, user in enumerate(log["user"]) if user == "b")


def test_what_a_time_says(tmp_path):
    log = {"user": [1, 1, 2], "item": [1, 2, 3], "label": [0, 1, 0]}
    log["time"] = ["1970-01-01 23:59:59", "2024-05-31 00:00:00", "2024-06-02 07:00"]
    kinds = ("hour", "weekday", "day")
    roles = ROLES._replace(fields=(*ROLES.fields, *(Field(k, derived=k) for k in kinds)))
    stream = load(source(log, roles=roles), tmp_path, stages=1)
    assert texts(stream, "hour") == ["23", "0", "7"]
    assert texts(stream, "weekday") == ["Thu", "Fri", "Sun"]
    assert texts(stream, "day") == ["0", "19874", "19876"]


# No closer together than this: a scale fitted to less loses what is huge beside it.
FINITE = st.floats(-1e6, 1e6, width=32).map(lambda x: round(x, 3))


@given(st.lists(FINITE, min_size=1, max_size=50), st.lists(FINITE, max_size=9), st.integers(1, 9))
def test_unscale_inverts_rescale(first, later, chunk):
    kinds = (Dense("a", "none"), Dense("b"), Dense("c", "log"), Dense("d", "quantile"))
    x = np.repeat(np.array(first, np.float32)[:, None], 4, axis=1)
    scales = features.fit_scales(
        (x[at : at + chunk] for at in range(0, len(x), chunk)), len(x), kinds
    )
    y = np.repeat(np.array(later, np.float32)[:, None], 4, axis=1)
    for values, same in ((x, slice(4)), (y, slice(3))):  # quantiles end with the first stage
        there = features.rescale(values, scales, kinds)
        back = features.unscale(there, scales)
        assert there.dtype == back.dtype == np.float32
        size = np.abs(x).max(initial=1) + np.abs(values).max(initial=1)
        np.testing.assert_allclose(back[:, same], values[:, same], rtol=1e-3, atol=1e-5 * size)


def test_what_hardly_varied_at_first_stays_finite():
    first = np.array([[0.0], [1e-37]], np.float32)
    scales = features.fit_scales([first], 2, (Dense("a"),))
    later = features.rescale(np.array([[1e6], [-1e6]], np.float32), scales, (Dense("a"),))
    assert np.isfinite(later).all() and later[0] > 0 > later[1]


def test_scales_are_those_of_the_first_stage(tmp_path):
    n = 40
    x = np.concatenate([np.arange(20.0), np.full(20, 1e6)])
    log = {"user": [1] * n, "item": [1] * n, "label": [0, 1] * 20, "time": np.arange(n)}
    log |= {"plain": x, "usual": x, "bent": -x, "ranked": x, "still": np.full(n, 7.0)}
    kinds = {"plain": "none", "usual": "standard", "bent": "log", "ranked": "quantile"}
    dense = tuple(Dense(name, kind) for name, kind in kinds.items())
    roles = ROLES._replace(dense=(*dense, Dense("still")))
    stream = load(source(log, roles=roles), tmp_path)
    plain, usual, bent, ranked, still = columns(stream)[1].T
    assert (plain == x.astype(np.float32)).all() and (still == 0).all()
    for scaled, raw in ((usual, x), (bent, -np.log1p(x))):
        first = raw[:20]
        np.testing.assert_allclose(scaled, (raw - first.mean()) / first.std(), rtol=1e-5)
    np.testing.assert_allclose(ranked[:20], np.linspace(-1, 1, 20), atol=1e-6)
    assert (ranked[20:] == 1).all()


def test_a_quantile_scale_is_fitted_on_a_sample_of_a_long_stage(monkeypatch):
    monkeypatch.setattr(features, "SAMPLE", 100)
    x = np.arange(10_000.0)[:, None]
    chunks = [x[at : at + 77] for at in range(0, len(x), 77)]
    (scale,) = features.fit_scales(chunks, len(x), (Dense("x", "quantile"),))
    assert len(scale.knots) <= 100 * 3 and scale.mean == pytest.approx(x.mean())
    np.testing.assert_allclose(scale.knots, np.linspace(0, 9900, len(scale.knots)), atol=60)


def test_scales_are_fitted_in_memory_that_the_rows_do_not_fill():
    n, size = 60, 100_000  # 240 MB of rows
    chunks = (np.random.default_rng(k).normal(size=(size, 5)) for k in range(n))
    tracemalloc.start()
    features.fit_scales(chunks, n * size, (Dense("x"),) * 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_chunk_size_makes_no_difference(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    log = small_logs.random_log(rng, 60, times=9) | {"x": rng.lognormal(size=60)}
    roles = ROLES._replace(
        fields=(*ROLES.fields, Field("seen", derived="count:user")),
        dense=(Dense("x", "quantile"),),
        history=History("item", 2),
    )
    found = []
    for chunk, size in ((1000, 1000), (1, 1000), (7, 11)):
        monkeypatch.setattr(records, "CHUNK", chunk)
        found.append(load(source(log, roles=roles, size=size), tmp_path, min_count=2))
    for other in found[1:]:
        assert list(other.values) == list(found[0].values)
        for a, b in zip(columns(found[0]), columns(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
