"""Somebody's running cluster, worked on by what its cluster.json says."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.harness import LocalCluster, is_alive, wait_until

RESTARTED_S = 30.0
TETHER = 'while kill -0 "$1" && kill -0 "$2"; do sleep 0.1; done 2>/dev/null; kill "$2" 2>/dev/null'
"""Shell: ends the second process with the first."""


class AttachedCluster(LocalCluster):
    """A cluster that `quorate up` runs elsewhere. It is left running, whole, at the end."""

    def start(self, timeout_s: float = 60.0) -> None:
        """Check that it is there and whole.

        Raises:
            SystemExit: It is not.
        """
        if not self.cluster_file.exists():
            sys.exit(f"{self.cluster_file} does not exist: no cluster is ready there")
        try:
            wait_until(self.is_ready, RESTARTED_S, "every process ready")
        except AssertionError:
            sys.exit("the cluster is not whole: some process is not ready; see `quorate status`")

    def stop(self) -> None:
        """It is left running, whole."""
        self.heal()

    def heal(self) -> None:
        """Start again what is still dead; returns when all is ready."""
        for process in self.processes():
            if not is_alive(self.pid(process["name"])):
                self.restart(process["name"])
        wait_until(self.is_ready, RESTARTED_S, "every process ready")

    @property
    def restarts_by_itself(self) -> bool:
        """Whether its supervisor starts dead processes again."""
        try:
            words = Path(f"/proc/{self.description()['supervisor']}/cmdline").read_bytes()
        except OSError:
            return False
        return b"--no-restart" not in words.split(b"\0")

    def pid(self, name: str) -> int:
        """Of the process as it runs now: one that an earlier run started is not in cluster.json."""
        pid = super().pid(name)
        if is_alive(pid):
            return pid
        command = b"\0".join(word.encode() for word in self.process(name)["argv"])
        for entry in Path("/proc").iterdir():
            try:
                if (
                    entry.name.isdigit()
                    and (entry / "cmdline").read_bytes().rstrip(b"\0") == command
                ):
                    return int(entry.name)
            except OSError:
                continue
        return pid

    def restart(self, name: str) -> None:
        """Have a dead process started again: by the supervisor if it does that, else by us, to stay."""
        if self.restarts_by_itself:
            wait_until(
                lambda: (
                    self.process(name)["state"] == "running" and is_alive(self.process(name)["pid"])
                ),
                RESTARTED_S,
                f"{name} started again by its supervisor",
            )
            return
        entry = self.process(name)
        with (self.data_dir / "chaos.log").open("ab") as log:
            self._own[name] = subprocess.Popen(
                entry["argv"], env={**os.environ, **entry["env"]}, cwd=entry["cwd"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            # None outlives the supervisor of its cluster: it would hold the data directory.
            pids = [str(self.description()["supervisor"]), str(self._own[name].pid)]
            subprocess.Popen(
                ["/bin/sh", "-c", TETHER, "tether", *pids],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        time.sleep(0.05)

    def log(self) -> str:
        """Its output is not ours to show."""
        return ""
