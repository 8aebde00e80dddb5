"""The endpoint that the corpus runs on, and ways to it."""

import os
from collections.abc import Iterator

import pytest

from tests.conformance.runner import Surroundings
from tests.conformance.tables import create_shared_tables, delete_tables
from tests.conformance.transports import GrpcTransport, HttpTransport, Transport


@pytest.fixture(scope="session")
def surroundings(request: pytest.FixtureRequest) -> Surroundings:
    endpoint = request.config.getoption("--endpoint")
    return Surroundings(
        prefix=f"conformance-{os.urandom(4).hex()}-",
        region=request.config.getoption("--region"),
        account_id=request.config.getoption("--account-id"),
        loose=bool(endpoint) and request.config.getoption("--loose"),
    )


@pytest.fixture(scope="session")
def http_transport(
    request: pytest.FixtureRequest, surroundings: Surroundings
) -> Iterator[Transport]:
    """The HTTP endpoint, with the shared tables there."""
    endpoint = request.config.getoption("--endpoint")
    credentials = None
    if endpoint and request.config.getoption("--sign"):
        import botocore.session

        credentials = botocore.session.get_session().get_credentials()
    if not endpoint:
        endpoint = request.getfixturevalue("cluster").http
    transport = HttpTransport(endpoint, credentials, surroundings.region)
    create_shared_tables(transport, surroundings.prefix)
    yield transport
    transport.close()  # (idle since the last case, longer than a server may keep it; it is opened again)
    delete_tables(transport, surroundings.prefix)
    transport.close()


@pytest.fixture(scope="session")
def transports(
    request: pytest.FixtureRequest, http_transport: Transport
) -> Iterator[dict[str, Transport]]:
    """By name; gRPC only where there is a cluster of ours."""
    grpc_address = request.config.getoption("--grpc-endpoint")
    if not grpc_address and not request.config.getoption("--endpoint"):
        grpc_address = request.getfixturevalue("cluster").grpc
    found: dict[str, Transport] = {"http": http_transport}
    if grpc_address:
        found["grpc"] = GrpcTransport(grpc_address)
    yield found
    if "grpc" in found:
        found["grpc"].close()
