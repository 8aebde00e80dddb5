"""The README's examples are executed as printed, against a running cluster."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.harness import ROOT, LocalCluster

BLOCK = re.compile(
    r"<!-- example: (?P<name>\S+) -->\s*```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL
)
EXAMPLES = {m["name"]: m for m in BLOCK.finditer((ROOT / "README.md").read_text())}


@pytest.mark.parametrize("name", ["boto3", "aws-cli", "grpc"])
def test_example(cluster: LocalCluster, name, tmp_path):
    example = EXAMPLES[name]
    code = example["code"].replace("http://127.0.0.1:8000", cluster.http)
    code = code.replace("127.0.0.1:50051", cluster.grpc)
    command = (
        [sys.executable, "-c", code] if example["language"] == "python" else ["bash", "-euc", code]
    )
    done = subprocess.run(
        command,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "the example shows something"
