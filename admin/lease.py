"""Which of many admins acts: a lease in the settings of the catalog.

The holder writes the lease's row anew every third of its duration, under the condition that nobody else has.
Another admin takes it over when it has seen the same version of the row for a whole duration on its own clock:
no two clocks are ever compared. A holder that cannot renew stops acting when the duration has passed since it
*began* its last successful renewal. The overlap that a stopped process can still cause harms nothing: every
step of every job is idempotent and conditional.

A restarted admin of the same name takes the lease from its dead self without waiting.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from datamodel.catalog_rows import ADMIN_LEASE, SettingRow, setting_key
from proto.catalog_client import (
    CatalogClient,
    CatalogUnavailable,
    WriteConflict,
    insert,
    update,
)

log = logging.getLogger(__name__)

LEASE_S: Final = 5.0
RENEWALS_PER_LEASE: Final = 3


class Lease:
    """This admin's part in it."""

    def __init__(
        self,
        catalog: CatalogClient,
        name: str,
        incarnation: str,
        now: Callable[[], float],
        on_change: Callable[[bool], None],
        duration_s: float = LEASE_S,
    ) -> None:
        """Create; `run` takes part.

        Args:
            catalog: Where the lease is.
            name: Of this admin.
            incarnation: Unique for this process.
            now: Monotonic seconds.
            on_change: Told when this admin begins (True) and ceases (False) to act.
            duration_s: For how long a lease is good.
        """
        self._catalog = catalog
        self._name = name
        self._incarnation = incarnation
        self._now = now
        self._on_change = on_change
        self._duration_s = duration_s
        self._valid_until = -1.0
        self._is_held = False
        self._held_before = False
        self._seen_version = -1
        self._seen_at = 0.0

    @property
    def is_held(self) -> bool:
        """Whether this admin may act now."""
        return self._is_held and self._now() < self._valid_until

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            began = self._now()
            try:
                got = await self._try()
            except CatalogUnavailable as error:
                log.debug("lease cannot be renewed", extra={"reason": str(error)})
                got = None
            if got:
                self._valid_until = began + self._duration_s
                self._set(True)
            elif got is False or self._now() >= self._valid_until:
                self._set(False)
            await asyncio.sleep(self._duration_s / RENEWALS_PER_LEASE)

    async def release(self) -> None:
        """Let another admin act at once, if this one holds the lease."""
        was_held = self.is_held
        self._set(False)
        row = self._catalog.view.settings.get(ADMIN_LEASE)
        if was_held and row is not None:
            try:
                await self._catalog.write([update(self._row("", row.version + 1))], 1.0)
            except (CatalogUnavailable, WriteConflict) as error:
                log.info("lease was not released", extra={"reason": str(error)})

    async def _try(self) -> bool | None:
        """Renew or take the lease: True if it is ours now, False if it is another's."""
        row = await self._catalog.fetch_row(setting_key(ADMIN_LEASE), self._duration_s / 3)
        assert row is None or isinstance(row, SettingRow)
        if row is not None and not self._may_take(row):
            return False
        try:
            if row is None:
                await self._catalog.write([insert(self._row(self._name, 1))], self._duration_s / 3)
            else:
                following = self._row(self._name, row.version + 1)
                await self._catalog.write([update(following)], self._duration_s / 3)
        except WriteConflict:
            return False
        return True

    def _may_take(self, row: SettingRow) -> bool:
        if row.values.get("incarnation") == self._incarnation or not row.values.get("holder"):
            return True
        if row.values["holder"] == self._name and not self._held_before:
            return True
        if row.version != self._seen_version:
            self._seen_version = row.version
            self._seen_at = self._now()
            return False
        return self._now() - self._seen_at >= self._duration_s

    def _row(self, holder: str, version: int) -> SettingRow:
        values: dict[str, str | int] = {
            "holder": holder,
            "incarnation": self._incarnation if holder else "",
        }
        return SettingRow(ADMIN_LEASE, values, version)

    def _set(self, is_held: bool) -> None:
        if is_held != self._is_held:
            self._is_held = is_held
            self._held_before = self._held_before or is_held
            log.info("this admin acts" if is_held else "this admin acts no more")
            self._on_change(is_held)
