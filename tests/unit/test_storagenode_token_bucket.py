"""A rate, shared."""

from hypothesis import given
from hypothesis import strategies as st

from storagenode.snapshots.token_bucket import TokenBucket


def test_a_burst_is_free_then_the_rate_holds():
    bucket = TokenBucket(100, 50)
    assert bucket.take(50, 10.0) == 0
    assert bucket.take(100, 10.0) == 1.0
    assert bucket.take(10, 10.5) == 0.6  # half of the debt is paid, and its own comes on top
    assert bucket.take(0, 100.0) == 0
    assert bucket.take(51, 100.0) == 0.01  # rest saves no more than the burst


def test_without_a_rate_nothing_waits():
    bucket = TokenBucket(0, 0)
    assert [bucket.take(1 << 40, 0.0) for _ in range(3)] == [0.0] * 3


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 3)), max_size=30))
def test_whoever_waits_as_told_stays_within_the_rate(steps):
    bucket = TokenBucket(1000, 200)
    now, taken = 0.0, 0
    for amount, pause in steps:
        now += pause
        now += bucket.take(amount, now)
        taken += amount
        assert taken <= 200 + 1000 * now + 1e-6
