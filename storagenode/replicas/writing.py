"""Writes of one replica, from arrival to outcome: the leader's queue, its evaluation, its proposals.

`take` queues a write. When the group takes a proposal the whole queue is evaluated in order, against the
engine and the overlay, and its outcomes become one log entry: while one fsync runs, writes gather for the next.

The overlay is what the engine will hold once everything proposed is applied. It exists so that writes to one
item need not wait for each other: each is evaluated on the outcome of the one before it. What is answered
without an entry of its own (refused conditions, writes that change nothing) is a strong read: it waits for the
proposal that it looked at, and then needs leadership confirmed.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from datamodel.errors import Corruption
from datamodel.stored_items import check_record, record_body, record_size
from proto.link import Link
from proto.messages import (
    ActionResult,
    Answer,
    OutcomeUnknown,
    Refused,
    Unavailable,
    Write,
    Written,
)
from raft.group import Environment, LogIndex, Outcome, Role
from storagenode.engines.engine import DATA, Engine, EngineFailure
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.evaluation import Effect, Refusal, Stored, evaluate
from storagenode.replicas.indexing import Indexing, added
from storagenode.replicas.log_entries import ENTRY_VERSION, Entry, WriteOutcome, encode_entry
from storagenode.replicas.request_memory import REQUESTS_MAX, RequestMemory
from storagenode.replicas.standing import Standing

log = logging.getLogger(__name__)

QUEUE_REQUESTS_MAX = 10_000
QUEUE_BYTES_MAX = 64 << 20
BATCH_REQUESTS_MAX = 512
"""Writes evaluated in one go: some ten milliseconds at most. The rest goes into the next entry."""

REQUEST_OVERHEAD_BYTES = 64
"""What a request and its outcome cost in queue and entry beside keys and bodies, roughly."""

TOO_LARGE = Refusal("ValidationException", "The outcome of the write is too large for the log", [])

_NEVER = float("inf")


class PendingWrite:
    """A write request until its answer. `also` are retries that arrived meanwhile and get the same answer."""

    __slots__ = ("also", "deadline", "link", "request", "size_bytes")

    def __init__(self, link: Link, request: Write, deadline: float, size_bytes: int) -> None:
        self.link = link
        self.request = request
        self.deadline = deadline
        self.size_bytes = size_bytes
        self.also: list[tuple[Link, int]] | None = None

    def answer(self, make: Callable[[int], Answer]) -> None:
        """Send everybody who asked the answer that `make` builds for a request id."""
        self.link.send(make(self.request.id))
        if self.also is not None:
            for link, request_id in self.also:
                link.send(make(request_id))


class Proposal:
    """One log entry on its way, the writes in it, and the answers that depend on it."""

    __slots__ = ("dependents", "entry", "number", "payload", "writes")

    def __init__(
        self, number: int, entry: Entry, payload: bytes, writes: list[PendingWrite]
    ) -> None:
        self.number = number
        self.entry = entry
        self.payload = payload
        self.writes = writes
        self.dependents: list[Callable[[bool], None]] = []  # told whether it was committed


class Writes:
    """The writing half of a replica.

    Attributes:
        memory: Outcomes of recent requests; the replica keeps it.
        feed_enabled: Whether images of changed items go into the log.
    """

    def __init__(
        self,
        standing: Standing,
        environment: Environment,
        engine: Engine,
        apply_round: ApplyRound,
        wall_micros: Callable[[], int],
        confirm: Callable[[Callable[[bool], None]], None],
        fail: Callable[[str], None],
        collection_size_max: int,
    ) -> None:
        """Create; `confirm` is `Reads.confirm`, `fail` takes the replica out of service."""
        self.memory = RequestMemory()
        self.feed_enabled = False
        self._standing = standing
        self._environment = environment
        self._engine_get = engine.get
        self._round = apply_round
        self._wall_micros = wall_micros
        self._confirm = confirm
        self._fail = fail
        self._collection_size_max = collection_size_max
        self._queue: deque[PendingWrite] = deque()
        self._queued_bytes = 0
        self._by_request_id: dict[bytes, PendingWrite] = {}  # queued or proposed
        # Items as the proposals in flight leave them, each with the number of the last proposal that did.
        self._overlay: dict[bytes, tuple[Stored | None, int]] = {}
        self._depends_on = 0  # newest proposal that the current evaluation met in the overlay
        self._proposals: dict[int, Proposal] = {}  # without outcome, by number
        self._unapplied: deque[Proposal] = deque()
        self._number = 0
        self._scrub_asked = False
        self._scheduled = False
        # Figures of the partition once everything proposed is applied.
        self._item_count = 0
        self._size_bytes = 0
        self._feed_position = 0
        self._timestamp = 0
        self._index_figures: list[int] = []

    @property
    def queued(self) -> int:
        """Writes waiting to be proposed."""
        return len(self._queue)

    @property
    def proposed(self) -> int:
        """Log entries proposed and without outcome."""
        return len(self._proposals)

    # --- leadership ---

    def lead(
        self,
        item_count: int,
        size_bytes: int,
        feed_position: int,
        timestamp: int,
        index_figures: list[int],
    ) -> None:
        """Leadership begins at a state with these figures; nothing of ours is in flight."""
        self._overlay.clear()
        self._unapplied.clear()
        self._item_count = item_count
        self._size_bytes = size_bytes
        self._feed_position = feed_position
        self._timestamp = timestamp
        self._index_figures = index_figures
        self._answer_done()
        if self._queue:
            self._schedule()

    def _answer_done(self) -> None:
        """Writes that came before everything of earlier terms was applied may turn out to have been done then:
        retries of what a dead leader had proposed. They must not be done again.
        """
        queue, self._queue = self._queue, deque()
        for pending in queue:
            results = self.memory.get(pending.request.request_id)
            if results is None:
                self._queue.append(pending)
            else:
                self._queued_bytes -= pending.size_bytes
                position = self._standing.position
                self._finish(pending, partial(_remembered, results=results, position=position))

    def refuse_waiting(self) -> None:
        """Leadership, or service, is over: answer every write that is not proposed yet."""
        queue, self._queue = self._queue, deque()
        self._queued_bytes = 0
        self._scrub_asked = False
        for pending in queue:
            self._finish(pending, self._standing.refusal)

    # --- arrival ---

    def take(self, link: Link, request: Write) -> None:
        """Queue a write whose keys are all in the partition; or answer it when it was done already, when the
        queue is full, or when this replica does not lead. A write that is under way gets a second listener.
        """
        standing = self._standing
        # Writes for a leader that is not ready yet may queue: it will be soon, or will not lead.
        if standing.role is not Role.LEADER or not standing.serves:
            link.send(standing.refusal(request.id))
            return
        request_id = request.request_id
        results = self.memory.get(request_id)
        if results is not None:
            self._round.flush()  # normally empty
            link.send(_remembered(request.id, results, standing.position))
            return
        pending = self._by_request_id.get(request_id)
        if pending is not None:
            if pending.also is None:
                pending.also = []
            pending.also.append((link, request.id))
            return
        size = REQUEST_OVERHEAD_BYTES
        for action in request.actions:
            size += len(action.body) + len(action.key)
        memory = self.memory
        if len(memory) >= REQUESTS_MAX and memory.is_full(
            max(self._wall_micros(), self._timestamp), int(self._environment.now() * 1_000_000)
        ):
            link.send(Unavailable(request.id, "too many requests to remember"))
            return
        if len(self._queue) >= QUEUE_REQUESTS_MAX or self._queued_bytes + size > QUEUE_BYTES_MAX:
            link.send(Unavailable(request.id, "write queue full"))
            return
        timeout_ms = request.timeout_ms
        deadline = self._environment.now() + timeout_ms / 1000 if timeout_ms else _NEVER
        pending = PendingWrite(link, request, deadline, size)
        self._by_request_id[request_id] = pending
        self._queue.append(pending)
        self._queued_bytes += size
        # With others waiting before it, either a proposal is scheduled or `on_writable` will come.
        if (
            len(self._queue) == 1
            and not self._scheduled
            and standing.is_leading
            and standing.group.accepts_proposals
        ):
            self._schedule()

    def on_writable(self) -> None:
        """The group takes a proposal again."""
        if self._queue or self._scrub_asked:
            self._propose()

    def ask_scrub(self) -> None:
        """Let the next entry, with writes or without, ask all replicas for a digest."""
        self._scrub_asked = True
        if self._standing.group.accepts_proposals:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._environment.call_soon(self._propose)

    # --- evaluation and proposal ---

    def _propose(self) -> None:
        """Evaluate queued writes and propose what they do as one entry."""
        self._scheduled = False
        standing = self._standing
        group = standing.group
        if not standing.is_leading or not group.accepts_proposals:
            return  # `on_writable` or `lead` comes again, or the queue was refused
        self._round.flush()  # normally empty; evaluation must see everything applied
        queue, overlay = self._queue, self._overlay
        self._number += 1
        number = self._number
        item_count, size_bytes, position = self._item_count, self._size_bytes, self._feed_position
        index_figures = self._index_figures
        outcomes: list[WriteOutcome] = []
        writes: list[PendingWrite] = []
        unwritten: list[tuple[PendingWrite, Effect | Refusal, int]] = []
        room = group.payload_bytes_max - REQUEST_OVERHEAD_BYTES
        now = self._environment.now()
        while queue and len(outcomes) + len(unwritten) < BATCH_REQUESTS_MAX:
            pending = queue[0]
            self._depends_on = 0
            effect = self._evaluate(pending, now)
            if not standing.is_leading:
                break  # the engine failed under the evaluation; the queue was refused
            if isinstance(effect, Effect) and effect.mutations:
                taken = _entry_bytes(effect)
                if taken <= room:
                    room -= taken
                elif outcomes:
                    break  # goes into the next entry, evaluated again
                else:
                    effect = TOO_LARGE
            queue.popleft()
            self._queued_bytes -= pending.size_bytes
            if effect is None:
                continue
            if isinstance(effect, Refusal) or not effect.mutations:
                unwritten.append((pending, effect, self._depends_on))
                continue
            for key, body, size in effect.mutations:
                overlay[key] = (None if body is None else (body, size), number)
            item_count += effect.item_count_delta
            size_bytes += effect.size_bytes_delta
            if effect.index_deltas:
                index_figures = added(index_figures, effect.index_deltas)
            position += len(effect.images)
            outcomes.append(
                WriteOutcome(
                    pending.request.request_id, effect.mutations, effect.results, effect.images
                )
            )
            writes.append(pending)
        if outcomes or self._scrub_asked:
            timestamp = max(self._wall_micros(), self._timestamp + 1)
            self._item_count, self._size_bytes = item_count, size_bytes
            self._feed_position, self._timestamp = position, timestamp
            self._index_figures = index_figures
            entry = Entry(
                ENTRY_VERSION,
                timestamp,
                item_count,
                size_bytes,
                position,
                outcomes,
                index_figures,
                self._scrub_asked,
            )
            self._scrub_asked = False
            proposal = Proposal(number, entry, encode_entry(entry), writes)
            self._proposals[number] = proposal
            self._unapplied.append(proposal)
            if not group.propose(proposal.payload, partial(self._settled, proposal)):
                # Leadership went between the question and the proposal.
                self._settled(proposal, Outcome.REJECTED, LogIndex(0))
        for pending, effect, depends_on in unwritten:
            self._answer_unwritten(pending, effect, depends_on)
        if self._queue and standing.is_leading and group.accepts_proposals:
            self._schedule()

    def _stored(self, key: bytes) -> Stored | None:
        """The item as everything proposed so far leaves it."""
        found = self._overlay.get(key)
        if found is not None:
            if found[1] > self._depends_on:
                self._depends_on = found[1]
            return found[0]
        record = self._engine_get(DATA + key)
        if record is None:
            return None
        check_record(record, "item")
        return record_body(record), record_size(record)

    def _evaluate(self, pending: PendingWrite, now: float) -> Effect | Refusal | None:
        """What the write does; None when it was answered instead."""
        if pending.deadline < now:
            self._finish(pending, lambda request_id: Unavailable(request_id, "deadline passed"))
            return None
        try:
            request = pending.request
            if not request.local_indexes:
                return evaluate(request.actions, self._stored, keep_images=self.feed_enabled)
            indexing = Indexing(request.local_indexes, self._stored, self._collection_size_max)
            return evaluate(
                request.actions, self._stored, keep_images=self.feed_enabled, indexing=indexing
            )
        except (Corruption, EngineFailure) as error:
            self._fail(str(error))
            return None
        except Exception:  # our bug in one request must not end the others
            log.exception("evaluation failed")
            self._finish(pending, lambda request_id: Unavailable(request_id, "internal error"))
            return None

    def _answer_unwritten(
        self, pending: PendingWrite, effect: Effect | Refusal, depends_on: int
    ) -> None:
        """Answer a refusal, or a write without effect, once what it rests on is certain."""

        def finish(confirmed: bool) -> None:
            if not confirmed:
                self._finish(pending, self._standing.refusal)
                return
            position = self._standing.position
            if isinstance(effect, Refusal):
                code, message, reasons = effect.code, effect.message, effect.reasons
                self._finish(pending, lambda id_: Refused(id_, code, message, reasons, position))
            else:
                results = effect.results
                self._finish(pending, lambda id_: Written(id_, results, position))

        proposal = self._proposals.get(depends_on)
        if proposal is not None:
            proposal.dependents.append(
                lambda committed: self._confirm(finish) if committed else finish(False)
            )
        else:
            # Met no proposal; or its own batch's, which was not taken: then `confirm` says no.
            self._confirm(finish)

    def _finish(self, pending: PendingWrite, make: Callable[[int], Answer]) -> None:
        self._by_request_id.pop(pending.request.request_id, None)
        pending.answer(make)

    # --- outcome ---

    def take_applied(self, payload: bytes) -> Entry | None:
        """The entry in a committed payload if it is our own next one: that saves decoding it."""
        unapplied = self._unapplied
        if not unapplied or unapplied[0].payload != payload:
            return None
        proposal = unapplied.popleft()
        overlay, number = self._overlay, proposal.number
        for outcome in proposal.entry.outcomes:
            for key, _, _ in outcome.mutations:
                found = overlay.get(key)
                if found is not None and found[1] == number:
                    del overlay[key]  # the engine has it from here on
        return proposal.entry

    def _settled(self, proposal: Proposal, outcome: Outcome, index: LogIndex) -> None:
        """The entry was committed and applied, or the leadership that proposed it is over."""
        self._proposals.pop(proposal.number, None)
        committed = outcome is Outcome.COMMITTED
        if committed:
            forget = self._by_request_id.pop
            for pending, done in zip(proposal.writes, proposal.entry.outcomes, strict=True):
                forget(done.request_id, None)
                pending.link.send(Written(pending.request.id, done.results, index))
                if pending.also is not None:
                    for link, request_id in pending.also:
                        link.send(Written(request_id, done.results, index))
        else:
            # What later proposals were evaluated on is void: none before leadership begins anew.
            self._standing.is_leading = False
            self._overlay.clear()
            self._unapplied.clear()
            self.refuse_waiting()
            reason = f"leadership lost, proposal {outcome.value}"
            for pending in proposal.writes:
                self._finish(pending, partial(OutcomeUnknown, reason=reason))
        for dependent in proposal.dependents:
            dependent(committed)


def _remembered(request_id: int, results: list[ActionResult], position: int) -> Answer:
    """The answer to a write that was done before `position`; empty results were too large to remember."""
    if results:
        return Written(request_id, results, position)
    return OutcomeUnknown(request_id, "done, but what it returned is forgotten")


def _entry_bytes(effect: Effect) -> int:
    """About what an effect takes in a log entry; never less than it does."""
    size = REQUEST_OVERHEAD_BYTES
    for key, body, _ in effect.mutations:
        size += len(key) + 24 + (0 if body is None else len(body))
    for result in effect.results:
        size += 24 + (0 if result.attributes is None else len(result.attributes))
    for key, old, new in effect.images:
        size += len(key) + 24 + len(old or b"") + len(new or b"")
    return size
