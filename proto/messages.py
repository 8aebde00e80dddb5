"""Messages of the hot path: what routers, admins and storage nodes say over a framed link.

Every message is a msgpack array whose first element is its code (`tag`). msgspec checks every type while
decoding, so what reaches a handler has the shape written here. Codes are never reused; a field is only ever
added at the end, with a default, so that two versions understand each other. Opaque bytes inside (item
bodies, log entries) are never re-encoded on the way.

Requests carry an `id` that is unique on their link; the answer repeats it. `timeout_ms` is what is left of
the client's deadline when the message was sent.
"""

from typing import Final, Literal, TypeAlias

import msgspec

PROTOCOL_VERSION = 1

# --- parts -----------------------------------------------------------------------------------------------

PUT: Final = 0
UPDATE: Final = 1
DELETE: Final = 2
CHECK: Final = 3
ActionKind: TypeAlias = Literal[0, 1, 2, 3]

RETURN_NONE: Final = 0
RETURN_ALL_OLD: Final = 1
RETURN_UPDATED_OLD: Final = 2
RETURN_ALL_NEW: Final = 3
RETURN_UPDATED_NEW: Final = 4
ReturnKind: TypeAlias = Literal[0, 1, 2, 3, 4]


class Action(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One item's write (or check) inside a `Write`.

    Attributes:
        kind: PUT, UPDATE, DELETE or CHECK (a condition without a write).
        key: Keyspace key of the item (`datamodel.key_encoding`).
        body: Normalised JSON: the whole item for PUT, the key attributes otherwise.
        size: Item size in bytes as DynamoDB counts it (PUT), else 0.
        condition: ConditionExpression text, or None.
        update: UpdateExpression text (UPDATE only), or None.
        names: ExpressionAttributeNames, or None.
        values: ExpressionAttributeValues as normalised JSON, or None.
        returns: Which attributes the answer carries.
        return_on_failure: Whether a failed condition's answer carries the item.
    """

    kind: ActionKind
    key: bytes
    body: bytes
    size: int = 0
    condition: str | None = None
    update: str | None = None
    names: dict[str, str] | None = None
    values: bytes | None = None
    returns: ReturnKind = 0
    return_on_failure: bool = False


class LocalIndexRule(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What a leader must know of a table's local index to keep it. It never changes after CreateTable.

    Attributes:
        number: Of the index in the table, from 1; part of its entries' keys.
        name: Of the index, for errors.
        sort_name: The index's sort key.
        sort_type: S, N or B.
        attributes: Names of what entries have of an item, keys included; None for everything.
    """

    number: int
    name: str
    sort_name: str
    sort_type: str
    attributes: list[str] | None = None


class ActionResult(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What a write did.

    Attributes:
        old_size: Item size in bytes before, 0 if there was none.
        new_size: Item size in bytes after, 0 if there is none.
        attributes: ReturnValues as JSON.
        index_units: (number, write units) of each local index that changed; None for tables without any.
        collection_size: Bytes of the item collection after, index entries included; likewise.
    """

    old_size: int
    new_size: int
    attributes: bytes | None = None
    index_units: list[tuple[int, int]] | None = None
    collection_size: int | None = None


class Reason(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Why one action of a write failed; `code` is "None" for an action that did not."""

    code: str
    message: str = ""
    item: bytes | None = None
    old_size: int = 0


class ReplicaAddress(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where one replica of a group lives."""

    replica_id: int
    node_id: str
    address: str
    az: str


class FeedRecord(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One item change of a partition, in commit order; images are item bodies (JSON) or None."""

    position: int
    key: bytes
    old: bytes | None
    new: bytes | None
    timestamp: int


# --- link ------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, tag=1, gc=False, frozen=True):
    """First message in each direction of a link. An empty cluster id means 'not known yet'.

    `address` and `grpc` are where a storage node's link and gRPC ports can be reached.
    """

    version: int
    cluster_id: str
    role: str
    node_id: str
    name: str
    az: str
    address: str = ""
    grpc: str = ""


class RaftBatch(msgspec.Struct, array_like=True, tag=2, gc=False, frozen=True):
    """All raft messages one turn of a storage node has for a peer; opaque outside `raft`."""

    payload: bytes


# --- requests --------------------------------------------------------------------------------------------


class Discover(msgspec.Struct, array_like=True, tag=10, gc=False, frozen=True):
    """Ask a storage node where the catalog (partition group 0) is."""

    id: int


class Get(msgspec.Struct, array_like=True, tag=11, gc=False):
    """Read one stored item. `strong` asks the leader; otherwise any replica answers that has applied the group's
    log up to `after` (set by `cluster_client`; 0: any).
    """

    id: int
    group: int
    key: bytes
    strong: bool
    timeout_ms: int = 0
    after: int = 0


class Write(msgspec.Struct, array_like=True, tag=12, gc=False, frozen=True):
    """Apply all actions atomically in one partition group, or none of them.

    The group remembers `request_id` (16 bytes) for a bounded time: the same id again returns the first
    outcome, so a retry inside the cluster never applies twice. A write to a table with local indexes carries
    their rules: their entries change in the same log entry as the items.
    """

    id: int
    group: int
    request_id: bytes
    actions: list[Action]
    timeout_ms: int = 0
    local_indexes: list[LocalIndexRule] = []


class Query(msgspec.Struct, array_like=True, tag=13, gc=False):
    """Read stored items in key order from `start` (inclusive) to `end` (exclusive); Scan uses it too.

    Attributes:
        reverse: From the end downwards.
        limit: Most items to evaluate, 0 for no limit.
        size_limit: Stop once this many bytes of items were evaluated (the crossing item is included).
        filter: FilterExpression text, or None.
        projection: ProjectionExpression text, or None; `names` and `values` serve both.
        count_only: Return no items.
        part: Which part of item collections to read (`key_encoding.part_of`): for a Scan of a table that has
            local indexes, or of such an index. -1 reads everything in the range.
        fetch: Read entries of a local index, but filter and return the items that they stand for.
        after: As of `Get`.
    """

    id: int
    group: int
    start: bytes
    end: bytes
    strong: bool
    reverse: bool = False
    limit: int = 0
    size_limit: int = 1 << 20
    filter: str | None = None
    projection: str | None = None
    names: dict[str, str] | None = None
    values: bytes | None = None
    count_only: bool = False
    timeout_ms: int = 0
    part: int = -1
    fetch: bool = False
    after: int = 0


class ReadFeed(msgspec.Struct, array_like=True, tag=14, gc=False, frozen=True):
    """Read item changes after `position`; waits up to `wait_ms` for one if there is none."""

    id: int
    group: int
    position: int
    limit: int
    wait_ms: int


class Stats(msgspec.Struct, array_like=True, tag=15, gc=False, frozen=True):
    """Ask the leader for a partition's item count and size (table `table_id` part of it)."""

    id: int
    group: int


# --- answers ---------------------------------------------------------------------------------------------
#
# The `position` of an answer is an index of the group's log: what the answer says, or did, is in every state that
# has applied the log up to there. 0: not known.


class Catalog(msgspec.Struct, array_like=True, tag=30, gc=False, frozen=True):
    """Answer to `Discover`: the catalog group's voters. `replicas` is empty while the cluster is not bootstrapped.

    They were the voters at `position` of the group's log: of two answers the one with the higher position is
    true, for a node that left the group may go on giving the old one.
    """

    id: int
    cluster_id: str
    replicas: list[ReplicaAddress]
    leader_node: str | None = None
    position: int = 0


class Value(msgspec.Struct, array_like=True, tag=31, gc=False, frozen=True):
    """Answer to `Get`: the stored record (`datamodel.stored_items`), None if there is no item."""

    id: int
    value: bytes | None
    position: int = 0


class Written(msgspec.Struct, array_like=True, tag=32, gc=False, frozen=True):
    """Answer to `Write`: committed and applied; one result per action."""

    id: int
    results: list[ActionResult]
    position: int = 0


class Page(msgspec.Struct, array_like=True, tag=33, gc=False, frozen=True):
    """Answer to `Query`.

    Attributes:
        items: Matching items' JSON bodies joined by commas (empty when `count_only`).
        count: Items that passed the filter.
        scanned: Items evaluated.
        size: Bytes of all evaluated items, as DynamoDB counts them.
        last: Body of the last evaluated item (or entry) when the page stopped before `end`, else None.
        fetched_size: Bytes of all items read for `fetch`; they count for `size_limit` too.
        fetched_units: Read units of those, each rounded up by itself, strongly consistent.
    """

    id: int
    items: bytes
    count: int
    scanned: int
    size: int
    last: bytes | None
    fetched_size: int = 0
    fetched_units: int = 0
    position: int = 0


class FeedPage(msgspec.Struct, array_like=True, tag=34, gc=False, frozen=True):
    """Answer to `ReadFeed`. `trimmed` says that records after `position` are gone: read the state anew."""

    id: int
    records: list[FeedRecord]
    position: int
    trimmed: bool = False


class StatsReply(msgspec.Struct, array_like=True, tag=35, gc=False, frozen=True):
    """Answer to `Stats`: item count and bytes by DynamoDB's size rule.

    `index_figures` are count and bytes of the entries of each local index in turn; empty if there are none.
    """

    id: int
    item_count: int
    size_bytes: int
    index_figures: list[int] = []


class Refused(msgspec.Struct, array_like=True, tag=40, gc=False, frozen=True):
    """The client's fault: a DynamoDB exception by its short name, with one reason per action if several."""

    id: int
    code: str
    message: str
    reasons: list[Reason] = []
    position: int = 0


class NotLeader(msgspec.Struct, array_like=True, tag=41, gc=False, frozen=True):
    """This replica does not lead the group; `leader_node` is a hint. The request was not executed."""

    id: int
    leader_node: str | None = None


class WrongPartition(msgspec.Struct, array_like=True, tag=42, gc=False, frozen=True):
    """This node has no replica of the group, or the key is outside it. The request was not executed."""

    id: int
    group: int


class Unavailable(msgspec.Struct, array_like=True, tag=43, gc=False, frozen=True):
    """Not executed now (overload, no lease, shutting down); another try may succeed."""

    id: int
    reason: str


class OutcomeUnknown(msgspec.Struct, array_like=True, tag=44, gc=False, frozen=True):
    """A write that may or may not take effect; only a retry with the same request id is safe."""

    id: int
    reason: str


class Behind(msgspec.Struct, array_like=True, tag=45, gc=False, frozen=True):
    """This replica has not applied the log up to a read's `after`, and has waited for it as long as it does.
    Another one may have.
    """

    id: int


Request: TypeAlias = Discover | Get | Write | Query | ReadFeed | Stats
Answer: TypeAlias = (
    Catalog
    | Value
    | Written
    | Page
    | FeedPage
    | StatsReply
    | Refused
    | NotLeader
    | WrongPartition
    | Unavailable
    | OutcomeUnknown
    | Behind
)
Message: TypeAlias = Hello | RaftBatch | Request | Answer
