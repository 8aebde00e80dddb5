"""The one place where the logs of all processes of a local cluster meet the terminal.

Lines are written by a thread of their own: a terminal or pipe that nobody reads must not stop the supervisor,
nor, through their pipes, the processes. When more than `LINES_MAX` lines wait, further ones are dropped and the
loss is reported once there is room.
"""

import asyncio
import queue
import threading
from typing import TextIO

LINES_MAX = 10_000
LINE_BYTES_MAX = 64 << 10

_PALETTE = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_RESET = "\x1b[0m"


class LogOutput:
    """Writes whole lines to a stream, in order, without ever blocking the caller."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_lines, name="log-output", daemon=True)
        self._thread.start()

    def write_line(self, line: str) -> None:
        """Queue a line (without its newline)."""
        if self._dropped:
            line = f"... {self._dropped} log lines dropped: nobody read them\n{line}"
        try:
            self._lines.put_nowait(line)
            self._dropped = 0
        except queue.Full:
            self._dropped += 1

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, for at most `timeout_s`."""
        try:
            self._lines.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _write_lines(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                continue  # the reader has gone: go on emptying the queue


class Prefixer:
    """Names in front of lines, one colour per process."""

    def __init__(self, width: int, *, coloured: bool) -> None:
        self._width = width
        self._coloured = coloured
        self._seen: dict[str, int] = {}

    def prefix(self, name: str) -> str:
        """`storage-az1-0 | ` in the process's colour."""
        text = f"{name:<{self._width}} | "
        if not self._coloured:
            return text
        colour = _PALETTE[self._seen.setdefault(name, len(self._seen)) % len(_PALETTE)]
        return f"\x1b[{colour}m{text}{_RESET}"


async def pump_lines(reader: asyncio.StreamReader, prefix: str, output: LogOutput) -> None:
    """Pass lines on until the pipe ends. A line beyond `LINE_BYTES_MAX` is cut into several."""
    pending = b""
    while chunk := await reader.read(LINE_BYTES_MAX):
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > LINE_BYTES_MAX:
            lines.append(pending)
            pending = b""
        for line in lines:
            output.write_line(prefix + line.decode("utf-8", "replace"))
    if pending:
        output.write_line(prefix + pending.decode("utf-8", "replace"))
