"""What the rules stand on: the instant of a turn, and the consensus core as they see it."""

import random
from typing import Any, Protocol


class Moment:
    """The instant of the current turn, read once by the host and seen by everything below it."""

    __slots__ = ("now", "random")

    def __init__(self, chance: random.Random) -> None:
        self.now = 0.0
        self.random = chance


class ConsensusCore(Protocol):
    """The core as the guard sees it (`pysyncobj_group.Core` is one). Nodes are replica ids."""

    @property
    def term(self) -> int: ...  # noqa: D102
    @property
    def is_leader(self) -> bool: ...  # noqa: D102
    @property
    def leader(self) -> int | None: ...  # noqa: D102
    @property
    def commit_index(self) -> int: ...  # noqa: D102
    @property
    def applied_index(self) -> int: ...  # noqa: D102
    @property
    def own_term_index(self) -> int | None: ...  # noqa: D102
    @property
    def match_index(self) -> dict[int, int]: ...  # noqa: D102
    @property
    def next_index(self) -> dict[int, int]: ...  # noqa: D102

    def deliver(self, source: int, message: dict[str, Any]) -> None: ...  # noqa: D102
    def connect(self, peer: int) -> None: ...  # noqa: D102
    def disconnect(self, peer: int) -> None: ...  # noqa: D102
