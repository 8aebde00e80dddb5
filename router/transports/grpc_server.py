"""The gRPC endpoint: `quorate.v1.DynamoDB` over the handlers that the HTTP endpoint uses.

A call's message becomes the JSON body of the AWS API, goes through `dispatch`, and the reply's body becomes the
answer, so both endpoints decide everything alike. Beside it: server reflection and the standard health service.

Messages are parsed here rather than by grpc, so that garbage is answered like any other malformed request.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias
from urllib.parse import quote_from_bytes

import grpc
import msgspec
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from datamodel.errors import InternalServerError, SerializationError, error_body
from proto import dynamodb_pb2
from proto.translate import from_members, to_members
from router.context import Dispatch, RequestContext

log = logging.getLogger(__name__)

SERVICE_NAME: Final = dynamodb_pb2.DESCRIPTOR.services_by_name["DynamoDB"].full_name
# Trailing metadata of a failed call: a serialized `ErrorDetail`.
ERROR_DETAIL_KEY: Final = "quorate-error-bin"
REQUEST_ID_KEY: Final = "x-amzn-requestid"

# The largest request of the API has 16 MB of JSON.
MESSAGE_BYTES_MAX: Final = 20 << 20
# More calls at once are refused with RESOURCE_EXHAUSTED.
CONCURRENT_CALLS_MAX: Final = 4096
# Clients refuse trailing metadata of more than 8 KB: what counts is the status text as it is escaped on the
# wire, and the detail in base64.
STATUS_TEXT_BYTES_MAX: Final = 1 << 10
DETAIL_BYTES_MAX: Final = 4 << 10
DETAIL_MESSAGE_CHARS_MAX: Final = 700
# From here on messages are translated in a thread: a million small values take seconds.
LARGE_MESSAGE_BYTES: Final = 256 << 10
# How soon a change of readiness is told to those who watch.
HEALTH_INTERVAL_S: Final = 0.5

_Status = grpc.StatusCode

STATUS_BY_CODE: Final[dict[str, Any]] = {
    "ValidationException": _Status.INVALID_ARGUMENT,
    "SerializationException": _Status.INVALID_ARGUMENT,
    "IdempotentParameterMismatchException": _Status.INVALID_ARGUMENT,
    "InvalidRestoreTimeException": _Status.INVALID_ARGUMENT,
    "ResourceNotFoundException": _Status.NOT_FOUND,
    "TableNotFoundException": _Status.NOT_FOUND,
    "IndexNotFoundException": _Status.NOT_FOUND,
    "BackupNotFoundException": _Status.NOT_FOUND,
    "PolicyNotFoundException": _Status.NOT_FOUND,
    "TableAlreadyExistsException": _Status.ALREADY_EXISTS,
    "DuplicateItemException": _Status.ALREADY_EXISTS,
    "ResourceInUseException": _Status.FAILED_PRECONDITION,
    "TableInUseException": _Status.FAILED_PRECONDITION,
    "BackupInUseException": _Status.FAILED_PRECONDITION,
    "ConditionalCheckFailedException": _Status.FAILED_PRECONDITION,
    "ItemCollectionSizeLimitExceededException": _Status.FAILED_PRECONDITION,
    "ContinuousBackupsUnavailableException": _Status.FAILED_PRECONDITION,
    "PointInTimeRecoveryUnavailableException": _Status.FAILED_PRECONDITION,
    "TransactionConflictException": _Status.ABORTED,
    "TransactionCanceledException": _Status.ABORTED,
    "TransactionInProgressException": _Status.ABORTED,
    "ReplicatedWriteConflictException": _Status.ABORTED,
    "LimitExceededException": _Status.RESOURCE_EXHAUSTED,
    "ProvisionedThroughputExceededException": _Status.RESOURCE_EXHAUSTED,
    "RequestLimitExceeded": _Status.RESOURCE_EXHAUSTED,
    "ThrottlingException": _Status.RESOURCE_EXHAUSTED,
    "RequestEntityTooLarge": _Status.RESOURCE_EXHAUSTED,
    "MissingAuthenticationTokenException": _Status.UNAUTHENTICATED,
    "IncompleteSignatureException": _Status.UNAUTHENTICATED,
    "InvalidSignatureException": _Status.UNAUTHENTICATED,
    "UnrecognizedClientException": _Status.UNAUTHENTICATED,
    "ExpiredTokenException": _Status.UNAUTHENTICATED,
    "AccessDeniedException": _Status.PERMISSION_DENIED,
    "UnknownOperationException": _Status.UNIMPLEMENTED,
    "InternalServerError": _Status.INTERNAL,
    "ServiceUnavailable": _Status.UNAVAILABLE,
}
_STATUS_BY_HTTP: Final = {
    413: _Status.RESOURCE_EXHAUSTED,
    500: _Status.INTERNAL,
    503: _Status.UNAVAILABLE,
}


class GrpcContext(RequestContext):
    """A gRPC call's context.

    Attributes:
        time_remaining_s: What was left of the client's deadline when the call arrived; None without one.
    """

    __slots__ = ("time_remaining_s",)

    def __init__(self, request_id: bytes, time_remaining_s: float | None) -> None:
        super().__init__(request_id)
        self.time_remaining_s = time_remaining_s


class GrpcServer:
    """A running server.

    Attributes:
        port: The port that it listens on.
    """

    def __init__(self, server: Any, port: int, health: "_Health") -> None:
        self._server = server
        self._health = health
        self.port = port

    async def stop(self, grace_s: float | None = None) -> None:
        """Take no new calls; end those that still run after `grace_s` seconds (at once without it)."""
        self._health.is_stopping = True  # or those who watch would keep the server up all that time
        await self._server.stop(grace_s)

    async def wait_for_termination(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()


async def serve_grpc(
    address: str,
    dispatch: Dispatch,
    readiness: Callable[[], bool],
    new_request_id: Callable[[], bytes],
    credentials: Any = None,
) -> GrpcServer:
    """Start the endpoint on the running loop.

    Args:
        address: host:port; port 0 takes a free one. Several processes may share a port.
        dispatch: Executes requests.
        readiness: Whether this process can serve now; the health service tells it.
        new_request_id: 52 characters of [0-9A-Z], different each time.
        credentials: `grpc.ServerCredentials` for TLS; without them the wire is plain.

    Raises:
        RuntimeError: The address cannot be bound.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.so_reuseport", 1),
        ],
        maximum_concurrent_rpcs=CONCURRENT_CALLS_MAX,
    )
    methods = {
        method.name: grpc.unary_unary_rpc_method_handler(_handler(method, dispatch, new_request_id))
        for method in dynamodb_pb2.DESCRIPTOR.services_by_name["DynamoDB"].methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, methods),))
    health = _Health(readiness)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    names = (SERVICE_NAME, health_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    await server.start()
    return GrpcServer(server, port, health)


# --- calls -------------------------------------------------------------------------------------------------

_Outcome: TypeAlias = tuple[int, bytes]
# One thread: what is large waits for what is large.
_large_messages: Final = ThreadPoolExecutor(1, thread_name_prefix="large-messages")
_Handler: TypeAlias = Callable[[bytes, Any], Awaitable[bytes]]


def _handler(method: Any, dispatch: Dispatch, new_request_id: Callable[[], bytes]) -> _Handler:
    operation: str = method.name
    request_type = getattr(dynamodb_pb2, method.input_type.name)
    response_type = getattr(dynamodb_pb2, method.output_type.name)

    async def run(data: bytes, context: GrpcContext) -> "bytes | _Failure":
        status, body = await _execute(operation, data, request_type, dispatch, context)
        if status != 200:
            return _failure(operation, status, body, context.request_id.decode())
        return await _aside(len(body), _to_message, body, response_type)

    async def handle(data: bytes, call: Any) -> bytes:
        context = GrpcContext(new_request_id(), call.time_remaining())
        request_id = context.request_id.decode()
        try:
            outcome = await run(data, context)
        except (
            Exception
        ):  # the root of the call's task: our own bug must not be silent or end others
            log.exception(
                "grpc call failed", extra={"request_id": request_id, "operation": operation}
            )
            error = InternalServerError()
            outcome = _failure(operation, error.http_status, error_body(error), request_id)
        metadata = ((REQUEST_ID_KEY, request_id),)
        if isinstance(outcome, bytes):
            call.set_trailing_metadata(metadata)
            return outcome
        detail = outcome.detail.SerializeToString()
        call.set_trailing_metadata((*metadata, (ERROR_DETAIL_KEY, detail)))
        await call.abort(outcome.status, outcome.text)
        raise AssertionError("abort raises")

    return handle


async def _execute(
    operation: str,
    data: bytes,
    request_type: type[Message],
    dispatch: Dispatch,
    context: GrpcContext,
) -> _Outcome:
    """The HTTP status and body of a request."""
    try:
        request = await _aside(len(data), _to_body, data, request_type)
    except DecodeError:
        error = SerializationError("The message cannot be decoded")
        return error.http_status, error_body(error)
    done: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()

    def reply(status: int, body: bytes) -> None:
        # A client that gave up cancels the call; what it asked for goes on regardless.
        if not done.done():
            done.set_result((status, bytes(body)))

    dispatch(operation, request, context, reply)
    return await done


async def _aside(size: int, work: Callable[[bytes, type[Message]], bytes], *args: Any) -> bytes:
    """The result of work on so many bytes: in a thread if they are many, so that other calls go on."""
    if size < LARGE_MESSAGE_BYTES:
        return work(*args)
    return await asyncio.get_running_loop().run_in_executor(_large_messages, work, *args)


def _to_body(data: bytes, request_type: type[Message]) -> bytes:
    return msgspec.json.encode(to_members(request_type.FromString(data)))


def _to_message(body: bytes, response_type: type[Message]) -> bytes:
    answer: bytes = from_members(
        msgspec.json.decode(body or b"{}"), response_type
    ).SerializeToString()
    return answer


# --- failures ----------------------------------------------------------------------------------------------


class _Failure:
    """How a failed call ends."""

    __slots__ = ("detail", "status", "text")

    def __init__(self, status: Any, text: str, detail: dynamodb_pb2.ErrorDetail) -> None:
        self.status = status
        self.text = text
        self.detail = detail


def _failure(operation: str, http_status: int, body: bytes, request_id: str) -> _Failure:
    members = _error_members(body)
    code = str(members.get("__type", "")).rpartition("#")[2]
    if not code and http_status == 413:
        code = "RequestEntityTooLarge"
    message = str(members.get("message") or members.get("Message") or "")
    status = STATUS_BY_CODE.get(code)
    if status is None:
        status = _STATUS_BY_HTTP.get(http_status, _Status.UNKNOWN)
    elif operation == "CreateTable" and code == "ResourceInUseException":
        status = _Status.ALREADY_EXISTS
    detail = dynamodb_pb2.ErrorDetail(
        code=code, message=message, http_status=http_status, request_id=request_id
    )
    _add_members(detail, members)
    if detail.ByteSize() > DETAIL_BYTES_MAX:
        detail.ClearField("item")
        detail.ClearField("throttling_reasons")
        detail.message = message[:DETAIL_MESSAGE_CHARS_MAX]
        detail.truncated = True
    text = f"{code}: {message}" if message else code
    return _Failure(status, _shorten(text), detail)


def _error_members(body: bytes) -> dict[str, Any]:
    try:
        members = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return members if isinstance(members, dict) else {}


def _add_members(detail: dynamodb_pb2.ErrorDetail, members: dict[str, Any]) -> None:
    item = members.get("Item")
    if item is not None:
        detail.item.CopyFrom(from_members(item, dynamodb_pb2.Item))
    reasons = members.get("ThrottlingReasons") or members.get("throttlingReasons") or ()
    detail.throttling_reasons.extend(
        from_members(reason, dynamodb_pb2.ThrottlingReason) for reason in reasons
    )


def _shorten(text: str) -> str:
    """The beginning of a text, so much that it stays small when grpc escapes it."""
    if len(text) * 12 <= STATUS_TEXT_BYTES_MAX:
        return text
    text = text[:STATUS_TEXT_BYTES_MAX]
    while len(quote_from_bytes(text.encode("utf-8", "replace"), safe=" ")) > STATUS_TEXT_BYTES_MAX:
        text = text[: len(text) * 3 // 4]
    return text


# --- health ------------------------------------------------------------------------------------------------


class _Health:
    """grpc.health.v1.Health for the whole server ("") and for the DynamoDB service, which are one."""

    def __init__(self, readiness: Callable[[], bool]) -> None:
        self._readiness = readiness
        self.is_stopping = False

    def _status(self, service: str) -> Any:
        response = health_pb2.HealthCheckResponse
        if service not in ("", SERVICE_NAME):
            return response.SERVICE_UNKNOWN
        serves = self._readiness() and not self.is_stopping
        return response.SERVING if serves else response.NOT_SERVING

    async def Check(self, request: Any, call: Any) -> Any:  # noqa: N802 - the service's name
        """Whether the service can serve now."""
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await call.abort(_Status.NOT_FOUND, f"unknown service {request.service[:100]!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, call: Any) -> Any:  # noqa: N802
        """The state of every service."""
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=self._status(name))
                for name in ("", SERVICE_NAME)
            }
        )

    async def Watch(self, request: Any, call: Any) -> AsyncIterator[Any]:  # noqa: N802
        """The present state, then each change, until the client leaves or the server stops."""
        told = None
        while True:
            status = self._status(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            if self.is_stopping:
                return
            await asyncio.sleep(HEALTH_INTERVAL_S)
