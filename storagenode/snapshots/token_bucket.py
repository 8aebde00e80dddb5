"""A token bucket: so much per second, shared by whoever takes from it (pure)."""


class TokenBucket:
    """Lets `rate` units per second through, and after a rest up to `burst` at once.

    Whoever takes more than there is goes into debt and is told how long to wait; who comes next waits for that
    debt as well. So several takers share the rate in the order in which they ask, and none starves.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "_updated_at")

    def __init__(self, rate: float, burst: float) -> None:
        """Create a full bucket. `rate` in units per second, above 0; 0: no limit."""
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated_at = float("-inf")

    def take(self, amount: float, now: float) -> float:
        """Take `amount`, of any size; returns the seconds to wait before it may be used.

        Args:
            amount: Units.
            now: Seconds, on a clock that does not go back.
        """
        if not self._rate:
            return 0.0
        passed = now - self._updated_at
        self._updated_at = now
        self._tokens = min(self._burst, self._tokens + passed * self._rate) - amount
        return max(0.0, -self._tokens / self._rate)
