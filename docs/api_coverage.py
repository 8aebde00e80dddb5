"""Writes docs/api-coverage.md: every operation of the service's model, and what this code does with it.

Run as `python docs/api_coverage.py`; with `--check` it only says whether the file is up to date. What is
implemented is read from the code (the operations, the gRPC service); `MEMBERS` below names the members of
implemented operations that do less than on AWS, and why.
"""

import argparse
import json
import sys
from pathlib import Path

from datamodel import requests
from datamodel.shape_rules import IMPLEMENTED_OPERATIONS
from proto import dynamodb_pb2

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "api-coverage.md"
MODEL = ROOT / "datamodel" / "service_model.json"

_REFUSED = "refused with a ValidationException"
_RECORDED = "recorded and shown; nothing is throttled yet"

# Members of implemented operations that do less than on AWS. Every name is checked against the model.
MEMBERS: dict[str, dict[str, str]] = {
    "CreateTable": {
        "BillingMode": _RECORDED,
        "GlobalSecondaryIndexes": _REFUSED,
        "GlobalTableSettingsReplicationMode": _REFUSED,
        "GlobalTableSourceArn": _REFUSED,
        "OnDemandThroughput": _RECORDED,
        "ProvisionedThroughput": f"{_RECORDED}; decides the number of partitions",
        "ResourcePolicy": _REFUSED,
        "SSESpecification": f"with Enabled true {_REFUSED}",
        "StreamSpecification": f"with StreamEnabled true {_REFUSED}",
        "TableThroughputMode": f"another name of BillingMode: {_RECORDED}",
        "Tags": "a tag `quorate:partitions` sets the number of partitions (1 to 256), beyond AWS",
        "VectorIndexes": _REFUSED,
        "WarmThroughput": f"{_RECORDED}; decides the number of partitions",
    },
    "TagResource": {
        "Tags": "in effect at once; no pause between changes (1.5 s on AWS)",
    },
    "UpdateTable": {
        "BillingMode": _RECORDED,
        "DeletionProtectionEnabled": "no pause between changes (15 s on AWS)",
        "DisassociationProtectionEnabled": _REFUSED,
        "GlobalSecondaryIndexUpdates": _REFUSED,
        "GlobalTableSettingsReplicationMode": _REFUSED,
        "GlobalTableWitnessUpdates": _REFUSED,
        "MultiRegionConsistency": _REFUSED,
        "OnDemandThroughput": _RECORDED,
        "ProvisionedThroughput": _RECORDED,
        "ReplicaUpdates": _REFUSED,
        "SSESpecification": f"with Enabled true {_REFUSED}",
        "StreamSpecification": f"with StreamEnabled true {_REFUSED}",
        "TableClass": "recorded and shown; as many changes as you like (two in 30 days on AWS)",
        "TableThroughputMode": f"another name of BillingMode: {_RECORDED}",
        "VectorIndexUpdates": _REFUSED,
        "WarmThroughput": f"{_RECORDED}; a raise holds at once and splits no partition yet",
    },
    "Query": {
        "IndexName": "local indexes; tables have no global ones yet",
    },
    "Scan": {
        "IndexName": "local indexes; tables have no global ones yet",
    },
}

_HEAD = """\
# API coverage

Written by `make coverage-doc` from the service's model and the code; do not edit.

An operation that is not implemented answers `UnknownOperationException` over HTTP and is not a method of the
gRPC service.
"""


def newer_operations() -> list[str]:
    """Operations that the installed botocore knows and our copy of the model does not."""
    from botocore.loaders import Loader

    model = Loader().load_service_model("dynamodb", "service-2")
    return sorted(set(model["operations"]) - set(_model()["operations"]))


def _model() -> dict[str, dict[str, dict[str, object]]]:
    model: dict[str, dict[str, dict[str, object]]] = json.loads(MODEL.read_text(encoding="utf-8"))
    return model


def _members(operation: str) -> set[str]:
    request = getattr(requests, str(_model()["operations"][operation]["input"]))
    return set(request.__struct_fields__)


def render() -> str:
    """The document."""
    known = set(_model()["operations"])
    implemented = set(IMPLEMENTED_OPERATIONS)
    grpc = {m.name for m in dynamodb_pb2.DESCRIPTOR.services_by_name["DynamoDB"].methods}
    assert implemented <= known, implemented - known
    for operation, members in MEMBERS.items():
        accepted = _members(operation)
        assert operation in implemented
        assert set(members) <= accepted, (operation, set(members) - accepted)
    lines = [_HEAD, f"{len(implemented)} of {len(known)} operations are implemented.", ""]
    lines += ["| Operation | HTTP | gRPC |", "| --- | --- | --- |"]
    for name in sorted(known, key=lambda name: (name not in implemented, name)):
        http = "yes" if name in implemented else "-"
        lines.append(f"| {name} | {http} | {'yes' if name in grpc else '-'} |")
    lines += ["", "## Members that do less than on AWS", ""]
    lines += [
        "Every other member of an implemented operation works; a difference from AWS is a bug.",
        "",
    ]
    lines += ["| Operation | Member | Here |", "| --- | --- | --- |"]
    for operation in sorted(MEMBERS):
        for member, note in sorted(MEMBERS[operation].items()):
            lines.append(f"| {operation} | {member} | {note} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the document, or compare it."""
    parser = argparse.ArgumentParser(prog="docs/api_coverage.py", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="do not write; fail when it would change"
    )
    check = parser.parse_args().check
    text = render()
    if check:
        return 0 if OUTPUT.exists() and OUTPUT.read_text(encoding="utf-8") == text else 1
    OUTPUT.write_text(text, encoding="utf-8")
    newer = newer_operations()
    if newer:
        sys.stdout.write(f"botocore knows operations that our model does not: {', '.join(newer)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
