"""Configurations: their bytes, what may follow what, and which one was in force at an index (pure).

A configuration entry carries the *full* list of voters and learners and takes effect when it is applied, one
change at a time. Effective-at-apply is safe only together with three rules that live elsewhere: a commit that
covers such an entry is durable before anything else leaves (`journal.py`), nobody campaigns while a committed
entry is unapplied (`guard.py`), and a leader proposes a change only when the one before is applied.
"""

import msgspec

from raft.group import Configuration, LogIndex, Member, NodeId, ReplicaId

# First byte of every command in a log. Codes are never reused; 2 and 3 are pysyncobj's own and must not occur.
COMMAND_PAYLOAD = 0
COMMAND_NOOP = 1
COMMAND_CONFIGURATION = 16
COMMAND_SENTINEL = 254

SENTINEL_COMMAND = bytes([COMMAND_SENTINEL])

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int, str, bool]]).decode


class BadConfiguration(Exception):
    """These bytes are no configuration, or the configuration contradicts itself."""


def encode_configuration(configuration: Configuration) -> bytes:
    """Bytes of a configuration: msgpack [[replica id, node id, is learner], ...]."""
    return _encode([(m.replica_id, m.node_id, m.is_learner) for m in configuration.members])


def decode_configuration(data: bytes) -> Configuration:
    """The reverse of `encode_configuration`.

    Raises:
        BadConfiguration: Damaged. (Whether it makes sense was checked before it was written.)
    """
    try:
        rows = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadConfiguration(str(error)) from error
    return Configuration(
        tuple(Member(ReplicaId(replica), NodeId(node), learner) for replica, node, learner in rows)
    )


def check_configuration(configuration: Configuration) -> None:
    """Refuse duplicates and configurations that nobody could lead."""
    members = configuration.members
    if len({m.replica_id for m in members}) != len(members):
        raise BadConfiguration("a replica id is listed twice")
    if len({m.node_id for m in members}) != len(members):
        raise BadConfiguration("a node hosts two replicas")
    if any(m.replica_id <= 0 for m in members):
        raise BadConfiguration("replica ids begin at 1")
    if not voters_of(configuration):
        raise BadConfiguration("no voters")


def voters_of(configuration: Configuration) -> tuple[ReplicaId, ...]:
    """Replicas that count."""
    return tuple(m.replica_id for m in configuration.members if not m.is_learner)


def learners_of(configuration: Configuration) -> tuple[ReplicaId, ...]:
    """Replicas that only receive."""
    return tuple(m.replica_id for m in configuration.members if m.is_learner)


def member_of(configuration: Configuration, replica_id: int) -> Member | None:
    """That replica's entry, if it is a member."""
    for member in configuration.members:
        if member.replica_id == replica_id:
            return member
    return None


def why_not(current: Configuration, proposed: Configuration, leader: ReplicaId) -> str | None:
    """Why `proposed` may not follow `current` under this leader; None if it may.

    At most one voter joins or leaves, so that every majority of the one meets every majority of the other; a
    voter joins only out of the learners; the leader stays (it transfers leadership first); nobody moves nodes.
    """
    try:
        check_configuration(proposed)
    except BadConfiguration as error:
        return str(error)
    before, after = set(voters_of(current)), set(voters_of(proposed))
    if len(before ^ after) > 1:
        return "more than one voter changes"
    if leader not in after:
        return "the leader cannot remove itself"
    if not (after - before) <= set(learners_of(current)):
        return "a new voter must have been a learner"
    homes = {m.replica_id: m.node_id for m in current.members}
    if any(homes.get(m.replica_id, m.node_id) != m.node_id for m in proposed.members):
        return "a replica cannot move to another node"
    return None


class ConfigurationHistory:
    """The configuration in force at each applied index since the checkpoint; never empty."""

    __slots__ = ("_steps",)

    def __init__(self, index: int, configuration: Configuration) -> None:
        self._steps: list[tuple[int, Configuration]] = [(index, configuration)]

    @property
    def current(self) -> Configuration:
        """The latest applied one."""
        return self._steps[-1][1]

    def apply(self, index: int, configuration: Configuration) -> None:
        """The entry at `index` was applied."""
        self._steps.append((index, configuration))

    def at(self, index: LogIndex) -> Configuration:
        """The one in force once everything up to `index` is applied; `index` is not before the checkpoint."""
        for since, configuration in reversed(self._steps):
            if since <= index:
                return configuration
        raise AssertionError(f"configuration at {index} asked, known since {self._steps[0][0]}")

    def forget_before(self, index: LogIndex) -> None:
        """A checkpoint was made at `index`."""
        steps = self._steps
        while len(steps) > 1 and steps[1][0] <= index:
            del steps[0]
