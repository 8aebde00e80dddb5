"""The cluster that tests share, and where the conformance corpus runs instead of on it."""

import pytest

from tests.cluster.harness import running_cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "the corpus of tests/conformance")
    group.addoption("--endpoint", default="", help="URL to run on instead of a local cluster")
    group.addoption("--grpc-endpoint", default="", help="host:port of its gRPC endpoint, if any")
    group.addoption("--region", default="us-east-1", help="region in ARNs and signatures")
    group.addoption("--account-id", default="000000000000", help="account in ARNs")
    group.addoption(
        "--sign", action="store_true", help="sign requests with the credentials of boto"
    )
    group.addoption("--loose", action="store_true", help="allow for the wording of newer regions")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    """A healthy three-zone cluster, shared: tests use tables of their own and leave it whole."""
    with running_cluster(tmp_path_factory.mktemp("cluster") / "data") as running:
        yield running
