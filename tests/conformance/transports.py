"""How a request of the corpus reaches an endpoint: bare AWS JSON over HTTP, or the typed messages of gRPC.

No SDK is in the way: what it would refuse by itself is what the corpus is about.
"""

import http.client
import json
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import grpc

from proto import dynamodb_pb2, dynamodb_pb2_grpc
from proto.translate import from_members, to_members

TIMEOUT_S: Final = 30.0
_TYPE_PREFIXES: Final = {
    "ValidationException": "com.amazon.coral.validate#",
    "SerializationException": "com.amazon.coral.service#",
    "UnknownOperationException": "com.amazon.coral.service#",
    "AccessDeniedException": "com.amazon.coral.service#",
    "ThrottlingException": "com.amazon.coral.availability#",
}
# Operations whose success has no body, not even an object without members.
_WITHOUT_ANSWER: Final = frozenset(("TagResource", "UntagResource"))
_SERVICE_PREFIX: Final = "com.amazonaws.dynamodb.v20120810#"


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer: members of a success, or an error's code, message and further members."""

    members: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    message: str = ""
    # The endpoint cut the message short.
    is_cut: bool = False
    # What is wrong with the answer's form, whatever it says.
    malformed: str = ""


class Transport(Protocol):
    """A way to an endpoint.

    Attributes:
        name: `http` or `grpc`.
        shows_empty_lists: Whether an empty list in an answer can be told from none at all.
    """

    name: str
    shows_empty_lists: bool

    def can_send(self, operation: str, body: str) -> bool:
        """Whether the request can be said in this transport without a change."""

    def send(self, operation: str, body: str) -> Outcome:
        """Send a request, `body` being its JSON or what is no JSON, and wait for the answer."""

    def close(self) -> None:
        """Drop the connection."""


class HttpTransport:
    """AWS JSON 1.0 over one kept connection, signed only if credentials are given."""

    name = "http"
    shows_empty_lists = True

    def __init__(self, endpoint: str, credentials: Any = None, region: str = "us-east-1") -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname is not None, endpoint
        connect = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = connect(parts.hostname, parts.port, timeout=TIMEOUT_S)
        self._endpoint = endpoint
        self._credentials = credentials
        self._region = region

    def can_send(self, operation: str, body: str) -> bool:
        """Everything can be sent."""
        return True

    def send(self, operation: str, body: str) -> Outcome:
        """See `Transport`; also checks the answer's checksum, status and type name."""
        data = body.encode("utf-8", "surrogatepass")
        headers = {
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
        }
        if self._credentials is not None:
            headers = self._signed(data, headers)
        try:
            self._connection.request("POST", "/", data, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except BaseException:
            self._connection.close()
            raise
        checksum = response.headers.get("x-amz-crc32")
        malformed = ""
        if checksum is not None and int(checksum) != zlib.crc32(answer):
            malformed = "x-amz-crc32 is not that of the body"
        if response.status == 200:
            if bool(answer) == (operation in _WITHOUT_ANSWER):
                malformed = f"the body is {answer[:100]!r}"
            return Outcome(json.loads(answer or b"{}"), malformed=malformed)
        if not answer:
            return Outcome(code=f"HTTP {response.status}", malformed=malformed)
        members = json.loads(answer)
        type_name = members.pop("__type", "")
        prefix, _, code = type_name.rpartition("#")
        if response.status != 400:
            malformed = f"status {response.status}"
        elif prefix + "#" != _TYPE_PREFIXES.get(code, _SERVICE_PREFIX):
            malformed = f"__type is {type_name}"
        message = members.pop("message", None) or members.pop("Message", None) or ""
        return Outcome(members, code, message, malformed=malformed)

    def _signed(self, data: bytes, headers: dict[str, str]) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest("POST", self._endpoint, headers=headers, data=data)
        SigV4Auth(self._credentials, "dynamodb", self._region).add_auth(request)
        return dict(request.headers.items())

    def close(self) -> None:
        """See `Transport`."""
        self._connection.close()


class GrpcTransport:
    """`quorate.v1.DynamoDB` through its generated stub."""

    name = "grpc"
    shows_empty_lists = False

    def __init__(self, address: str) -> None:
        size = ("grpc.max_receive_message_length", 32 << 20)
        self._channel = grpc.insecure_channel(address, options=[size])
        self._stub = dynamodb_pb2_grpc.DynamoDBStub(self._channel)

    def can_send(self, operation: str, body: str) -> bool:
        """Whether the message says the same as the JSON."""
        request_type = getattr(dynamodb_pb2, f"{operation}Request", None)
        if request_type is None:
            return False
        try:
            members = json.loads(body)
            if not isinstance(members, dict):
                return False
            said = to_members(from_members(members, request_type))
            # As text: to Python, 1 and true are equal.
            return json.dumps(said, sort_keys=True) == json.dumps(members, sort_keys=True)
        except (ValueError, OverflowError, KeyError, RecursionError):
            return False

    def send(self, operation: str, body: str) -> Outcome:
        """See `Transport`."""
        request = from_members(json.loads(body), getattr(dynamodb_pb2, f"{operation}Request"))
        try:
            return Outcome(to_members(getattr(self._stub, operation)(request, timeout=TIMEOUT_S)))
        except grpc.RpcError as error:
            for key, value in error.trailing_metadata() or ():
                if key == "quorate-error-bin":
                    detail = dynamodb_pb2.ErrorDetail.FromString(value)
                    extra = {"Item": to_members(detail.item)} if detail.HasField("item") else {}
                    return Outcome(
                        extra,
                        detail.code,
                        detail.message,
                        detail.truncated,
                        "" if detail.http_status == 400 else f"status {detail.http_status}",
                    )
            return Outcome(code=f"gRPC {error.code()}", message=error.details() or "")

    def close(self) -> None:
        """See `Transport`."""
        self._channel.close()
