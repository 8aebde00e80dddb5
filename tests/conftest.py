"""The cluster that tests share, where the conformance corpus runs instead of on it, and figures for the end."""

from collections.abc import Callable

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests must run in one process when several run at a time (`--dist loadgroup`).

    The corpus has one set of tables and an order. What is in one file elsewhere stays together, for the sake of
    what it shares; not so tests of whole clusters, each with one of its own: they take longest, and begin first.
    """
    for item in items:
        folder = item.path.parent.name
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        shares = any(found[-1].scope == "module" for found in fixtures)
        if "conformance" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("conformance"))
        elif folder != "cluster" or shares:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says a figure, which is shown in the end, whichever process the test ran in."""

    def say(figure: str) -> None:
        request.node.user_properties.append(("figure", figure))

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        text
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, text in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for text in figures:
            terminalreporter.write_line(text)
