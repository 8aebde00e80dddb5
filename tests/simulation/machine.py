"""The owner's side of a group: a register per key, the history of all writes, and its engine's image."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raft.group import Configuration, Member

if TYPE_CHECKING:
    from tests.simulation.node import SimNode


@dataclass
class Image:
    """What a machine's engine holds at an index."""

    applied: int
    term: int
    values: dict[str, tuple[int, int]]
    history: list[tuple[int, int]]
    configuration: Configuration

    def copy(self) -> "Image":
        return replace(self, values=dict(self.values), history=list(self.history))


class SimMachine:
    """The owner's state machine of one group: a register per key, and the history of all operations."""

    def __init__(self, node: "SimNode", group: int, image: Image) -> None:
        self._node = node
        self._group = group
        self.image = image
        self._gathered: list[tuple[int, int, bytes | None]] = []
        self._applied = image.applied
        self.is_fetching = False
        self.ready_term = -1

    def apply(self, index: int, term: int, payload: bytes | None) -> None:
        world = self._node.world
        if index != self._applied + 1:
            world.violate("apply-gap", (self._node.name, index, self._applied))
        self._applied = index
        world.checkers[self._group].applied(self._node, index, payload)
        self._gathered.append((index, term, payload))

    def configure(self, index: int, term: int, configuration: Configuration) -> None:
        world = self._node.world
        if index != self._applied + 1:
            world.violate("apply-gap", (self._node.name, index, self._applied))
        self._applied = index
        world.checkers[self._group].applied(self._node, index, configuration)
        world.stats["configurations"] += 1
        self._gathered.append((index, term, None))
        self.image = replace(self.image, configuration=configuration)

    def flush(self) -> None:
        image = self.image
        for index, term, payload in self._gathered:
            image.applied = index
            if payload is not None and b"|" in payload:  # else a hostile peer's
                number, key = payload.split(b"|")[:2]
                image.values[key.decode()] = (index, int(number))
                image.history.append((index, int(number)))
            image.term = term
        self._gathered.clear()

    def role_changed(self, role: object, term: int, leader: Member | None) -> None:
        self._node.world.log(self._node.name, "role", role, term, leader)

    def leader_ready(self, term: int) -> None:
        self.ready_term = term

    def snapshot_wanted(self, source: Member, index: int, term: int) -> None:
        if not self.is_fetching:
            self.is_fetching = True
            world, node = self._node.world, self._node
            world.after(0.3 * world.rng.random(), node.fetch, node.life, self._group, source, index)

    def stand_on(self, image: Image) -> None:
        self.image = image
        self._applied = image.applied
        self._gathered.clear()
