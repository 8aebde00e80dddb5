"""Is a recorded history of one object linearizable? (Herlihy & Wing 1990; search as Wing & Gong 1993 with
the memoisation of Lowe 2017.)

An operation has an invocation and a completion time. One whose outcome its client never learnt has no
completion: it may take effect at any moment after its invocation, or never. The checker looks for one order
of the operations that respects real time and that the sequential model accepts.

Operations of unknown outcome are what makes the search long. They are tried only where known ones lead no further;
of equal ones (adding 1, deleting) only the oldest is, for it may stand wherever another one may; and one that
replaces the state only with a known operation right behind it to which that matters (or a creation of unknown
outcome, and then such a one): else it might as well not be.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

State = Hashable
# (state, operation) -> the next state, or None when the model forbids the recorded result.
Model = Callable[[Any, "Operation"], "tuple[State] | None"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client. `completed` is infinite and `result` None when the outcome is unknown."""

    kind: str
    argument: Any
    result: Any
    invoked: float
    completed: float = math.inf

    @property
    def is_unknown(self) -> bool:
        """Whether the client never learnt what happened."""
        return math.isinf(self.completed)


# Operations that leave a state which owes nothing to the one before, or leave it alone.
REPLACING = frozenset({"write", "delete", "create"})


def register_model(state: Any, operation: Operation) -> "tuple[State] | None":
    """A register with reads, writes, increments and compare-and-set; the initial state is None (absent)."""
    kind, argument, result = operation.kind, operation.argument, operation.result
    unknown = operation.is_unknown
    if kind == "read":
        return (state,) if unknown or result == state else None
    if kind == "write":
        return (argument,)
    if kind == "delete":
        return (None,)
    if kind == "add":  # result: the new value
        new = (state or 0) + argument
        return (new,) if unknown or result == new else None
    if kind == "create":  # a put that expects absence; result: whether it was done
        if unknown:
            return (argument,) if state is None else (state,)
        if result:
            return (argument,) if state is None else None
        return (state,) if state is not None else None
    raise AssertionError(f"no such operation: {kind}")


def find_violation(
    history: Sequence[Operation],
    model: Model = register_model,
    initial: State = None,
    steps_max: int = 2_000_000,
) -> str | None:
    """None when some legal order exists; otherwise a description of the point no order gets past.

    Raises:
        RuntimeError: The search took more than `steps_max` steps (make the history shorter).
    """
    operations = [o for o in history if not (o.is_unknown and o.kind == "read")]
    operations.sort(key=lambda o: o.invoked)
    count = len(operations)
    # Unless the next unknown operation may build on the state that it leaves.
    pairs = not any(o.is_unknown and o.kind not in REPLACING for o in operations)
    done_mask = 0
    for position, operation in enumerate(operations):
        if not operation.is_unknown:
            done_mask |= 1 << position
    seen: set[tuple[int, State]] = set()
    # Depth-first over (set of linearized operations, state).
    stack: list[tuple[int, State]] = [(0, initial)]
    best = 0
    steps = 0
    while stack:
        taken, state = stack.pop()
        if taken & done_mask == done_mask:
            return None
        if (taken, state) in seen:
            continue
        seen.add((taken, state))
        steps += 1
        if steps > steps_max:
            raise RuntimeError(f"undecided after {steps_max} steps over {count} operations")
        best = max(best, (taken & done_mask).bit_count())
        # An operation may come next if no other pending one completed before it was invoked.
        horizon = math.inf
        candidates = []
        for position in range(count):
            if taken >> position & 1:
                continue
            operation = operations[position]
            if operation.invoked > horizon:
                break
            candidates.append(position)
            horizon = min(horizon, operation.completed)
        candidates = [p for p in candidates if operations[p].invoked <= horizon]
        known = [p for p in candidates if not operations[p].is_unknown]
        unknown = {}
        for position in reversed(candidates):
            operation = operations[position]
            if operation.is_unknown:
                unknown[operation.kind, operation.argument] = position
        for position in unknown.values():  # pushed first: tried last
            step = model(state, operations[position])
            if step is None or (step[0] == state and pairs):
                continue
            if not pairs:
                stack.append((taken | 1 << position, step[0]))
                continue
            reached = [(taken | 1 << position, step[0])]
            for other in unknown.values():
                # The only one whose effect hangs on the state: it may need the other to take the item away.
                if operations[other].kind == "create" and other != position:
                    after = model(step[0], operations[other])
                    if after is not None and after != step:
                        reached.append((taken | 1 << position | 1 << other, after[0]))
            for bits, left in reached:
                for following in reversed(known):
                    second = model(left, operations[following])
                    if second is not None and second != model(state, operations[following]):
                        stack.append((bits | 1 << following, second[0]))
        for position in reversed(known):
            step = model(state, operations[position])
            if step is not None:
                stack.append((taken | 1 << position, step[0]))
    stuck = [o for o in operations if not o.is_unknown][best : best + 5]
    return f"no legal order beyond {best} of {count} operations; around: {stuck}"
