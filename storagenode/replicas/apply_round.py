"""One turn's engine writes of all replicas, done in a single batch: the node's `raft.group.ApplySink`."""

from collections.abc import Callable
from typing import Protocol

from storagenode.engines.engine import Engine, EngineFailure, Mutation


class Gatherer(Protocol):
    """A replica that gathered mutations in this turn."""

    def applied_mark(self) -> Mutation:
        """The engine's note of what it holds of the group, to be written with the mutations."""

    def flushed(self) -> None:
        """Everything gathered is in the engine now."""


class ApplyRound:
    """Gathers mutations while entries are applied; `flush` writes them before outcomes are reported.

    Attributes:
        mutations: What replicas append to while they apply.
        applied_bytes: Payload bytes applied since the last `take_applied_bytes`.
        applied_entries: Entries applied since the start of the process.
    """

    __slots__ = (
        "_engine",
        "_gatherers",
        "_on_failure",
        "applied_bytes",
        "applied_entries",
        "mutations",
    )

    def __init__(self, engine: Engine, on_failure: Callable[[EngineFailure], None]) -> None:
        """Create; `on_failure` must end the process: what the engine holds is not known after a failure."""
        self._engine = engine
        self._on_failure = on_failure
        self._gatherers: list[Gatherer] = []
        self.mutations: list[Mutation] = []
        self.applied_bytes = 0
        self.applied_entries = 0

    @property
    def is_dirty(self) -> bool:
        """Whether the engine is behind what was applied."""
        return bool(self._gatherers)

    def join(self, gatherer: Gatherer) -> None:
        """A replica has (or will have, in this turn) something to write. Once per replica and turn."""
        self._gatherers.append(gatherer)

    def flush(self) -> None:
        """Write what was gathered. Cheap when there is nothing."""
        gatherers = self._gatherers
        if not gatherers:
            return
        mutations, self.mutations, self._gatherers = self.mutations, [], []
        for gatherer in gatherers:
            mutations.append(gatherer.applied_mark())
        try:
            self._engine.write(mutations)
        except EngineFailure as error:
            self._on_failure(error)
            raise
        for gatherer in gatherers:
            gatherer.flushed()
