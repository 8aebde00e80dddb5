"""Build hook: generates the protobuf code (`proto/*_pb2*`) before the packages are collected.

Runs with every `pip install`, editable ones included; `python setup.py build_proto` runs it alone. Everything
else about the package is in pyproject.toml.
"""

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent


class BuildProto(Command):
    """Run protoc over every schema in proto/, beside which the generated modules appear."""

    description = "generate the protobuf code"
    user_options: ClassVar[list[tuple[str, str | None, str | None]]] = []

    # Set by setuptools for a command that takes part in `build`.
    editable_mode = False
    build_lib: str | None = None

    def initialize_options(self) -> None:
        """No options."""

    def finalize_options(self) -> None:
        """No options."""

    def run(self) -> None:
        """Generate modules, their types and the gRPC stubs."""
        schemas = self.get_source_files()
        outputs = ["--python_out=.", "--pyi_out=.", "--grpc_python_out=."]
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *schemas]
        subprocess.run(command, cwd=ROOT, check=True)

    def get_source_files(self) -> list[str]:
        """The schemas, relative to the project."""
        return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("proto/*.proto"))

    def get_outputs(self) -> list[str]:
        """Nothing beyond what `build_py` collects afterwards."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing beyond what `build_py` collects afterwards."""
        return {}


class Build(build):
    """The standard build, with the generation in front."""

    sub_commands: ClassVar[list[tuple[str, None]]] = [("build_proto", None), *build.sub_commands]


setup(cmdclass={"build": Build, "build_proto": BuildProto})
