"""The lease: one admin acts; another takes over when the first is silent, or at once when it says so."""

import asyncio

from admin.lease import Lease
from datamodel.catalog_rows import ADMIN_LEASE, setting_key
from proto.catalog_client import CatalogClient
from tests.unit.catalog_fakes import FakeCluster

DURATION_S = 0.3


class Admin:
    def __init__(self, cluster, name, incarnation="1"):
        self.catalog = CatalogClient(cluster)
        self.history = []
        now = asyncio.get_running_loop().time
        self.lease = Lease(
            self.catalog, name, incarnation, now, self.history.append, duration_s=DURATION_S
        )
        self.task = None

    async def start(self):
        self.catalog.start()
        await self.catalog.ready()
        self.task = asyncio.get_running_loop().create_task(self.lease.run())

    async def die(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.catalog.stop()


def run(scenario):
    async def wrapped():
        async with asyncio.timeout(15):
            await scenario(FakeCluster())

    asyncio.run(wrapped())


async def until(holds):
    while not holds():  # noqa: ASYNC110  # a property that depends on the clock has no event
        await asyncio.sleep(0.005)


def test_one_of_two_acts_and_the_other_takes_over():
    async def scenario(cluster):
        first, second = Admin(cluster, "admin-0", "x"), Admin(cluster, "admin-1", "y")
        await first.start()
        await until(lambda: first.lease.is_held)
        await second.start()
        await asyncio.sleep(DURATION_S * 1.5)
        assert first.lease.is_held
        assert not second.lease.is_held
        await first.die()
        await until(lambda: second.lease.is_held)
        assert cluster.row(setting_key(ADMIN_LEASE)).values["holder"] == "admin-1"
        assert second.history == [True]
        await second.die()

    run(scenario)


def test_a_restarted_admin_goes_on_at_once():
    async def scenario(cluster):
        dead = Admin(cluster, "admin-0", "1")
        await dead.start()
        await until(lambda: dead.lease.is_held)
        await dead.die()
        again = Admin(cluster, "admin-0", "2")
        await again.start()
        async with asyncio.timeout(DURATION_S / 2):
            await until(lambda: again.lease.is_held)
        await again.die()

    run(scenario)


def test_a_released_lease_is_free_at_once():
    async def scenario(cluster):
        first, second = Admin(cluster, "admin-0", "x"), Admin(cluster, "admin-1", "y")
        await first.start()
        await until(lambda: first.lease.is_held)
        first.task.cancel()
        await first.lease.release()
        assert first.history == [True, False]
        await second.start()
        async with asyncio.timeout(DURATION_S / 2):
            await until(lambda: second.lease.is_held)
        await first.die()
        await second.die()

    run(scenario)


def test_without_the_catalog_the_holder_stops_in_time_and_goes_on_later():
    async def scenario(cluster):
        admin = Admin(cluster, "admin-0")
        await admin.start()
        await until(lambda: admin.lease.is_held)
        cluster.is_away = True
        await until(lambda: not admin.lease.is_held)
        await until(lambda: admin.history == [True, False])
        cluster.is_away = False
        await until(lambda: admin.lease.is_held)
        assert admin.history == [True, False, True]
        await admin.die()

    run(scenario)
