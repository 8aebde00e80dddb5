"""When a follower is told to fetch a snapshot, and what it may do with one (pure).

The bytes travel out of band between owners; Raft sends only the notice. The order of an install: the owner
makes its engine durable at the snapshot first, then the journal is reset to that very (index, term), keeping
the tail only if it continues that entry, and what had been prepared to be sent before is dropped: an ack in it
could claim entries that are gone.
"""

# A follower that lags is told again at this pace (the notice may be lost, the fetch may fail).
NOTICE_INTERVAL_S = 1.0


def is_notice_due(last_notice_at: float, now: float) -> bool:
    """Whether it is time to tell that follower (again)."""
    return now - last_notice_at >= NOTICE_INTERVAL_S


def is_useful(index: int, commit_index: int, applied_index: int) -> bool:
    """Whether a snapshot at `index` would move a replica forward. What is committed here is never replaced."""
    return index > commit_index and index > applied_index
