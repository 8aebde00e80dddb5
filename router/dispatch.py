"""From an operation's name and a body to exactly one reply, for HTTP and gRPC alike.

Each module of `router.operations` serves the operation that it is named after; `handlers` finds them. What an
operation the API has but this release does not, and a name that no API has, get is the same
`UnknownOperationException`.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from re import sub
from typing import Any, Final, TypeAlias

import msgspec

from datamodel.errors import (
    DynamoDBError,
    InternalServerError,
    SerializationError,
    ServiceUnavailableError,
    UnknownOperationError,
    ValidationError,
)
from datamodel.shapes import IMPLEMENTED_OPERATIONS, decode_request, explain_request
from datamodel.wording import NEWEST, OLDER, WORDINGS, Wording, worded
from proto.catalog_client import CatalogUnavailable, WriteOutcomeUnknown
from router.context import Call, Reply, RequestContext, Services
from router.metrics import OperationMetrics

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Any, Call], Coroutine[Any, Any, Mapping[str, Any] | bytes] | None]

UNKNOWN = "Unknown"

LARGE_BODY_BYTES: Final = 1 << 20
"""From here on bodies are looked into in a thread, one after the other: to tell what is wrong with 16 MB can take
seconds, and the requests of others must not wait for it."""
LARGE_BODIES_BYTES_MAX: Final = 256 << 20
"""Large bodies that wait for that thread, together; past that a request is told to come back later."""


def handlers() -> dict[str, Handler]:
    """The handler of every implemented operation: `handle` of the module that is named after it."""
    return {
        operation: import_module(f"router.operations.{module_name(operation)}").handle
        for operation in sorted(IMPLEMENTED_OPERATIONS)
    }


def module_name(operation: str) -> str:
    """`GetItem` -> `get_item`."""
    return sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()


@dataclass(frozen=True, slots=True)
class _Operation:
    name: str
    handle: Handler
    is_coroutine: bool
    metrics: OperationMetrics
    wording: Wording


class Dispatcher:
    """Executes requests."""

    def __init__(
        self,
        services: Services,
        handlers: Mapping[str, Handler],
        wordings: Mapping[str, Wording] = WORDINGS[NEWEST],
    ) -> None:
        """Create.

        Args:
            services: What handlers may use.
            handlers: By operation.
            wordings: How the faults of each operation are worded; those not listed as ever.
        """
        self._services = services
        self._operations = {
            name: _Operation(
                name,
                handle,
                inspect.iscoroutinefunction(handle),
                services.metrics.operation(name),
                wordings.get(name, OLDER),
            )
            for name, handle in handlers.items()
        }
        self._unknown = services.metrics.operation(UNKNOWN)
        # Running coroutines of handlers: the loop itself keeps no strong reference to a task.
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_debugging = log.isEnabledFor(logging.DEBUG)
        # Its thread begins with the first large body.
        self._large_bodies = ThreadPoolExecutor(1, thread_name_prefix="large-bodies")
        self._large_bodies_bytes = 0

    def dispatch(self, operation: str, body: bytes, context: RequestContext, reply: Reply) -> None:
        """Execute; `reply(status, body)` is called exactly once, now or later, whatever happens.

        Args:
            operation: The name after the dot of X-Amz-Target, or anything.
            body: JSON of the request, or anything.
            context: What the transport knows of the request.
            reply: Takes the HTTP status and the body of the answer.
        """
        if self._is_debugging:
            log.debug(
                "request",
                extra={"operation": operation, "request_id": context.request_id.decode()},
            )
        known = self._operations.get(operation)
        if known is None:
            Call(self._services, self._unknown, context, reply).fail(_unknown_operation(body))
            return
        call = Call(self._services, known.metrics, context, reply)
        if len(body) >= LARGE_BODY_BYTES:
            self._dispatch_large(known, body, call)
            return
        try:
            request = decode_request(operation, body, known.wording)
            outcome = known.handle(request, call)
            if outcome is not None:
                self._start(outcome, call)
        except (ValidationError, SerializationError) as error:
            call.fail(_first_complaint(known, body, error, not call.has_begun))
        except DynamoDBError as error:
            call.fail(error)
        except Exception:  # noqa: BLE001 - logged there; the client must get its reply
            call.fail_internally()

    def _dispatch_large(self, known: _Operation, body: bytes, call: Call) -> None:
        if self._large_bodies_bytes + len(body) > LARGE_BODIES_BYTES_MAX:
            call.fail(ServiceUnavailableError())
            return
        self._large_bodies_bytes += len(body)
        self._start(self._execute_large(known, body, call), call)

    async def _execute_large(
        self, known: _Operation, body: bytes, call: Call
    ) -> Mapping[str, Any] | bytes | None:
        """What `dispatch` does, with all work on the body elsewhere."""
        aside = functools.partial(asyncio.get_running_loop().run_in_executor, self._large_bodies)
        try:
            request = await aside(decode_request, known.name, body, known.wording)
            try:
                outcome = known.handle(request, call)
                return None if outcome is None else await outcome
            except (ValidationError, SerializationError) as error:
                complaint = aside(_first_complaint, known, body, error, not call.has_begun)
                raise await complaint from error
        finally:
            self._large_bodies_bytes -= len(body)

    def _start(
        self, coroutine: Coroutine[Any, Any, Mapping[str, Any] | bytes | None], call: Call
    ) -> None:
        task = asyncio.get_running_loop().create_task(_run(coroutine, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run(
    coroutine: Coroutine[Any, Any, Mapping[str, Any] | bytes | None], call: Call
) -> None:
    """The root of a task; None: a handler without a coroutine answers by itself."""
    try:
        outcome = await coroutine
        if outcome is None:
            return
        call.succeed(outcome if isinstance(outcome, bytes) else msgspec.json.encode(outcome))
    except DynamoDBError as error:
        call.fail(error)
    except WriteOutcomeUnknown:
        call.fail(InternalServerError())
    except CatalogUnavailable:
        call.fail(ServiceUnavailableError())
    except asyncio.CancelledError:
        call.fail(ServiceUnavailableError())
        raise
    except Exception:  # noqa: BLE001 - logged there; the client must get its reply
        call.fail_internally()


def _unknown_operation(body: bytes) -> DynamoDBError:
    """The service looks at the body first, if there is one."""
    if body:
        try:
            msgspec.json.decode(body)
        except (ValueError, RecursionError):
            return SerializationError()
    return UnknownOperationError()


def _first_complaint(
    known: _Operation, body: bytes, error: DynamoDBError, is_by_itself: bool
) -> DynamoDBError:
    """What the service says of a request with several mistakes: wrong JSON types come before all others."""
    try:
        wording = explain_request(known.name, body, known.wording)
    except DynamoDBError as first:
        return first
    return worded(error, wording, is_by_itself=is_by_itself)
