"""Reads of one replica: eventual from what is applied, strong under the leader's lease or behind a barrier.

Barriers are shared: everything that needs one in a turn of the loop waits for the same one, issued after the
last of them arrived.
"""

import logging
from collections.abc import Callable
from functools import partial

from datamodel.errors import Corruption, DynamoDBError
from datamodel.stored_items import check_record
from proto.link import Link
from proto.messages import Get, Query, Refused, Unavailable, Value
from raft.group import Environment, Role
from storagenode.apply_round import ApplyRound
from storagenode.engine import DATA, Engine, EngineFailure, data_range
from storagenode.index_pages import IndexPageScan
from storagenode.query_pages import PageScan
from storagenode.scans import ScanRunner, TooManyPages
from storagenode.standing import Standing

log = logging.getLogger(__name__)

UNCONFIRMED_MAX = 10_000
"""Reads that wait for leadership to be confirmed; more are refused."""


class Reads:
    """The reading half of a replica."""

    def __init__(
        self,
        standing: Standing,
        environment: Environment,
        engine: Engine,
        apply_round: ApplyRound,
        scans: ScanRunner,
        fail: Callable[[str], None],
    ) -> None:
        """Create; `fail` takes the replica out of service."""
        self._standing = standing
        self._environment = environment
        self._engine = engine
        self._engine_get = engine.get
        self._round = apply_round
        self._scans = scans
        self._fail = fail
        self._unconfirmed: list[Callable[[bool], None]] = []  # wait for the next read barrier
        self._barrier_scheduled = False

    def read(self, link: Link, request: Get | Query, start: bytes, end: bytes) -> None:
        """Answer a request whose key or range begins in the partition [`start`, `end`), now or when leadership
        is confirmed.
        """
        standing = self._standing
        if not standing.serves:
            link.send(standing.refusal(request.id))
        elif not request.strong:
            if standing.leader_seen:
                self._answer(link, request, start, end)
            else:
                link.send(Unavailable(request.id, "no leader heard since the start"))
        elif standing.is_leading and standing.group.lease_is_valid():
            self._answer(link, request, start, end)
        elif standing.role is Role.LEADER and len(self._unconfirmed) < UNCONFIRMED_MAX:
            self._unconfirmed.append(partial(self._finish, link, request, start, end))
            if standing.is_leading:
                self._schedule_barrier()
        else:
            link.send(standing.refusal(request.id))

    def confirm(self, finish: Callable[[bool], None]) -> None:
        """Call `finish` with whether this replica led at some moment after this call."""
        standing = self._standing
        if not standing.is_leading:
            finish(False)
        elif standing.group.lease_is_valid():
            finish(True)
        else:
            self._unconfirmed.append(finish)
            self._schedule_barrier()

    def lead(self) -> None:
        """Leadership begins: reads that came early get their barrier."""
        if self._unconfirmed:
            self._schedule_barrier()

    def refuse_waiting(self) -> None:
        """Leadership, or service, is over."""
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        for finish in unconfirmed:
            finish(False)

    def _finish(
        self, link: Link, request: Get | Query, start: bytes, end: bytes, confirmed: bool
    ) -> None:
        if confirmed:
            self._answer(link, request, start, end)
        else:
            link.send(self._standing.refusal(request.id))

    def _answer(self, link: Link, request: Get | Query, start: bytes, end: bytes) -> None:
        try:
            if type(request) is Get:
                record = self._engine_get(DATA + request.key)
                if record is not None:
                    check_record(record, "item")
                link.send(Value(request.id, record))
            else:
                assert isinstance(request, Query)
                first, behind = data_range(max(request.start, start), min(request.end, end))
                cursor = self._engine.iterate(first, behind, reverse=request.reverse)
                if request.part < 0 and not request.fetch:
                    scan = PageScan(request, cursor)
                else:
                    scan = IndexPageScan(request, cursor, self._engine_get)
                self._scans.run(scan, partial(self._page, link, request))
        except Exception as error:  # noqa: BLE001  # one read's failure is its own; `_page` judges it
            self._page(link, request, error)

    def _page(self, link: Link, request: Get | Query, result: PageScan | Exception) -> None:
        if isinstance(result, PageScan):
            link.send(result.page())
        elif isinstance(result, DynamoDBError):
            link.send(Refused(request.id, result.code, result.message))
        elif isinstance(result, Corruption | EngineFailure):
            self._fail(str(result))
            link.send(self._standing.refusal(request.id))
        elif isinstance(result, TooManyPages):
            link.send(Unavailable(request.id, "too many pages in the making"))
        else:
            log.error("read failed", exc_info=result)
            link.send(Unavailable(request.id, "internal error"))

    def _schedule_barrier(self) -> None:
        if not self._barrier_scheduled:
            self._barrier_scheduled = True
            self._environment.call_soon(self._read_barrier)

    def _read_barrier(self) -> None:
        self._barrier_scheduled = False
        if self._standing.is_leading and self._unconfirmed:
            waiting, self._unconfirmed = self._unconfirmed, []
            self._standing.group.read_barrier(partial(self._barrier_passed, waiting))

    def _barrier_passed(self, waiting: list[Callable[[bool], None]], confirmed: bool) -> None:
        self._round.flush()  # normally empty
        confirmed = confirmed and self._standing.serves
        for finish in waiting:
            finish(confirmed)
