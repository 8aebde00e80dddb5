"""Watches the processes of a cluster while it is being fuzzed: they live, stay small, and log no error."""

import json
from typing import Final

from tests.cluster.harness import LocalCluster

PROCESS_BYTES_MAX: Final = 1 << 30
_TRACES: Final = ("Traceback (most recent call last)", "Segmentation fault", "Fatal Python error")


class Watch:
    """A cluster's processes, from now on."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._pids = self._now()
        self._log_read = cluster.log_path.stat().st_size
        self.largest_bytes = 0

    def complaints(self) -> list[str]:
        """What went wrong since the last time."""
        found = []
        pids = self._now()
        if pids != self._pids:
            found.append(f"processes were {self._pids} and are {pids}")
            self._pids = pids
        for name, pid in pids.items():
            size = _resident_bytes(pid)
            self.largest_bytes = max(self.largest_bytes, size)
            if size == 0:
                found.append(f"{name} is dead")
            elif size > PROCESS_BYTES_MAX:
                found.append(f"{name} has grown to {size >> 20} MB")
        return found + self._log_complaints()

    def _now(self) -> dict[str, int]:
        return {process["name"]: process["pid"] for process in self._cluster.processes()}

    def _log_complaints(self) -> list[str]:
        with self._cluster.log_path.open("rb") as log:
            log.seek(self._log_read)
            text = log.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._log_read += len(whole)
        return [line for line in whole.decode(errors="replace").splitlines() if _is_bad(line)]


def _is_bad(line: str) -> bool:
    start = line.find("{")
    if start >= 0:
        try:
            record = json.loads(line[start:])
        except ValueError:
            record = None
        if isinstance(record, dict):
            return record.get("level") in ("error", "critical") or "exception" in record
    return any(trace in line for trace in _TRACES) or " ERROR " in line or " CRITICAL " in line


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * 4096
    except (FileNotFoundError, ProcessLookupError):
        return 0
