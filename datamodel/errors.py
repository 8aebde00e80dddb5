"""Failures: each DynamoDB exception once, and the one that means damaged data.

A `DynamoDBError` is always meant for the client; its message is the service's, letter for letter. What the
cluster goes through by itself (not leader, outcome unknown) travels as messages of `proto`, not as these.

Sources: the service model (which member names the text, which members come with it); prefixes and statuses as
observed on the service by the authors of dynalite.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

_SERVICE_PREFIX = "com.amazonaws.dynamodb.v20120810#"
_CORAL_PREFIX = "com.amazon.coral.service#"
_VALIDATION_PREFIX = "com.amazon.coral.validate#"
_AVAILABILITY_PREFIX = "com.amazon.coral.availability#"


class DynamoDBError(Exception):
    """A failure that the client is told of.

    Attributes:
        code: Short exception name as SDKs know it, such as `ValidationException`.
        type_prefix: What precedes the code in `__type`.
        http_status: Status of the HTTP answer.
        message_key: Name of the body member that holds the message.
        retryable: Whether the same request may succeed later without being changed.
        default_message: The message when none is given.
        message: The service's text; an empty one is left out of the body.
        extra: Further members of the body.
    """

    code: ClassVar[str] = "InternalServerError"
    type_prefix: ClassVar[str] = _SERVICE_PREFIX
    http_status: ClassVar[int] = 400
    message_key: ClassVar[str] = "message"
    retryable: ClassVar[bool] = False
    default_message: ClassVar[str] = ""

    def __init__(self, message: str | None = None, extra: dict[str, Any] | None = None) -> None:
        self.message: str = self.default_message if message is None else message
        self.extra: dict[str, Any] = {} if extra is None else extra
        super().__init__(self.message)

    @property
    def type_name(self) -> str:
        """The `__type` member, such as `com.amazon.coral.validate#ValidationException`."""
        return self.type_prefix + self.code


# --- the request is wrong ----------------------------------------------------------------------------------


class ValidationError(DynamoDBError):
    """The request breaks a rule of the API.

    Attributes:
        newer: The text of the validation layer of 2026 where it is another one (`datamodel.wording`).
        as_java: The text of operations that read numbers as Java's BigDecimal, where it is another one.
    """

    code = "ValidationException"
    type_prefix = _VALIDATION_PREFIX

    def __init__(
        self,
        message: str | None = None,
        extra: dict[str, Any] | None = None,
        *,
        newer: str | None = None,
        as_java: str | None = None,
    ) -> None:
        super().__init__(message, extra)
        self.newer = newer
        self.as_java = as_java

    @property
    def newest(self) -> str:
        """The text of 2026."""
        return self.message if self.newer is None else self.newer


class SerializationError(DynamoDBError):
    """The body is not JSON (no message), or a member has the wrong JSON type."""

    code = "SerializationException"
    type_prefix = _CORAL_PREFIX
    message_key = "Message"


class UnknownOperationError(DynamoDBError):
    """No such operation."""

    code = "UnknownOperationException"
    type_prefix = _CORAL_PREFIX


class RequestTooLarge(DynamoDBError):
    """The body is larger than a request may be; the answer has no body."""

    code = "RequestEntityTooLarge"
    type_prefix = _CORAL_PREFIX
    http_status = 413


# --- who asks ----------------------------------------------------------------------------------------------


class MissingAuthenticationTokenError(DynamoDBError):
    """The request is not signed."""

    code = "MissingAuthenticationTokenException"
    type_prefix = _CORAL_PREFIX
    default_message = "Request is missing Authentication Token"


class IncompleteSignatureError(DynamoDBError):
    """The authorization header or query lacks parts."""

    code = "IncompleteSignatureException"
    type_prefix = _CORAL_PREFIX


class InvalidSignatureError(DynamoDBError):
    """The signature, its scope or its date is not accepted."""

    code = "InvalidSignatureException"
    type_prefix = _CORAL_PREFIX
    default_message = (
        "The request signature we calculated does not match the signature you provided. "
        "Check your AWS Secret Access Key and signing method. "
        "Consult the service documentation for details."
    )


class UnrecognizedClientError(DynamoDBError):
    """Unknown access key or session token."""

    code = "UnrecognizedClientException"
    type_prefix = _CORAL_PREFIX
    default_message = "The security token included in the request is invalid."


class ExpiredTokenError(DynamoDBError):
    """The session token has expired."""

    code = "ExpiredTokenException"
    type_prefix = _CORAL_PREFIX
    default_message = "The security token included in the request is expired"


class AccessDeniedError(DynamoDBError):
    """The caller may not do this."""

    code = "AccessDeniedException"
    type_prefix = _CORAL_PREFIX
    message_key = "Message"


# --- tables and other resources ----------------------------------------------------------------------------


class ResourceNotFoundError(DynamoDBError):
    """The table or another named resource does not exist, or is not ready."""

    code = "ResourceNotFoundException"
    default_message = "Requested resource not found"


class ResourceInUseError(DynamoDBError):
    """The resource exists already or is being changed."""

    code = "ResourceInUseException"


class LimitExceededError(DynamoDBError):
    """Too many control-plane operations at once, or an account limit is reached."""

    code = "LimitExceededException"
    retryable = True


class TableAlreadyExistsError(DynamoDBError):
    """A restore or import names a table that exists."""

    code = "TableAlreadyExistsException"


class TableNotFoundError(DynamoDBError):
    """A backup operation names a table that does not exist."""

    code = "TableNotFoundException"


class TableInUseError(DynamoDBError):
    """The table is being created or deleted."""

    code = "TableInUseException"


class IndexNotFoundError(DynamoDBError):
    """The index does not exist."""

    code = "IndexNotFoundException"


class PolicyNotFoundError(DynamoDBError):
    """The resource has no policy."""

    code = "PolicyNotFoundException"


class BackupInUseError(DynamoDBError):
    """Another operation works on the backup."""

    code = "BackupInUseException"


class BackupNotFoundError(DynamoDBError):
    """The backup does not exist."""

    code = "BackupNotFoundException"


class ContinuousBackupsUnavailableError(DynamoDBError):
    """Continuous backups are not enabled for the table."""

    code = "ContinuousBackupsUnavailableException"


class PointInTimeRecoveryUnavailableError(DynamoDBError):
    """Point-in-time recovery is not enabled for the table."""

    code = "PointInTimeRecoveryUnavailableException"


class InvalidRestoreTimeError(DynamoDBError):
    """The time to restore lies outside the recovery window."""

    code = "InvalidRestoreTimeException"


# --- items -------------------------------------------------------------------------------------------------


class ConditionalCheckFailedError(DynamoDBError):
    """The condition of a write does not hold.

    Args:
        item_json: The item as JSON when the request asked for it (`ReturnValuesOnConditionCheckFailure`).
        message: The service's text.
    """

    code = "ConditionalCheckFailedException"
    default_message = "The conditional request failed"

    def __init__(self, item_json: bytes | None = None, message: str | None = None) -> None:
        super().__init__(message, None if item_json is None else {"Item": msgspec.Raw(item_json)})
        self.item_json = item_json


class ItemCollectionSizeLimitExceededError(DynamoDBError):
    """An item collection of a table with local indexes is larger than 10 GB."""

    code = "ItemCollectionSizeLimitExceededException"
    default_message = "Collection size exceeded."


class DuplicateItemError(DynamoDBError):
    """A PartiQL INSERT names a key that exists."""

    code = "DuplicateItemException"
    default_message = "Duplicate primary key exists in table"


class ReplicatedWriteConflictError(DynamoDBError):
    """Another region writes the item at the same time."""

    code = "ReplicatedWriteConflictException"
    retryable = True


class TransactionConflictError(DynamoDBError):
    """An undecided transaction holds the item."""

    code = "TransactionConflictException"
    retryable = True
    default_message = "Transaction is ongoing for the item"


@dataclass(frozen=True, slots=True)
class CancellationReason:
    """What one action of a cancelled transaction came to; `code` is "None" where nothing was wrong.

    Attributes:
        code: Such as `ConditionalCheckFailed`, `TransactionConflict`, `ValidationError`, `None`.
        message: The text, left out where empty.
        item_json: The item as JSON when the request asked for it.
    """

    code: str = "None"
    message: str = ""
    item_json: bytes | None = None

    def body(self) -> dict[str, Any]:
        """The member of `CancellationReasons`."""
        members: dict[str, Any] = {"Code": self.code}
        if self.item_json is not None:
            members["Item"] = msgspec.Raw(self.item_json)
        if self.message:
            members["Message"] = self.message
        return members


class TransactionCanceledError(DynamoDBError):
    """A transaction was cancelled; one reason per action, in the order of the request."""

    code = "TransactionCanceledException"
    message_key = "Message"

    def __init__(
        self, reasons: Sequence[CancellationReason] = (), message: str | None = None
    ) -> None:
        if message is None:
            codes = ", ".join(reason.code for reason in reasons)
            message = (
                "Transaction cancelled, please refer cancellation reasons "
                f"for specific reasons [{codes}]"
            )
        super().__init__(message, {"CancellationReasons": [reason.body() for reason in reasons]})
        self.reasons = tuple(reasons)


class TransactionInProgressError(DynamoDBError):
    """A transaction with this token is still running."""

    code = "TransactionInProgressException"
    message_key = "Message"
    retryable = True


class IdempotentParameterMismatchError(DynamoDBError):
    """The token was used before with another request."""

    code = "IdempotentParameterMismatchException"
    message_key = "Message"


# --- too much, or not now ----------------------------------------------------------------------------------


class ProvisionedThroughputExceededError(DynamoDBError):
    """A table's or partition's throughput is used up."""

    code = "ProvisionedThroughputExceededException"
    retryable = True
    default_message = (
        "The level of configured provisioned throughput for the table was exceeded. "
        "Consider increasing your provisioning level with the UpdateTable API."
    )


class RequestLimitExceededError(DynamoDBError):
    """The account's throughput is used up."""

    code = "RequestLimitExceeded"
    retryable = True


class ThrottlingError(DynamoDBError):
    """Requests come faster than they may."""

    code = "ThrottlingException"
    type_prefix = _AVAILABILITY_PREFIX
    retryable = True
    default_message = "Rate of requests exceeds the allowed throughput."


class InternalServerError(DynamoDBError):
    """The service failed; a write may or may not have taken effect."""

    code = "InternalServerError"
    http_status = 500
    retryable = True
    default_message = "Internal server error"


class ServiceUnavailableError(DynamoDBError):
    """The service cannot serve the request now; it was not executed."""

    code = "ServiceUnavailable"
    type_prefix = _AVAILABILITY_PREFIX
    http_status = 503
    retryable = True
    default_message = "Service Unavailable. Please try again later."


# --- lookup and rendering ----------------------------------------------------------------------------------


_CLASS_BY_CODE: Final[dict[str, type[DynamoDBError]]] = {
    error_class.code: error_class for error_class in DynamoDBError.__subclasses__()
}


def error_for_code(code: str, message: str) -> DynamoDBError:
    """The error with this short code, as a storage node named it.

    An empty message gives the class's own text. A code that this version does not know becomes an
    `InternalServerError` that keeps the message: a newer peer must not be able to crash an older one.
    """
    error_class = _CLASS_BY_CODE.get(code, InternalServerError)
    text = message or None
    if error_class is ConditionalCheckFailedError:
        return ConditionalCheckFailedError(message=text)
    if error_class is TransactionCanceledError:
        return TransactionCanceledError(message=text)
    return error_class(text)


def error_body(error: DynamoDBError) -> bytes:
    """The JSON body of the answer; empty for `RequestTooLarge`."""
    if error.http_status == RequestTooLarge.http_status:
        return b""
    members: dict[str, Any] = {"__type": error.type_name}
    if error.message:
        members[error.message_key] = error.message
    members.update(error.extra)
    return msgspec.json.encode(members)


# --- damaged data ------------------------------------------------------------------------------------------


class Corruption(Exception):
    """Stored bytes are not what was written; the replica must stop serving and be repaired.

    Never shown to a client, and never treated as "not found".
    """

    def __init__(self, where: str, expected: object, found: object) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where = where
        self.expected = expected
        self.found = found
