"""What one router promises to whoever reads through it: eventual reads see what it was told before.

Until a router dies, an eventual read that begins after a write was acknowledged through it, or after another read
through it was answered, shows a state that is no older. Whether a value is older is judged by times alone: every
write that can have left it was over before the write began that the router knew of. (A router that finds no replica
that is as new as what it has seen waives the promise, and counts that: reads across a waiver are not compared.)
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.linearizability import Operation
from tests.simulation.cluster_processes import RouterProcess
from tests.simulation.cluster_world import World

WRITES = ("write", "exchange", "create", "swap", "take")


@dataclass(frozen=True, slots=True)
class Told:
    """A router told somebody a value of an item."""

    value: Any
    invoked: float
    completed: float
    waived: int
    by: str
    """The write that left the value, or "read", "glance"."""


@dataclass
class Sessions:
    """What each life of each router told, by item."""

    world: World
    told: dict[tuple[str, int, str], list[Told]] = field(default_factory=dict)

    def note(self, router: RouterProcess, key: str, by: str, value: Any, invoked: float) -> None:
        """An answer of this router that shows what the item is, or was made."""
        if router.is_running:
            told = Told(value, invoked, self.world.now, router.product.client.waived_reads, by)
            self.told.setdefault((router.name, router.life, key), []).append(told)

    def check(self, histories: dict[str, list[Operation]]) -> None:
        """In the end: was any eventual read older than what its router had told before?"""
        left = {
            key: None if any(o.kind == "add" for o in history) else _left(history)
            for key, history in histories.items()
        }
        for (router, life, key), told in self.told.items():
            for read in told:
                if read.by != "glance":
                    continue
                self.world.stats["session reads"] += 1
                for before in told:
                    if (
                        before.completed < read.invoked
                        and before.waived == read.waived
                        and _is_older(read, before, left[key])
                    ):
                        self.world.violate("session", (router, life, key, before, read))


def _left(history: Iterable[Operation]) -> dict[Any, list[Operation]]:
    """By value: the writes that may have left it."""
    left: dict[Any, list[Operation]] = {None: []}
    for operation in history:
        kind, argument, result = operation.kind, operation.argument, operation.result
        if kind not in WRITES or result is False:
            continue
        value = argument
        if kind == "take":
            value = None
        elif kind == "swap":
            value = argument[1]
        left.setdefault(value, []).append(operation)
    return left


def _is_older(read: Told, before: Told, left: dict[Any, list[Operation]] | None) -> bool:
    """Whether a state with the value of `read` was over when the one of `before` began, as times show; for a
    counter (`left` is None), which only grows, its value says it.
    """
    if read.value == before.value:
        return False
    if left is None:
        return bool((read.value or 0) < (before.value or 0))
    known = left.get(before.value, [])
    if before.by in WRITES:
        began = before.invoked
    elif before.value is not None and known:
        began = min(operation.invoked for operation in known)
    else:
        return False
    over = max((o.completed for o in left.get(read.value, [])), default=-math.inf)
    if read.value is not None and over == -math.inf:
        return False  # of a write that nobody has heard the end of
    return over < began
