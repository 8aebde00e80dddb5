"""What the documents say is compared with the code."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from admin.cli import build_parser
from proto.flags import environment_name
from tests.flags_of import parser_of

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
]
PACKAGES = ("datamodel", "proto", "raft", "router", "storagenode", "admin")


def _flags(parser) -> set[str]:
    return {
        o
        for a in parser._actions
        for o in a.option_strings
        if environment_name(a) and o.startswith("--")
    }


def _documented_flags() -> dict[str, set[str]]:
    table = OPERATIONS.split("<!-- flags -->")[1].split("\n\n")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in table.strip().splitlines()
    ]
    head = rows[0]
    documented: dict[str, set[str]] = {name: set() for name in head[1:4]}
    for row in rows[2:]:
        for name, mark in zip(head[1:4], row[1:4], strict=True):
            if mark == "x":
                documented[name].add(row[0].strip("`"))
    return documented


@pytest.mark.parametrize("process", ["storagenode", "router", "admin"])
def test_flags_of_processes(process):
    parser = parser_of(importlib.import_module(f"{process}.main").main)
    assert _documented_flags()[process] == _flags(parser)


def test_flags_of_up():
    (commands,) = (
        a for a in build_parser()._actions if a.dest == "command" or hasattr(a.choices, "keys")
    )
    section = OPERATIONS.split("| Flag of `up` |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(--[a-z-]+)`", section.split("\n", 1)[1])) >= _flags(
        commands.choices["up"]
    )


def _exists_in_code(metric: str, code: str) -> bool:
    """Whether the code makes this metric: by its whole name, or by the name behind the process's prefix."""
    stem = re.sub(r"_(total|bucket|sum|count)$", "", metric)
    short = re.sub(r"^quorate_(router|storagenode|admin)_", "", stem)
    return any(f'{quote}{name}"' in code for name in (stem, short) for quote in ('"', "}"))


@pytest.mark.parametrize("path", ["docs/operations.md", "deploy/prometheus/alerts.yml"])
def test_metrics_exist(path):
    code = "\n".join(p.read_text() for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
    names = set(re.findall(r"\bquorate_[a-z_]+", (ROOT / path).read_text()))
    assert len(names) > 5
    assert not {name for name in names if not _exists_in_code(name, code)}


def test_api_coverage_is_up_to_date():
    path = ROOT / "docs" / "api_coverage.py"
    spec = importlib.util.spec_from_file_location("api_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.render() == module.OUTPUT.read_text(), "run `make coverage-doc`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_exist(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target
    for name in re.findall(rf"`((?:{'|'.join(PACKAGES)}|tests|deploy|docs)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name


def test_make_targets_that_documents_name_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for path in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)", path.read_text()):
            assert target in targets, (path.name, target)
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert phony == targets
