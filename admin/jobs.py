"""Jobs: long operations as rows of the catalog, advanced step by step by the admin that holds the lease.

A job's row says what comes next. A handler does that and writes the row's next state together with what the
step changed, in one conditional write; so a job interrupted anywhere is taken up by the next holder at the step
where it was. New rows are heard of through the catalog's feed, at once.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeAlias

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from datamodel.catalog_rows import JobRow, job_key
from proto.catalog_client import CatalogClient, CatalogUnavailable, WriteConflict
from proto.catalog_view import RowChange

log = logging.getLogger(__name__)

BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
RUNNING_MAX: Final = 64
"""Jobs worked on at a time; further ones wait their turn."""

Handler: TypeAlias = Callable[[JobRow], Coroutine[Any, Any, JobRow | None]]


class NotYet(Exception):
    """A step cannot be done now; it will be tried again."""


class JobMetrics:
    """What the jobs show of themselves."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.running = Gauge(
            "quorate_admin_jobs_running", "Jobs that this admin works on.", registry=registry
        )
        self.finished = Counter(
            "quorate_admin_jobs_finished", "Jobs done.", ["kind"], registry=registry
        )
        self.retries = Counter(
            "quorate_admin_job_retries",
            "Steps that could not be done and are tried again.",
            ["kind"],
            registry=registry,
        )


class JobRunner:
    """Works on all jobs while told to."""

    def __init__(
        self, catalog: CatalogClient, handlers: Mapping[str, Handler], metrics: JobMetrics
    ) -> None:
        """Create; `act` begins.

        Args:
            catalog: Where the jobs are.
            handlers: By kind of job: does the row's step and returns the row as it is then, None when the job
                is done and its row is gone. May raise `NotYet`, `CatalogUnavailable` or `WriteConflict`.
            metrics: Counters.
        """
        self._catalog = catalog
        self._handlers = handlers
        self._metrics = metrics
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(RUNNING_MAX)
        self._acts = False
        catalog.subscribe(self._hear)

    @property
    def running(self) -> frozenset[str]:
        """Ids of the jobs that are worked on."""
        return frozenset(self._tasks)

    def act(self, acts: bool) -> None:
        """Begin to work on jobs, or stop at once, wherever each of them is."""
        self._acts = acts
        if acts:
            for job in self._catalog.view.jobs.values():
                self._start(job)
        else:
            for task in self._tasks.values():
                task.cancel()

    async def stop(self) -> None:
        """Stop, and wait for it."""
        self.act(False)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _hear(self, changes: list[RowChange]) -> None:
        if self._acts:
            for change in changes:
                if isinstance(change.new, JobRow):
                    self._start(change.new)

    def _start(self, job: JobRow) -> None:
        if job.job_id in self._tasks or job.kind not in self._handlers:
            return
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._tasks[job.job_id] = task
        self._metrics.running.set(len(self._tasks))
        task.add_done_callback(lambda _: self._ended(job.job_id))

    def _ended(self, job_id: str) -> None:
        del self._tasks[job_id]
        self._metrics.running.set(len(self._tasks))
        # The lease may have been lost and won again before the task had ended.
        left = self._catalog.view.jobs.get(job_id)
        if self._acts and left is not None:
            self._start(left)

    async def _run(self, job: JobRow) -> None:
        async with self._slots:
            log.info("job begins", extra={"job": job.job_id, "step": job.step})
            failures = 0
            following: JobRow | None = job
            while following is not None:
                job = following
                try:
                    following = await self._handlers[job.kind](job)
                    failures = 0
                    continue
                except (NotYet, CatalogUnavailable, WriteConflict) as error:
                    reason = str(error)
                except Exception as error:
                    log.exception("job failed", extra={"job": job.job_id, "step": job.step})
                    reason = repr(error)
                self._metrics.retries.labels(job.kind).inc()
                if failures in (0, len(BACKOFF_S)):
                    log.info(
                        "job waits",
                        extra={"job": job.job_id, "step": job.step, "reason": reason},
                    )
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
                following = await self._reread(job)
        self._metrics.finished.labels(job.kind).inc()
        log.info("job done", extra={"job": job.job_id})

    async def _reread(self, job: JobRow) -> JobRow | None:
        """The job as it is stored now; as it was if the catalog does not answer."""
        try:
            row = await self._catalog.fetch_row(job_key(job.job_id))
        except CatalogUnavailable:
            return job
        assert row is None or isinstance(row, JobRow)
        return row
