"""Runs pages of Query and Scan in steps, in turns, so that no page holds up the node's loop for long."""

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from raft.group import Environment
from storagenode.replicas.query_pages import PageScan

PAGES_MAX = 1_000
"""Pages in the making; each holds a state of the engine. More are refused."""
SLICE_S = 0.004
"""Time that pages may take of one loop turn; a step that began in time is finished."""

OnPage: TypeAlias = Callable[[PageScan | Exception], None]


class TooManyPages(Exception):
    """`PAGES_MAX` pages are in the making."""


class ScanRunner:
    """Pages in the making, all replicas' together. A short page is done at once when nothing else waits."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._pages: deque[tuple[PageScan, OnPage]] = deque()
        self._scheduled = False
        self._slice_end = 0.0
        self._slice_closed = True

    @property
    def pages(self) -> int:
        """Pages that wait for their next step."""
        return len(self._pages)

    def run(self, scan: PageScan, on_page: OnPage) -> None:
        """Make the page; `on_page` gets it, or the exception that ended it, now or in a later turn.

        Raises:
            TooManyPages: It was not begun.
        """
        if len(self._pages) >= PAGES_MAX:
            scan.close()
            raise TooManyPages
        now = self._environment.now()
        if self._slice_closed:
            self._slice_closed = False
            self._slice_end = now + SLICE_S
            self._schedule()
        if self._pages or now > self._slice_end or not self._step(scan, on_page, now):
            self._pages.append((scan, on_page))

    def _step(self, scan: PageScan, on_page: OnPage, now: float) -> bool:
        """One step, begun `now`; True when the page is done with."""
        try:
            if not scan.step(scan.items_per_step):
                took = self._environment.now() - now
                if took > SLICE_S:
                    # A costly filter, or large items: fewer of them at a time.
                    scan.items_per_step = max(1, int(scan.items_per_step * SLICE_S / took))
                return False
        except Exception as error:  # noqa: BLE001  # one page's failure is its own; `on_page` judges it
            scan.close()
            on_page(error)
            return True
        on_page(scan)
        return True

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._environment.call_soon(self._turn)

    def _turn(self) -> None:
        """A turn of the loop has passed: whatever arrives now may begin; what waits goes on."""
        self._scheduled = False
        self._slice_closed = True
        pages = self._pages
        if pages:
            self._slice_closed = False
            now = self._environment.now()
            self._slice_end = now + SLICE_S
            self._schedule()
            while pages:
                scan, on_page = pages.popleft()
                if not self._step(scan, on_page, now):
                    pages.append((scan, on_page))
                now = self._environment.now()
                if now > self._slice_end:
                    break
