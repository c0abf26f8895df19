"""Selectors choose what their papers say, and baselines keep and label as they are named."""

import jax
import numpy as np
import optax
import pytest
import toy

from diet_jax import select, trials
from diet_jax.baselines import find
from diet_jax.models import logits, make_model
from diet_jax.select import SELECTORS, Look
from diet_jax.teacher import make_teacher
from diet_jax.types import InputError


def look(number: int = 2, epochs: float = 4.0) -> Look:
    stage = toy.stage(number)
    model = make_model("MLP", 2, (4,), 0.3)
    n = len(stage.source)
    teacher = make_teacher(model, 0.05, 8, toy.VOCAB, n_fields=3, n_dense=1, n_stage=n)
    params = teacher.advance(
        teacher.init(jax.random.key(0)), stage.rows, epochs, np.random.default_rng(0)
    )
    z = teacher.predict(params, stage.rows.ids, stage.rows.dense)
    ahead = teacher.predict(params, stage.ahead_ids, stage.rows.dense)
    return Look(stage._replace(teacher_logit=z, ahead_logit=ahead), teacher, params)


@pytest.fixture(scope="module")
def seen() -> Look:
    return look()


@pytest.mark.parametrize("name", SELECTORS)
def test_a_selector_gives_distinct_rows_the_same_each_time(seen, name):
    one, again = (SELECTORS[name](seen, 20, np.random.default_rng(3)) for _ in range(2))
    assert len(set(one)) == 20 and 0 <= one.min() and one.max() < len(seen.stage.source)
    assert np.array_equal(one, again)
    few = SELECTORS[name](seen, 1, np.random.default_rng(3))
    assert few.shape == (1,)


@pytest.mark.parametrize("name", ["stratified", "herding", "k_center"])
def test_coresets_keep_the_proportion_of_labels(seen, name):
    label = seen.stage.rows.label
    chosen = SELECTORS[name](seen, 30, np.random.default_rng(0))
    assert abs(label[chosen].mean() - label.mean()) <= 1 / 30


def test_stratified_rows_cover_more_values_than_random_ones(seen):
    def values(name):
        found = [SELECTORS[name](seen, 8, np.random.default_rng(s)) for s in range(10)]
        return np.mean([len(np.unique(seen.stage.rows.ids[rows])) for rows in found])

    assert values("stratified") > values("random") + 1


def test_herding_follows_the_mean_better_than_random_rows(seen):
    x = select.embeddings(seen)
    label = seen.stage.rows.label > 0

    def distance(rows):
        parts = [x[rows[label[rows] == k]].mean(0) - x[label == k].mean(0) for k in (0, 1)]
        return np.mean(np.square(parts))

    drawn = [distance(np.random.default_rng(s).choice(len(x), 16, False)) for s in range(20)]
    assert distance(select.herding(seen, 16, np.random.default_rng(0))) < min(drawn)


def test_k_center_leaves_no_row_as_far_as_random_rows_do(seen):
    x, label = select.embeddings(seen), seen.stage.rows.label

    def farthest(rows):
        gap = np.square(x[:, None] - x[rows][None]).sum(2)
        gap = np.where(label[:, None] == label[rows][None], gap, np.inf)
        return gap.min(1).max()

    drawn = [farthest(np.random.default_rng(s).choice(len(x), 16, False)) for s in range(20)]
    assert farthest(select.k_center(seen, 16, np.random.default_rng(0))) < np.mean(drawn)


def test_k_center_takes_no_row_twice_where_all_are_alike(seen):
    rows = seen.stage.rows
    alike = rows._replace(ids=0 * rows.ids, dense=0 * rows.dense, label=0 * rows.label)
    one = seen._replace(stage=seen.stage._replace(rows=alike))  # and no positive one to take
    assert len(set(select.k_center(one, 16, np.random.default_rng(0)))) == 16


def test_slopes_are_those_of_the_rows_own_gradients(seen):
    rows, model = seen.stage.rows, seen.teacher.model

    def loss(params, i):
        z = logits(model, params, rows.ids[i], rows.dense[i])
        return optax.sigmoid_binary_cross_entropy(z, rows.label[i]).mean()

    mean = jax.grad(loss)(seen.params, slice(None))
    norm, slope = select.slopes(seen)
    for i in (0, 7, 59):
        own = jax.grad(loss)(seen.params, np.array([i]))
        leaves = jax.tree.leaves(own)
        assert norm[i] == pytest.approx(np.sqrt(sum(np.square(g).sum() for g in leaves)), rel=1e-4)
        both = zip(leaves, jax.tree.leaves(mean), strict=True)
        assert slope[i] == pytest.approx(float(sum((g * m).sum() for g, m in both)), abs=1e-6)


def test_scores_rank_and_pruning_skips_the_hardest(seen):
    wrong = select.error(seen)
    top = SELECTORS["el2n"](seen, 5, np.random.default_rng(0))
    assert wrong[top].min() >= np.delete(wrong, top).max()
    kept = SELECTORS["el2n_pruned"](seen, 5, np.random.default_rng(0))
    assert not set(kept) & set(top)
    everything = SELECTORS["el2n_pruned"](seen, len(wrong), np.random.default_rng(0))
    assert len(set(everything)) == len(wrong)  # with nothing to spare, nothing is pruned


def test_hard_and_soft_baselines_are_the_same_distinct_rows(seen):
    stage = seen.stage
    hard, soft = (
        find(name)(toy.empty(), seen, 20, 10, 2, np.random.default_rng(0))
        for name in ("random_hard", "random_soft")
    )
    at = hard.source[hard.valid] - stage.source[0]
    assert len(np.unique(at)) == 20
    assert np.array_equal(hard.ids[:20], stage.rows.ids[at])
    assert np.array_equal(soft.ids[:20], stage.ahead_ids[at])
    np.testing.assert_allclose(trials.examples(hard).target[:20], stage.rows.label[at], atol=1e-9)
    assert np.array_equal(soft.label_logit[:20], stage.ahead_logit[at])
    for memory in (hard, soft):
        assert np.array_equal(memory.source, hard.source)
        assert np.array_equal(memory.dense[:20], stage.rows.dense[at])
        assert np.all(memory.log_weight[:20] == 0) and np.all(memory.born[:20] == 2)


def test_a_window_forgets_and_a_reservoir_keeps_its_share(seen):
    first = look(1, epochs=0.5)

    def born(name, seed):
        rng = np.random.default_rng(seed)
        memory = find(name)(toy.empty(), first, 10, 10, 1, rng)
        memory = find(name)(memory, seen, 20, 10, 2, rng)
        assert memory.valid.sum() == 20 and memory.valid[:20].all()
        assert len(set(memory.source[:20])) == 20
        return memory.born[:20], memory.source[:20]

    when, source = born("window_hard", 0)
    assert np.all(when == 2) and set(source) == set(seen.stage.source[-20:])
    olds = [int((born("reservoir_hard", seed)[0] == 1).sum()) for seed in range(30)]
    assert 8 < np.mean(olds) <= 10  # half of the rows so far are old, and 10 slots at most
    assert len(set(olds)) > 1
    assert np.bincount(born("random_hard", 0)[0])[1:].tolist() == [10, 10]


def test_a_window_wider_than_a_stage_keeps_the_latest_of_the_past(seen):
    """Stages of 10 rows, whose rows take the places that others have left."""
    memory, rows = toy.empty(), type(seen.stage.rows)(*(a[:10] for a in seen.stage.rows))
    for number, n in enumerate((6, 12, 15, 15), 1):
        end = 10 * number
        here = seen.stage._replace(rows=rows, source=np.arange(end - 10, end))
        args = seen._replace(stage=here), n, 3, number, np.random.default_rng(0)
        memory = find("window_hard")(memory, *args)
        assert sorted(memory.source[memory.valid]) == list(range(end - n, end))


def test_an_unknown_baseline_is_named_with_the_known_ones():
    with pytest.raises(InputError, match="no baseline 'best_hard'.*herding"):
        find("best_hard")


@pytest.mark.parametrize(("name", "which"), [("grand", 0), ("tracin", 1)])
def test_rows_are_ranked_by_the_norm_or_by_the_slope_of_their_gradient(seen, name, which):
    scores = select.slopes(seen)
    best, other = (np.argsort(-s, kind="stable")[:12] for s in (scores[which], scores[1 - which]))
    chosen = SELECTORS[name](seen, 12, np.random.default_rng(0))
    assert chosen.tolist() == best.tolist()
    assert set(best) != set(other)


def test_the_rows_forgotten_most_often_come_first_and_the_worst_known_among_equals(seen):
    """By right and wrong answers of five passes: forgotten is what was right and then is wrong."""
    passes = {
        0: "xxxxx",  # never known: the worst of those that nothing forgot
        1: "oxoxo",  # forgotten twice
        2: "xoxox",  # twice, and wrong more often
        3: "ooxxx",  # once, though learned never
        4: "xxxoo",  # learned, never forgotten
        5: "ooooo",
    }
    n = len(seen.stage.source)
    right = np.array([[c == "o" for c in passes.get(row, "ooooo")] for row in range(n)]).T
    label = seen.stage.rows.label > 0
    answers = np.where(right == label, 1.0, -1.0)  # logits, of either label
    scripted = seen.teacher._replace(
        init=lambda key: 0,  # passes so far
        advance=lambda params, rows, epochs, rng: params + epochs,
        predict=lambda params, ids, dense: answers[int(params) - 1],
    )
    look = seen._replace(teacher=scripted)
    chosen = SELECTORS["forgetting"](look, 6, np.random.default_rng(0))
    assert chosen.tolist() == [2, 1, 3, 0, 4, 5]


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_slots_of_baselines_weigh_what_their_rows_do(seen, labels):
    stage = seen.stage
    weight = np.linspace(0.5, 2, len(stage.source), dtype=np.float32)
    heavy = seen._replace(stage=stage._replace(rows=stage.rows._replace(weight=weight)))
    memory = find(f"random_{labels}")(toy.empty(), heavy, 20, 10, 2, np.random.default_rng(0))
    at = memory.source[:20] - stage.source[0]
    np.testing.assert_allclose(trials.examples(memory).weight[:20], weight[at], rtol=1e-6)
