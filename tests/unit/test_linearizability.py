"""The history checker itself: it must accept what is legal and reject what is not."""

import math
import random

import pytest

from tests.cluster.linearizability import Operation, find_violation, register_model


def op(kind, argument, result, invoked, completed=math.inf):
    return Operation(kind, argument, result, invoked, completed)


LEGAL = {
    "empty": [],
    "read of nothing": [op("read", None, None, 0, 1)],
    "read after write": [op("write", 1, None, 0, 1), op("read", None, 1, 2, 3)],
    "read beside write sees old": [op("write", 1, None, 0, 5), op("read", None, None, 1, 2)],
    "read beside write sees new": [op("write", 1, None, 0, 5), op("read", None, 1, 1, 2)],
    "unknown write took effect late": [
        op("write", 1, None, 0),
        op("read", None, None, 1, 2),
        op("read", None, 1, 3, 4),
    ],
    "unknown write never took effect": [op("write", 1, None, 0), op("read", None, None, 8, 9)],
    "adds": [op("add", 1, 2, 0, 9), op("add", 1, 1, 0, 9), op("read", None, 2, 10, 11)],
    "create once": [op("create", 1, True, 0, 9), op("create", 2, False, 0, 9)],
    "create beside delete": [
        op("create", 1, True, 0, 1),
        op("delete", None, None, 2, 9),
        op("create", 2, True, 3, 8),
        op("read", None, 2, 10, 11),
    ],
}
ILLEGAL = {
    "lost write": [op("write", 1, None, 0, 1), op("read", None, None, 2, 3)],
    "stale read after new read": [
        op("write", 1, None, 0, 10),
        op("read", None, 1, 1, 2),
        op("read", None, None, 3, 4),
    ],
    "garbage": [op("write", 1, None, 0, 1), op("read", None, 7, 2, 3)],
    "added twice": [op("add", 1, 1, 0, 1), op("read", None, 2, 2, 3)],
    "both created": [op("create", 1, True, 0, 9), op("create", 2, True, 0, 9)],
    "refused without cause": [op("create", 1, False, 0, 1)],
    "unknown write cannot act before it began": [
        op("read", None, 1, 0, 1),
        op("write", 1, None, 2),
    ],
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal(name):
    assert find_violation(LEGAL[name]) is None


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(name):
    assert find_violation(ILLEGAL[name]) is not None


def test_random_linearizable_histories_are_accepted_and_a_lost_write_is_found():
    chance = random.Random(7)
    for _ in range(30):
        state, now, history = None, 0.0, []
        for n in range(60):
            point = now + chance.random()
            invoked, completed = point - chance.random() * 3, point + chance.random() * 3
            if chance.random() < 0.5:
                state = n
                history.append(op("write", n, None, invoked, completed))
            else:
                history.append(op("read", None, state, invoked, completed))
            now = point
        assert find_violation(history) is None
        history.append(op("read", None, "never written", now + 10, now + 11))
        assert find_violation(history) is not None


def has_order(history, state=None):
    """The definition itself: some next operation, then an order of the rest; unknown ones may stay out."""
    if all(o.is_unknown for o in history):
        return True
    horizon = min(o.completed for o in history)
    for o in history:
        if o.invoked <= horizon:
            step = register_model(state, o)
            rest = [other for other in history if other is not o]
            if step is not None and has_order(rest, step[0]):
                return True
    return False


@pytest.mark.parametrize("kinds", ["write delete create read read", "add read", "write add read"])
def test_agrees_with_the_definition_on_small_histories(kinds):
    chance = random.Random(len(kinds))
    verdicts = set()
    for _ in range(1500):
        history = []
        for number in range(chance.randrange(2, 7)):
            kind = chance.choice(kinds.split())
            invoked = chance.random() * 4
            completed = math.inf if chance.random() < 0.4 else invoked + chance.random() * 2
            argument = 1 if kind == "add" else number if kind in ("write", "create") else None
            result = {
                "add": chance.randrange(1, 4),
                "read": chance.choice([None, *range(4)]),
                "create": chance.random() < 0.5,
            }.get(kind)
            if math.isinf(completed):
                result = None
            history.append(op(kind, argument, result, invoked, completed))
        verdict = find_violation(history) is None
        assert verdict == has_order(history), history
        verdicts.add(verdict)
    assert verdicts == {True, False}


def test_many_unknown_outcomes_are_decided_soon():
    history = [op("write", n, None, 0.0) for n in range(100, 140)]
    history += [op("delete", None, None, 0.0) for _ in range(20)]
    for n in range(20):
        history.append(op("write", n, None, 2 * n, 2 * n + 1))
        history.append(op("read", None, 100 + 2 * n, 2 * n + 0.5, 2 * n + 1.9))
    assert find_violation(history, steps_max=20_000) is None
    assert find_violation([*history, op("read", None, 999, 90, 91)], steps_max=20_000)


def test_a_creation_of_unknown_outcome_may_follow_a_deletion_of_unknown_outcome():
    history = [
        op("write", 1, None, 0, 1),
        op("delete", None, None, 2),
        op("create", 2, None, 3),
        op("read", None, 2, 4, 5),
    ]
    assert find_violation(history) is None
    assert find_violation([history[0], *history[2:]])
