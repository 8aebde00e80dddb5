"""What accompanies a request through the router: its identity, its answer, and everything handlers may use.

`Services` is built once, by `composition.py`. A `Call` is one request between `Dispatcher.dispatch` and its reply.
Each module of `router/operations` has a `handle(request, call)`:

 - on the hot path a plain function that ends, now or in a later callback, with `call.succeed` or `call.fail`;
   what it or a callback of `call.ask` raises becomes the answer (a `DynamoDBError`) or a 500 (anything else);
 - elsewhere a coroutine function that returns the body (bytes, or members to encode) or raises.

Either way the client gets exactly one reply.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from datamodel.errors import (
    ConditionalCheckFailedError,
    DynamoDBError,
    InternalServerError,
    ResourceNotFoundError,
    ServiceUnavailableError,
    error_body,
    error_for_code,
)
from datamodel.shape_rules import TABLE_NAME_LENGTH_MIN
from datamodel.table_descriptions import table_name_of
from proto.catalog_client import CatalogClient
from proto.client_groups import GroupRequest
from proto.cluster_client import ClusterClient
from proto.messages import (
    Answer,
    OutcomeUnknown,
    Reason,
    Refused,
    Unavailable,
    Write,
    WrongPartition,
)
from router.capacity import write_units
from router.metrics import OperationMetrics, RouterMetrics
from router.partition_map import OnTable, PartitionMap, TableEntry
from router.table_sizes import TableSizes

log = logging.getLogger(__name__)

# From the arrival of a request to its answer at the latest. Longer than an election takes, shorter than the
# read timeout of SDKs, so that they hear "try again" instead of nothing.
REQUEST_TIMEOUT_S = 5.0

Reply: TypeAlias = Callable[[int, bytes], None]


class RequestContext:
    """What the transport knows of a request.

    Attributes:
        request_id: 52 characters of [0-9A-Z]; the client sees it, logs name it.
        time_remaining_s: What is left of the client's deadline on arrival; None if it named none.
    """

    __slots__ = ("request_id",)

    time_remaining_s: float | None = None

    def host(self) -> bytes:
        """The name (and port) under which the client reached us, empty if unknown. Valid during `dispatch`."""
        return b""

    def __init__(self, request_id: bytes) -> None:
        self.request_id = request_id


Dispatch: TypeAlias = Callable[[str, bytes, RequestContext, Reply], None]
"""How a transport passes requests on: operation, body, context, and a reply that is called exactly once, now or
later, on the same loop (`dispatch.Dispatcher.dispatch`)."""


@dataclass(slots=True)
class Services:
    """Everything that handlers may use.

    Attributes:
        client: Requests to partition groups.
        tables: Which tables there are and where their keys live.
        catalog: Reads and writes of catalog rows, for table operations.
        metrics: Counters of this router.
        region: Region name in ARNs.
        account_id: Account number in ARNs.
        now: Monotonic seconds, the clock of deadlines.
        wall_clock: Unix seconds.
        sizes: Tables' item counts and bytes, as last heard.
    """

    client: ClusterClient
    tables: PartitionMap
    catalog: CatalogClient
    metrics: RouterMetrics
    region: str
    account_id: str
    now: Callable[[], float]
    wall_clock: Callable[[], float]
    sizes: TableSizes = field(default_factory=TableSizes)


class Call:
    """One request on its way to its one reply.

    Attributes:
        has_begun: Whether all is right with the request by itself, so that its table is looked at.
    """

    __slots__ = (
        "_done",
        "_entry",
        "_is_open",
        "_is_repeated_write",
        "_leader",
        "_make",
        "_metrics",
        "_reply",
        "context",
        "deadline",
        "has_begun",
        "services",
        "started",
    )

    def __init__(
        self,
        services: Services,
        metrics: OperationMetrics,
        context: RequestContext,
        reply: Reply,
    ) -> None:
        """Begin; the deadline runs from here."""
        self.services = services
        self.context = context
        self.started = services.now()
        remaining_s = context.time_remaining_s
        self.deadline = self.started + (
            REQUEST_TIMEOUT_S if remaining_s is None else min(remaining_s, REQUEST_TIMEOUT_S)
        )
        self._metrics = metrics
        self._reply = reply
        self._make: Callable[[TableEntry], GroupRequest] = _unused
        self._done: Callable[[TableEntry, Answer], None] = _unused
        self._is_open = True
        self._is_repeated_write = False
        self.has_begun = False

    @property
    def timeout_ms(self) -> int:
        """What is left until the deadline, at least a millisecond."""
        return max(int((self.deadline - self.services.now()) * 1000), 1)

    # --- the reply ---

    @property
    def is_open(self) -> bool:
        """Whether the reply is still to come."""
        return self._is_open

    def succeed(self, body: bytes) -> None:
        """Answer 200 with this JSON body."""
        self._end()
        self._metrics.observe(200, self.services.now() - self.started)
        self._reply(200, body)

    def fail(self, error: DynamoDBError) -> None:
        """Answer with the error's status and body."""
        self._end()
        self._metrics.observe(error.http_status, self.services.now() - self.started, error.code)
        self._reply(error.http_status, error_body(error))

    def _end(self) -> None:
        assert self._is_open, "a request has one reply"
        self._is_open = False
        # They hold this call in turn. Let go, all of a request is freed with its reply and the garbage collector
        # finds nothing to do; else it would be a seventh of a router's work, and a pause now and then.
        self._make = self._done = _unused

    def fail_internally(self) -> None:
        """Answer 500 because of an exception that is being handled: our own bug. The client sees no details."""
        log.exception(  # noqa: LOG004 - called from handlers of exceptions
            "request failed",
            extra={
                "request_id": self.context.request_id.decode(),
                "operation": self._metrics.operation,
            },
        )
        if self._is_open:
            self.fail(InternalServerError())

    # --- tables ---

    def with_table(self, name: str, run: Callable[[TableEntry], None]) -> None:
        """Go on with the table that serves items under this name or ARN; else fail as the service does.

        A table that this router has not heard of is looked up in the catalog before that.
        """
        self.has_begun = True
        services = self.services
        entry = services.tables.get(name)
        if entry is not None:
            run(entry)
        else:
            on_table = self._guard(run)
            if len(name) < TABLE_NAME_LENGTH_MIN:
                # No table can have it; here that is no fault of the name (wrong requests are found before).
                on_table(ResourceNotFoundError())
            else:
                name = table_name_of(name, services.region, services.account_id)
                services.tables.look_up(name, on_table)

    def _guard(self, run: Callable[[TableEntry], None]) -> OnTable:
        def guarded(found: TableEntry | DynamoDBError) -> None:
            try:
                if isinstance(found, DynamoDBError):
                    self.fail(found)
                else:
                    run(found)
            except DynamoDBError as error:
                self.fail(error)
            except Exception:  # noqa: BLE001 - logged there; the client must get its reply
                self.fail_internally()

        return guarded

    # --- the cluster ---

    def ask(
        self,
        entry: TableEntry,
        make: Callable[[TableEntry], GroupRequest],
        done: Callable[[TableEntry, Answer], None],
        leader: bool = True,
    ) -> None:
        """Ask a partition of a table; refusals and the cluster's weather become this request's reply.

        Args:
            entry: The table.
            make: Checks the request against the table and builds it for the partition that owns its key; called
                again, with a newer entry, when the partition has moved.
            done: Takes the entry that was asked and the answer: `Value`, `Written` or `Page`, as the request
                has it.
            leader: Whether only the leader may answer.
        """
        self._entry = entry
        self._make = make
        self._done = done
        self._leader = leader
        self.services.client.call(make(entry), self._answered, self.deadline, leader)

    def _answered(self, answer: Answer) -> None:
        try:
            kind = type(answer)
            if kind not in _FAILURES:
                self._done(self._entry, answer)
            elif isinstance(answer, WrongPartition):
                self.services.tables.refresh(self._entry, self._guard(self._ask_again))
            else:
                self.fail(self._error_of(answer))
        except DynamoDBError as error:
            self.fail(error)
        except Exception:  # noqa: BLE001 - logged there; the client must get its reply
            self.fail_internally()

    def _ask_again(self, entry: TableEntry) -> None:
        self._entry = entry
        request = self._make(entry)
        self._is_repeated_write = isinstance(request, Write)
        self.services.client.call(request, self._answered, self.deadline, self._leader)

    def _error_of(self, answer: Answer) -> DynamoDBError:
        if isinstance(answer, Refused) and answer.code == ConditionalCheckFailedError.code:
            reason = answer.reasons[0] if answer.reasons else Reason(answer.code)
            # A failed condition consumes what the write of the item as it is would.
            self._entry.usage.write_units += write_units(reason.old_size, 0)
            return ConditionalCheckFailedError(reason.item)
        error = error_of(answer, is_repeated_write=self._is_repeated_write)
        assert error is not None, "only failures get here"
        return error


def error_of(answer: Answer, *, is_repeated_write: bool) -> DynamoDBError | None:
    """What a partition's answer means to the client; None if it is no failure.

    Args:
        answer: Not `WrongPartition`, which is for the router to deal with.
        is_repeated_write: Whether it is that of a write that another partition had been asked for before.
    """
    if type(answer) not in _FAILURES:
        return None
    if isinstance(answer, Refused):
        return error_for_code(answer.code, answer.message)
    # An attempt before a redirect may have been executed: to say "not executed" then would be a lie.
    if isinstance(answer, OutcomeUnknown) or is_repeated_write:
        return InternalServerError()
    return ServiceUnavailableError()


def _unused(*_: object) -> NoReturn:
    raise AssertionError("a request has one reply")


_FAILURES = frozenset({Refused, WrongPartition, Unavailable, OutcomeUnknown})
