"""When a stage under way is saved; tests/test_processes.py holds a notice to stop."""

from diet_jax import preemption, sharding


def test_the_first_process_alone_says_when_a_save_is_due(monkeypatch):
    now, others = [0.0], []
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    due, never = preemption.every(2.0), preemption.every(0)
    told = []
    for now[0] in (0.0, 119.0, 120.0, 121.0, 239.0, 240.0, 1000.0):
        told.append(due())
        assert not never()
    assert told == [False, False, True, False, False, True, True]

    # Another one, whose clock runs ahead, says nothing of its own and does as the first one says.
    monkeypatch.setattr(sharding, "is_first", lambda: False)
    monkeypatch.setattr(
        sharding, "any_process", lambda mine: others.append(mine) or len(others) == 2
    )
    now[0] = 10_000.0
    assert [due(), due(), due()] == [False, True, False] and others == [False] * 3
