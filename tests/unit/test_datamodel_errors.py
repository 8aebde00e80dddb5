"""Errors: names, prefixes, statuses and bodies as the service sends them."""

import msgspec
import pytest

from datamodel import errors
from datamodel.errors import (
    CancellationReason,
    ConditionalCheckFailedError,
    Corruption,
    DynamoDBError,
    InternalServerError,
    RequestTooLarge,
    SerializationError,
    ServiceUnavailableError,
    TransactionCanceledError,
    UnknownOperationError,
    ValidationError,
    error_body,
    error_for_code,
)

SERVICE = "com.amazonaws.dynamodb.v20120810#"
CORAL = "com.amazon.coral.service#"


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            ValidationError("wrong"),
            400,
            {"__type": "com.amazon.coral.validate#ValidationException", "message": "wrong"},
        ),
        (SerializationError(), 400, {"__type": CORAL + "SerializationException"}),
        (
            SerializationError("x"),
            400,
            {"__type": CORAL + "SerializationException", "Message": "x"},
        ),
        (UnknownOperationError(), 400, {"__type": CORAL + "UnknownOperationException"}),
        (
            errors.ResourceNotFoundError(),
            400,
            {
                "__type": SERVICE + "ResourceNotFoundException",
                "message": "Requested resource not found",
            },
        ),
        (
            errors.ResourceInUseError("busy"),
            400,
            {"__type": SERVICE + "ResourceInUseException", "message": "busy"},
        ),
        (
            errors.ThrottlingError("slow", {"throttlingReasons": [{"reason": "r"}]}),
            400,
            {
                "__type": "com.amazon.coral.availability#ThrottlingException",
                "message": "slow",
                "throttlingReasons": [{"reason": "r"}],
            },
        ),
        (
            InternalServerError(),
            500,
            {"__type": SERVICE + "InternalServerError", "message": "Internal server error"},
        ),
        (
            ConditionalCheckFailedError(b'{"pk":{"S":"a"}}'),
            400,
            {
                "__type": SERVICE + "ConditionalCheckFailedException",
                "message": "The conditional request failed",
                "Item": {"pk": {"S": "a"}},
            },
        ),
        (
            ConditionalCheckFailedError(),
            400,
            {
                "__type": SERVICE + "ConditionalCheckFailedException",
                "message": "The conditional request failed",
            },
        ),
        (
            TransactionCanceledError(
                [
                    CancellationReason(),
                    CancellationReason(
                        "ConditionalCheckFailed",
                        "The conditional request failed",
                        b'{"a":{"N":"1"}}',
                    ),
                ]
            ),
            400,
            {
                "__type": SERVICE + "TransactionCanceledException",
                "Message": "Transaction cancelled, please refer cancellation reasons for specific "
                "reasons [None, ConditionalCheckFailed]",
                "CancellationReasons": [
                    {"Code": "None"},
                    {
                        "Code": "ConditionalCheckFailed",
                        "Item": {"a": {"N": "1"}},
                        "Message": "The conditional request failed",
                    },
                ],
            },
        ),
        (
            errors.IdempotentParameterMismatchError("m"),
            400,
            {"__type": SERVICE + "IdempotentParameterMismatchException", "Message": "m"},
        ),
    ],
)
def test_body_and_status(error, status, body):
    assert error.http_status == status
    assert msgspec.json.decode(error_body(error)) == body


def test_type_comes_first_in_the_body():
    assert error_body(ValidationError("x")).startswith(b'{"__type":')


def test_too_large_a_request_gets_no_body():
    assert RequestTooLarge().http_status == 413
    assert error_body(RequestTooLarge()) == b""


def test_unavailable_is_503():
    error = ServiceUnavailableError()
    assert (error.http_status, error.code, error.retryable) == (503, "ServiceUnavailable", True)


@pytest.mark.parametrize("error_class", DynamoDBError.__subclasses__())
def test_every_error_is_rebuilt_from_its_code(error_class):
    rebuilt = error_for_code(error_class.code, "told so")
    assert type(rebuilt) is error_class
    assert rebuilt.message == "told so"
    assert str(rebuilt) == "told so"
    assert rebuilt.type_name.endswith("#" + error_class.code)


def test_codes_are_unique():
    codes = [error_class.code for error_class in DynamoDBError.__subclasses__()]
    assert len(codes) == len(set(codes))


def test_empty_message_gives_the_default():
    rebuilt = error_for_code("ConditionalCheckFailedException", "")
    assert rebuilt.message == "The conditional request failed"


def test_unknown_code_is_an_internal_error_with_its_message():
    rebuilt = error_for_code("FromTheFutureException", "hm")
    assert (type(rebuilt), rebuilt.message) == (InternalServerError, "hm")


def test_corruption_is_not_told_to_clients():
    error = Corruption("key 0a", "checksum 1", "checksum 2")
    assert not isinstance(error, DynamoDBError)
    assert str(error) == "key 0a: expected checksum 1, found checksum 2"
