"""Reads of one replica: eventual from what is applied, strong under the leader's lease or behind a barrier.

Barriers are shared: everything that needs one in a turn of the loop waits for the same one, issued after the
last of them arrived.

An eventual read may name the log position that it must see (`Get.after`). Where that is not applied yet it waits:
the leader is asked to tell at once what is committed, and after `BEHIND_WAIT_S` whoever reads is told to try
another replica.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from datamodel.errors import Corruption, DynamoDBError
from datamodel.stored_items import check_record
from proto.link import Link
from proto.messages import Behind, Get, Query, Refused, Unavailable, Value
from raft.group import Environment, LogIndex, Role
from storagenode.engines.engine import DATA, Engine, EngineFailure, View, data_range
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.index_pages import IndexPageScan
from storagenode.replicas.lagging import LaggingView
from storagenode.replicas.query_pages import PageScan
from storagenode.replicas.scans import ScanRunner, TooManyPages
from storagenode.replicas.standing import Standing

log = logging.getLogger(__name__)

UNCONFIRMED_MAX = 10_000
"""Reads that wait for leadership to be confirmed; more are refused."""
BEHIND_WAIT_S = 0.05
"""How long an eventual read waits for the position that it must see."""
BEHIND_MAX = 10_000
"""Reads of a replica that wait for that; more are sent elsewhere at once."""
ASK_AGAIN_S = 0.005
"""The leader is asked again, for reads that came meanwhile, when it has answered, or after this."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An eventual read that this replica cannot answer yet."""

    until: float
    link: Link
    request: Get | Query
    start: bytes
    end: bytes


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
        lagging: LaggingView | None = None,
    ) -> None:
        """Create; `fail` takes the replica out of service. Eventual reads are answered from `lagging`, if given."""
        self._standing = standing
        self._environment = environment
        self._engine = engine
        self._round = apply_round
        self._scans = scans
        self._fail = fail
        self._unconfirmed: list[Callable[[bool], None]] = []  # wait for the next read barrier
        self._barrier_scheduled = False
        self._behind: deque[_Waiting] = deque()  # in the order of `until`
        self._behind_timed = False
        self._ask_scheduled = False
        self._ask_not_before = 0.0
        self._lagging = lagging
        self._state_since = 0.0  # an older view has not this replica's state

    def read(self, link: Link, request: Get | Query, start: bytes, end: bytes) -> None:
        """Answer a request whose key or range begins in the partition [`start`, `end`), now or when leadership
        is confirmed.
        """
        standing = self._standing
        if not standing.serves:
            link.send(standing.refusal(request.id))
        elif not request.strong:
            if not standing.leader_seen:
                link.send(Unavailable(request.id, "no leader heard since the start"))
            elif request.after <= standing.position or self._lagging is not None:
                self._answer(link, request, start, end)
            else:
                self._wait(link, request, start, end)
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

    # --- reads that must see what is not applied yet ---

    def _wait(self, link: Link, request: Get | Query, start: bytes, end: bytes) -> None:
        if len(self._behind) >= BEHIND_MAX:
            link.send(Behind(request.id))
            return
        until = self._environment.now() + BEHIND_WAIT_S
        self._behind.append(_Waiting(until, link, request, start, end))
        if not self._behind_timed:
            self._behind_timed = True
            self._environment.call_later(BEHIND_WAIT_S, self._waited)
        self._schedule_ask()

    def _schedule_ask(self) -> None:
        if not self._ask_scheduled and self._environment.now() >= self._ask_not_before:
            self._ask_scheduled = True
            self._environment.call_soon(self._ask)

    def _ask(self) -> None:
        """At the end of a turn: what the leader sent by itself has been taken, and all that wait are there."""
        self._ask_scheduled = False
        if self._behind:
            self._ask_not_before = self._environment.now() + ASK_AGAIN_S
            wanted = max(waiting.request.after for waiting in self._behind)
            self._standing.group.ask_commit(LogIndex(wanted))

    def moved_on(self) -> None:
        """The engine holds more than before."""
        if self._behind:
            position = self._standing.position
            behind, self._behind = self._behind, deque()
            for waiting in behind:
                if waiting.request.after <= position:
                    self.read(waiting.link, waiting.request, waiting.start, waiting.end)
                else:
                    self._behind.append(waiting)
            self._ask_not_before = 0.0
            if self._behind:
                self._schedule_ask()

    def _waited(self) -> None:
        self._behind_timed = False
        behind, now = self._behind, self._environment.now()
        while behind and behind[0].until <= now:
            waiting = behind.popleft()
            waiting.link.send(Behind(waiting.request.id))
        if behind:
            self._behind_timed = True
            self._environment.call_later(behind[0].until - now, self._waited)
            self._schedule_ask()

    def refuse_behind(self) -> None:
        """Service is over for now: those who wait here go elsewhere."""
        behind, self._behind = self._behind, deque()
        for waiting in behind:
            waiting.link.send(self._standing.refusal(waiting.request.id))

    def begin_state(self) -> None:
        """The replica stands on another state than before, which may be older: older views do not have it."""
        self._state_since = self._environment.now()

    # --- answers ---

    def _finish(
        self, link: Link, request: Get | Query, start: bytes, end: bytes, confirmed: bool
    ) -> None:
        if confirmed:
            self._answer(link, request, start, end)
        else:
            link.send(self._standing.refusal(request.id))

    def _answer(self, link: Link, request: Get | Query, start: bytes, end: bytes) -> None:
        position = self._standing.position
        try:
            view: View = self._engine
            if self._lagging is not None and not request.strong:
                view, position = self._lagging.view(self._state_since), 0
            if type(request) is Get:
                record = view.get(DATA + request.key)
                if record is not None:
                    check_record(record, "item")
                link.send(Value(request.id, record, position))
            else:
                assert isinstance(request, Query)
                first, behind = data_range(max(request.start, start), min(request.end, end))
                cursor = view.iterate(first, behind, reverse=request.reverse)
                if request.part < 0 and not request.fetch:
                    scan = PageScan(request, cursor)
                else:
                    scan = IndexPageScan(request, cursor, view.get)
                self._scans.run(scan, partial(self._page, link, request, position))
        except Exception as error:  # noqa: BLE001  # one read's failure is its own; `_page` judges it
            self._page(link, request, position, error)

    def _page(
        self, link: Link, request: Get | Query, position: int, result: PageScan | Exception
    ) -> None:
        if isinstance(result, PageScan):
            link.send(result.page(position))
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
