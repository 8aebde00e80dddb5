"""The client side of the links: gets each request to a replica that can answer it, and one answer back.

Used by routers, by the control plane and by storage nodes that want something of another group. Here: which
node leads a group (hints, memory), attempts, back-off, deadlines. Not here: which group owns a key (the
caller's map) and what an answer means.

How a request ends. `call` reports exactly one final answer, at the latest at the deadline plus one tick:

 - the answer itself: `Value`, `Written`, `Page`, `FeedPage`, `StatsReply`, `Refused`;
 - `WrongPartition`: the caller's map is stale, nothing was executed by this attempt. Refresh it, ask again;
 - `Unavailable`: nobody took the request in time; a write was certainly not executed;
 - `OutcomeUnknown`: a write that may or may not take effect.

Eventual reads see what this process was told before: all that an answer to it, to a write or a read, spoke of. Each
answer carries the position in its group's log that it stands on; the highest one goes with every eventual read, and
a replica that is not there yet waits a moment, then says `Behind`, and another one is asked. When no replica can be
found for `SESSION_WAIT_S`, because who acknowledged is gone with it, the newest that can be had must do
(`waived_reads` counts them), and is what later reads see from then on.

`NotLeader`, lost links, silent nodes and refusals for the moment are dealt with in here. A write is sent again
with the same request id, so the group recognises it. Each attempt has an id of its own: a *refusal* that
belongs to an abandoned attempt says nothing about the attempt after it and is dropped, whereas a success does.

Time: one coarse wheel (`TICK_S`) serves all requests in flight; there is no timer and no task per request.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from proto.client_environment import IDLE, Dial, Environment, Timer
from proto.client_groups import Call, Group, GroupRequest, Node, OnAnswer
from proto.messages import (
    Answer,
    Behind,
    Catalog,
    Discover,
    FeedPage,
    Get,
    Message,
    NotLeader,
    OutcomeUnknown,
    Page,
    Query,
    ReadFeed,
    Refused,
    ReplicaAddress,
    Stats,
    StatsReply,
    Unavailable,
    Value,
    Write,
    Written,
    WrongPartition,
)

log = logging.getLogger(__name__)

CATALOG_GROUP = 0
# Past this many unanswered requests the process is only adding to a queue: new ones get `Unavailable` at once.
IN_FLIGHT_MAX = 20_000
TICK_S = 0.02
# A replica that has not answered by then is left for another one; doubled with each such attempt.
ATTEMPT_TIMEOUT_S = 1.0
ATTEMPT_TIMEOUT_S_MAX = 4.0
# Back-off between attempts, in ticks: 20 ms, 40 ms, 80 ms, then 120 ms: how late an election's end is noticed.
BACKOFF_TICKS = (1, 2, 4, 6)
# While this many requests are in flight they back off further: they would keep those busy who hold an election.
# The first of them that finds a leader calls back all others that wait for the same group.
CROWD = 2000
CROWD_BACKOFF_TICKS = (1, 2, 4, 8, 16)
# Redirects that are followed at once; more of them in a row means that the cluster is still making up its mind.
REDIRECTS_MAX = 3
# A link with overdue answers on which nothing at all was heard for this long is closed and dialled anew:
# the peer is stopped or gone without a word (half-open TCP).
SILENCE_S_MAX = 3.0
# When the wheel itself comes this late, our own process stood still and answers wait unread: nobody is blamed.
STALL_TICKS = 10
# An eventual read that finds no replica that is as new as what was seen before is patient so long: longer than
# an election takes.
SESSION_WAIT_S = 2.0
# A replica that was behind is not the first to be asked for so long.
LAGGING_S = 0.2
DISCOVER_INTERVAL_S = 0.25
REQUEST_ID_PREFIX_SIZE = 8

_FINAL = frozenset({Value, Written, Page, FeedPage, StatsReply, Refused})
_POSITIONED = frozenset({Value, Written, Page, Refused})
_WEATHER = frozenset({NotLeader, WrongPartition, Unavailable, OutcomeUnknown, Behind})
_ATTEMPT_TICKS = round(ATTEMPT_TIMEOUT_S / TICK_S)


class ClusterClient:
    """Requests to partition groups, over one link per storage node.

    All methods are called on the loop's thread. At most `IN_FLIGHT_MAX` requests are unanswered at a time;
    beyond that `call` answers `Unavailable` at once.

    Attributes:
        cluster_id: Of the cluster, empty until it is known.
        waived_reads: Eventual reads that were given something older than this process had seen.
        now: The environment's clock.
    """

    def __init__(
        self,
        environment: Environment,
        dial: Dial,
        seeds: Iterable[str],
        az: str,
        request_id_prefix: bytes,
    ) -> None:
        """Create; `start` begins to dial.

        Args:
            environment: Clock and timers.
            dial: Makes links (`tcp_dial`).
            seeds: Link addresses of storage nodes to ask where the catalog is.
            az: Zone of this process: its replicas are preferred for eventually consistent reads.
            request_id_prefix: 8 random bytes, fresh for each process: they make write request ids unique.
        """
        assert len(request_id_prefix) == REQUEST_ID_PREFIX_SIZE
        self.cluster_id = ""
        self.waived_reads = 0
        self.now = environment.now
        self._environment = environment
        self._dial = dial
        self._az = az
        self._request_id_prefix = request_id_prefix
        self._request_count = 0
        self._id = 0
        self._nodes: dict[str, Node] = {}
        self._groups: dict[int, Group] = {}
        self._calls: dict[int, Call] = {}
        self._wheel: dict[int, list[int]] = {}
        self._tick = 0
        self._ticking = False
        self._filling: list[int] = []  # ids of attempts of this tick: due after the attempt timeout
        self._filling_until = 0.0
        self._discover_timer: Timer | None = None
        self._catalog_position = 0  # in group 0's log, of what is known of its members
        self._stopped = False
        for address in seeds:
            self._node(address).pinned = True

    # --- life ---

    def start(self) -> None:
        """Dial the seeds and ask them for the catalog group until one knows it."""
        for node in self._nodes.values():
            self._start_node(node)
        self._discover()

    def stop(self) -> None:
        """Close all links. Requests still in flight end as at their deadline."""
        self._stopped = True
        if self._discover_timer is not None:
            self._discover_timer.cancel()
        for call in list(dict.fromkeys(self._calls.values())):
            self._give_up(call, "shutting down")
        for node in self._nodes.values():
            if node.dialer is not None:
                node.dialer.stop()

    @property
    def is_discovered(self) -> bool:
        """Whether the catalog group's replicas are known."""
        return CATALOG_GROUP in self._groups

    @property
    def in_flight(self) -> int:
        """Requests without a final answer (abandoned attempts that may still answer included)."""
        return len(self._calls)

    def links(self) -> dict[str, bool]:
        """Every node's address, and whether it can be used right now."""
        return {address: node.usable for address, node in self._nodes.items()}

    # --- the map ---

    def update_groups(
        self, groups: Mapping[int, Sequence[ReplicaAddress]], removed: Iterable[int] = ()
    ) -> None:
        """Learn where groups' replicas are. Nodes are dialled as needed, and left when nothing is on them.

        Args:
            groups: Replicas of new or changed groups; groups not named stay as they are.
            removed: Groups that are no more.
        """
        for group_id, replicas in groups.items():
            addresses = tuple(replicas)
            old = self._groups.get(group_id)
            if old is not None and old.addresses == addresses:
                continue
            nodes = [self._node(replica.address) for replica in addresses]
            for node in nodes:
                node.references += 1
            group = Group(addresses, nodes, self._az)
            if old is not None:
                group.leader = old.leader if old.leader in nodes else None
                group.position = old.position
                self._release(old)
            self._groups[group_id] = group
        for group_id in removed:
            old = self._groups.pop(group_id, None)
            if old is not None:
                self._release(old)
        for node in [n for n in self._nodes.values() if not n.references and not n.pinned]:
            del self._nodes[node.address]
            if node.dialer is not None:
                node.dialer.stop()

    def groups(self) -> Sequence[int]:
        """Ids of all groups whose replicas are known."""
        return list(self._groups)

    def replicas(self, group: int) -> tuple[ReplicaAddress, ...]:
        """Where a group's replicas are, as last told; empty if unknown."""
        known = self._groups.get(group)
        return known.addresses if known is not None else ()

    def _release(self, group: Group) -> None:
        for node in group.nodes:
            node.references -= 1

    def _node(self, address: str) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, self)
            if self._discover_timer is not None or self.is_discovered:  # started
                self._start_node(node)
        return node

    def _start_node(self, node: Node) -> None:
        if node.dialer is None and not self._stopped:
            node.dialer = self._dial(node.address, node)
            node.dialer.start()

    def _discover(self) -> None:
        """Ask every usable node for the catalog group; again while it is not known."""
        if self._stopped:
            return
        for node in self._nodes.values():
            if node.usable and node.link is not None:
                node.link.send(Discover(self.next_id()))
        if self._discover_timer is not None:
            self._discover_timer.cancel()
        self._discover_timer = self._environment.call_later(
            DISCOVER_INTERVAL_S, self._discover_again
        )

    def _discover_again(self) -> None:
        # Nodes that are being founded have no cluster id yet.
        if not self.is_discovered or not self.cluster_id:
            self._discover()
        else:
            # Idle but not None: `rediscover` may ask again from now on.
            self._discover_timer = IDLE

    def rediscover(self) -> None:
        """Ask where the catalog group is now, at most once per interval: its members may have changed."""
        if self._discover_timer is IDLE:
            self._discover()

    def _discovered(self, catalog: Catalog) -> None:
        if catalog.cluster_id:
            self.cluster_id = catalog.cluster_id
        if catalog.replicas:
            if catalog.position >= self._catalog_position:
                self._catalog_position = catalog.position
                self.update_groups({CATALOG_GROUP: catalog.replicas})
            group = self._groups[CATALOG_GROUP]
            if group.leader is None and catalog.leader_node is not None:
                group.leader = group.by_node_id.get(catalog.leader_node)

    # --- requests ---

    def next_id(self) -> int:
        """An id for a request's first attempt, never used before in this process."""
        self._id += 1
        return self._id

    def next_request_id(self) -> bytes:
        """A fresh 16 byte id for a `Write`: what makes its retries safe."""
        self._request_count += 1
        return self._request_id_prefix + self._request_count.to_bytes(8, "big")

    def call(
        self, request: GroupRequest, on_answer: OnAnswer, deadline: float, leader: bool = True
    ) -> None:
        """Send a request; `on_answer` is called exactly once with the final answer (see the module).

        The callback may come before this returns. What it raises is logged and harms no other request.

        Args:
            request: Its `id` must come from `next_id`.
            on_answer: Takes the final answer.
            deadline: On the environment's clock; no answer later than a tick after it.
            leader: Whether the leader is to be asked; otherwise the nearest replica that has what this process
                has seen of the group.
        """
        calls = self._calls
        if len(calls) >= IN_FLIGHT_MAX or self._stopped:
            on_answer(Unavailable(request.id, "too many requests in flight"))
            return
        call = Call(request, on_answer, deadline, leader)
        calls[request.id] = call
        if not self._ticking:
            self._start_ticking()
        group = self._groups.get(request.group)
        if group is not None:
            if leader:
                node = group.leader
            else:
                node = group.near()
                if type(request) is not ReadFeed:
                    request.after = group.position  # type: ignore[union-attr]  # only reads come here
            if (
                node is not None
                and node.usable
                and deadline > self._filling_until
                and type(request) is not ReadFeed  # waits longer than an attempt
            ):
                call.node = node
                call.attempts = 1
                call.sent_tick = self._tick
                self._filling.append(request.id)
                node.link.send(request)  # type: ignore[union-attr]  # usable means that it has a link
                return
        self._route(call)

    async def request(self, request: GroupRequest, timeout_s: float, leader: bool = True) -> Answer:
        """`call` for cold paths: the final answer of `request`, whose own id does not matter.

        Cancelling the caller abandons the request; a write may still take effect.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        fresh = msgspec.structs.replace(request, id=self.next_id())
        self.call(fresh, answered, self.now() + timeout_s, leader)
        return await future

    def _route(self, call: Call) -> None:
        """Make the next attempt, or back off if nobody can be asked."""
        now = self.now()
        if now >= call.deadline:
            self._give_up(call, "no answer in time")
            return
        group_id = call.request.group
        group = self._groups.get(group_id)
        if group is None:
            if group_id != CATALOG_GROUP:
                self._finish(call, WrongPartition(call.request.id, group_id))
                return
            self._back_off(call)
            return
        node = self._pick(call, group)
        if node is None:
            if group_id == CATALOG_GROUP:
                self.rediscover()
            self._back_off(call)
        else:
            self._attempt(call, node, now)

    def _pick(self, call: Call, group: Group) -> Node | None:
        avoid, call.avoid = call.avoid, None
        preferred = group.leader if call.leader else group.near()
        if call.behind_since is not None and group.leader is not None and group.leader.usable:
            preferred = group.leader
        if preferred is not None and preferred.usable and preferred is not avoid:
            return preferred
        return group.any_but(avoid)

    def _attempt(self, call: Call, node: Node, now: float) -> None:
        request = call.request
        left_s = call.deadline - now
        if call.attempts:
            if call.old_ids is None:
                call.old_ids = []
            call.old_ids.append(request.id)
            request = msgspec.structs.replace(request, id=self.next_id())
            if not isinstance(request, ReadFeed | Stats):
                request = msgspec.structs.replace(request, timeout_ms=int(left_s * 1000))
            call.request = request
            self._calls[request.id] = call
        if isinstance(request, Get | Query) and not call.leader:
            group = self._groups[request.group]
            request.after = 0 if call.is_waived else group.position
        call.node = node
        patience_s = min(ATTEMPT_TIMEOUT_S * (1 << min(call.attempts, 2)), ATTEMPT_TIMEOUT_S_MAX)
        if isinstance(request, ReadFeed):
            patience_s += request.wait_ms / 1000
        call.attempts += 1
        call.sent_tick = self._tick
        self._wake_after(request.id, min(patience_s, left_s))
        assert node.link is not None
        node.link.send(request)

    def _back_off(self, call: Call) -> None:
        steps = BACKOFF_TICKS if len(self._calls) < CROWD else CROWD_BACKOFF_TICKS
        ticks = steps[min(call.backoffs, len(steps) - 1)]
        call.backoffs += 1
        call.redirects = 0
        call.node = None
        group = self._groups.get(call.request.group)
        # (A first attempt has no id to tell its back-off from itself: it sits its time out.)
        if group is not None and call.leader and call.attempts:
            if len(group.waiting) >= IN_FLIGHT_MAX:
                group.waiting.clear()  # mostly of calls that ended; the rest wake by themselves
            group.waiting.append(call.request.id)
        left_s = call.deadline - self.now()
        self._wake_after(call.request.id, min(ticks * TICK_S, max(left_s, 0.0)))

    def _leader_found(self, group: Group, node: Node) -> None:
        """This node has just answered as the group's leader: whoever waits for one need not wait on."""
        group.leader = node
        waiting, group.waiting = group.waiting, []
        for call_id in waiting:
            call = self._calls.get(call_id)
            if call is not None and call.node is None and call.request.id == call_id:
                call.avoid = None
                self._route(call)

    def _accept(self, call: Call, answer: Answer) -> bool:
        """Whether a final answer to a call with several attempts ends it; clears its other ids if so."""
        old_ids = call.old_ids or []
        if answer.id in old_ids:
            old_ids.remove(answer.id)
            if isinstance(call.request, Write) and not isinstance(answer, Written):
                return False  # refused then; the attempt after it may succeed
        else:
            assert answer.id == call.request.id
        self._forget(call)
        return True

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.request.id, None)
        for old_id in call.old_ids or ():
            self._calls.pop(old_id, None)

    def _finish(self, call: Call, answer: Answer) -> None:
        self._forget(call)
        try:
            call.on_answer(answer)
        except Exception:  # one request's failure must not stop the wheel or the link
            log.exception("answer handler failed")

    def _give_up(self, call: Call, reason: str) -> None:
        # A write that is out with a replica right now may be executed, whatever becomes of its answer.
        uncertain = call.uncertain or call.node is not None
        if uncertain and isinstance(call.request, Write):
            self._finish(call, OutcomeUnknown(call.request.id, reason))
        else:
            self._finish(call, Unavailable(call.request.id, reason))

    def take(self, node: Node, messages: Sequence[Message]) -> None:
        """Answers."""
        node.heard_tick = self._tick
        groups, pop = self._groups, self._calls.pop
        for message in messages:
            kind = type(message)
            if kind in _FINAL:
                call = pop(message.id, None)  # type: ignore[union-attr]
                if call is None:
                    continue  # ended already, by its deadline or by another attempt
                if call.old_ids is not None and not self._accept(call, message):  # type: ignore[arg-type]
                    continue
                group = groups.get(call.request.group)
                if group is not None:
                    if kind in _POSITIONED:
                        position = message.position  # type: ignore[union-attr]
                        if position > group.position or call.is_waived:
                            group.position = position
                    if call.leader and (group.leader is not node or group.waiting):
                        self._leader_found(group, node)
                try:
                    call.on_answer(message)  # type: ignore[arg-type]
                except Exception:  # one request's failure must not reach the shared link
                    log.exception("answer handler failed", extra={"peer": node.address})
            elif kind in _WEATHER:
                self._weather(node, message)  # type: ignore[arg-type]
            elif isinstance(message, Catalog):
                self._discovered(message)
            else:
                log.warning(
                    "unexpected message", extra={"peer": node.address, "kind": kind.__name__}
                )

    def _weather(
        self,
        node: Node,
        message: NotLeader | WrongPartition | Unavailable | OutcomeUnknown | Behind,
    ) -> None:
        """An attempt was not executed, or nobody knows."""
        call = self._calls.get(message.id)
        if call is None:
            return
        if call.request.id != message.id:  # an abandoned attempt: its successor is under way
            del self._calls[message.id]
            if call.old_ids is not None:
                call.old_ids.remove(message.id)
            return
        group = self._groups.get(call.request.group)
        match message:
            case WrongPartition():
                if group is not None and group.leader is node:
                    group.leader = (
                        None  # another disk at that address, say: the next call asks others
                    )
                if call.request.group != CATALOG_GROUP:
                    self._finish(call, message)
                    return
                call.avoid = node
                self.rediscover()
            case NotLeader():
                if group is not None and self._follow(call, node, group, message.leader_node):
                    return
                call.avoid = node
            case Unavailable():
                call.avoid = node
                if not call.leader and call.redirects < REDIRECTS_MAX:
                    call.redirects += 1
                    call.node = None
                    self._route(call)
                    return
            case OutcomeUnknown():
                call.uncertain = True
            case Behind():
                if group is not None:
                    self._note_lagging(group, node)
                call.avoid = node
                if self._is_patient(call) and call.redirects < REDIRECTS_MAX:
                    call.redirects += 1
                    call.node = None
                    self._route(call)
                    return
        self._back_off(call)

    def _note_lagging(self, group: Group, node: Node) -> None:
        if node not in group.lagging:
            group.lagging.add(node)
            self._environment.call_later(LAGGING_S, lambda: group.lagging.discard(node))

    def _is_patient(self, call: Call) -> bool:
        """Whether an eventual read still looks for a replica that has what was seen; else any state will do."""
        now = self.now()
        if call.behind_since is None:
            call.behind_since = now
        if now - call.behind_since > SESSION_WAIT_S and not call.is_waived:
            call.is_waived = True
            self.waived_reads += 1
        return not call.is_waived

    def _follow(self, call: Call, node: Node, group: Group, hint: str | None) -> bool:
        """Go where a `NotLeader` points; False when it points nowhere of use."""
        leader = group.by_node_id.get(hint) if hint is not None else None
        if leader is None or leader is node or not leader.usable:
            if group.leader is node:
                group.leader = None
            if hint is not None and leader is None and call.request.group == CATALOG_GROUP:
                self.rediscover()
            return False
        group.leader = leader
        if call.redirects >= REDIRECTS_MAX:
            return False
        call.redirects += 1
        call.node = None
        call.avoid = None
        self._route(call)
        return True

    # --- links (`client_groups.NodeOwner`) and time ---

    def node_up(self, node: Node) -> None:
        """It may know where the catalog is."""
        node.heard_tick = self._tick
        if not self.is_discovered and node.link is not None:
            node.link.send(Discover(self.next_id()))

    def node_down(self, node: Node) -> None:
        """What was out with this node goes elsewhere."""
        for group in self._groups.values():
            if group.leader is node:
                group.leader = None
        self._abandon_all(node)

    def _abandon_all(self, node: Node) -> None:
        for call in [c for c in self._calls.values() if c.node is node]:
            if call.node is node:  # listed once per attempt that may still answer
                self._abandon(call, node)

    def _abandon(self, call: Call, node: Node) -> None:
        call.uncertain = True
        call.avoid = node
        call.node = None
        self._route(call)

    def _start_ticking(self) -> None:
        self._ticking = True
        self._tick = int(self.now() / TICK_S)
        self._new_filling()
        self._environment.call_later(TICK_S, self._on_tick)

    def _new_filling(self) -> None:
        due = self._tick + _ATTEMPT_TICKS
        self._filling = self._wheel.setdefault(due, [])
        self._filling_until = due * TICK_S

    def _wake_after(self, call_id: int, delay_s: float) -> None:
        due = max(int((self.now() + delay_s) / TICK_S), self._tick) + 1
        self._wheel.setdefault(due, []).append(call_id)

    def _on_tick(self) -> None:
        now = int(self.now() / TICK_S)
        stalled = now - self._tick > STALL_TICKS
        while self._tick < now:
            self._tick += 1
            if not self._wheel:
                self._tick = now
            due = self._wheel.pop(self._tick, None)
            if self._tick == now:
                self._new_filling()
            if due:
                for call_id in due:
                    if stalled:
                        self._wake_after(call_id, STALL_TICKS * TICK_S)
                    else:
                        self._due(call_id)
        if not self._calls and not self._filling:
            # An empty list of attempts keeps no watch; whoever calls next starts the wheel again.
            self._wheel.clear()
            self._ticking = False
            return
        self._environment.call_later(TICK_S, self._on_tick)

    def _due(self, call_id: int) -> None:
        """An attempt's time is up, or a back-off is over."""
        call = self._calls.get(call_id)
        if call is None or call.request.id != call_id:
            return
        if self.now() >= call.deadline:
            self._give_up(call, "no answer in time")
            return
        node = call.node
        if node is None:
            self._route(call)
            return
        group = self._groups.get(call.request.group)
        if group is not None and group.leader is node:
            group.leader = None
        # (What was heard in the very tick of sending was on its way before.)
        if node.heard_tick <= call.sent_tick:
            self._suspect(node)
        if call.node is node and call.request.id == call_id:
            self._abandon(call, node)

    def _suspect(self, node: Node) -> None:
        """Nothing was heard since the attempt was sent: use the node again once it says something, and wait for
        nothing else that is out with it.
        """
        if node.usable:
            node.usable = False
            self._abandon_all(node)
            link, heard_tick = node.link, node.heard_tick

            def close_if_silent() -> None:
                if node.link is link is not None and node.heard_tick == heard_tick:
                    link.close("silent")

            self._environment.call_later(SILENCE_S_MAX - ATTEMPT_TIMEOUT_S, close_if_silent)
