"""The history checker itself: it must accept what is legal and reject what is not."""

import math
import random

import pytest

from tests.cluster.linearizability import Operation, find_violation


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
