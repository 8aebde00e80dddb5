"""Acknowledged writes over time, as text."""

from collections.abc import Iterable

BUCKET_S = 0.25
BARS = " ▁▂▃▄▅▆▇█"


def buckets(moments: Iterable[float], began: float, ended: float) -> list[int]:
    """How many moments fall into each `BUCKET_S` from `began` to `ended`."""
    counts = [0] * max(1, int((ended - began) / BUCKET_S))
    for moment in moments:
        place = int((moment - began) / BUCKET_S)
        if 0 <= place < len(counts):
            counts[place] += 1
    return counts


def strip(counts: list[int]) -> str:
    """One character per bucket: the higher the more, as against the best ones; blank is nothing at all."""
    best = sorted(counts)[len(counts) * 9 // 10] if counts else 0
    if not best:
        return " " * len(counts)
    top = len(BARS) - 1
    return "".join(BARS[0 if not n else max(1, min(top, round(n / best * top)))] for n in counts)


def availability(counts: list[int]) -> float:
    """The part of the buckets in which some write was acknowledged."""
    return sum(n > 0 for n in counts) / len(counts)
