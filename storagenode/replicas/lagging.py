"""The engine as it was a while ago: staleness on purpose.

On a quiet cluster an eventually consistent read is a few milliseconds old at most, and through one router it never
misses a write. Code that counts on that breaks elsewhere, now and then. With `--eventual-read-lag` it breaks here,
always: eventual reads are answered from states of the engine that are at least that old.
"""

from collections import deque
from typing import Final

from raft.group import Environment
from storagenode.engines.engine import Engine, Snapshot, View

EVENTUAL_READ_LAG_MS_MAX: Final = 60_000
STEPS: Final = 8
"""States that are kept per lag: what is read is at most an eighth older than asked for."""
STEP_S_MIN: Final = 0.005


class LaggingView:
    """States of the engine from the time of the lag to now."""

    def __init__(self, engine: Engine, environment: Environment, lag_s: float) -> None:
        """Create and begin to keep states.

        Args:
            engine: The store.
            environment: Clock and timers.
            lag_s: Age of what `view` shows, in seconds.
        """
        self._engine = engine
        self._environment = environment
        self._lag_s = lag_s
        self._step_s = max(lag_s / STEPS, STEP_S_MIN)
        # A state that left is closed by the last page that reads it.
        self._states: deque[tuple[float, Snapshot]] = deque()
        self._is_stopped = False
        self._keep()

    def view(self, since: float) -> View:
        """The newest state that is old enough; of those taken after `since`, for the sake of who has no older one.
        The engine itself as long as there is none.
        """
        self._forget()
        if self._states and self._states[0][0] >= since:
            taken, state = self._states[0]
            if taken <= self._environment.now() - self._lag_s:
                return state
        return self._engine

    def _forget(self) -> None:
        """Only the newest of the states that are old enough is of use."""
        states, old_enough = self._states, self._environment.now() - self._lag_s
        while len(states) > 1 and states[1][0] <= old_enough:
            states.popleft()

    def _keep(self) -> None:
        if not self._is_stopped:
            self._forget()
            self._states.append((self._environment.now(), self._engine.snapshot()))
            self._environment.call_later(self._step_s, self._keep)

    def stop(self) -> None:
        """The engine is about to close."""
        self._is_stopped = True
        while self._states:
            self._states.popleft()[1].close()
