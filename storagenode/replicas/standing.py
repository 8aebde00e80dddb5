"""How a replica stands in its group right now: what its reading and writing halves both go by."""

from proto.messages import Answer, NotLeader, Unavailable
from raft.group import Group, Member, Role


class Standing:
    """Kept by `replica.Replica`, read by `reading.Reads` and `writing.Writes`.

    Attributes:
        role: Raft's role of this replica.
        leader: The leader it knows of.
        position: Log index up to which the engine holds everything: what reads see.
        leader_seen: Whether a leader vouched for our state since the start of the process.
        is_leading: Leader, and everything of earlier terms is applied. Set by raft's word, cleared by the first
            sign of its end.
        fault: Why this replica serves nothing, None while it does.
        faults: How often it was taken out of service: what was read from it before may have been damaged.
        is_blank: It joined a group and has no state yet: the first thing it takes is a snapshot.
        is_installing: A snapshot is being written over its state.
        is_forgetting: A snapshot was installed, and its file and the note of it are still to go: no other one may
            come until then.
        is_stopping: The replica or the process is about to go.
    """

    __slots__ = (
        "_group",
        "fault",
        "faults",
        "is_blank",
        "is_forgetting",
        "is_installing",
        "is_leading",
        "is_stopping",
        "leader",
        "leader_seen",
        "position",
        "role",
    )

    def __init__(self) -> None:
        self._group: Group | None = None
        self.role = Role.FOLLOWER
        self.leader: Member | None = None
        self.position = 0
        self.leader_seen = False
        self.is_leading = False
        self.fault: str | None = None
        self.faults = 0
        self.is_blank = False
        self.is_installing = False
        self.is_forgetting = False
        self.is_stopping = False

    @property
    def group(self) -> Group:
        """The raft group. Only after `attach`."""
        assert self._group is not None
        return self._group

    def attach(self, group: Group) -> None:
        """The group that drives this replica."""
        self._group = group

    @property
    def has_state(self) -> bool:
        """Whether what is applied is applied to a state that is neither damaged nor still to come."""
        return self.fault is None and not self.is_blank

    @property
    def is_sound(self) -> bool:
        """Whether its state is whole: neither damaged nor being replaced nor still to come."""
        return self.has_state and not self.is_installing

    @property
    def serves(self) -> bool:
        """Whether it may answer from its state at all."""
        return self.is_sound and not self.is_stopping

    def refusal(self, request_id: int) -> Answer:
        """Why nothing is executed here now: where the leader is, or that another try may succeed."""
        if self.is_stopping:
            return Unavailable(request_id, "shutting down")
        if self.fault is not None:
            return Unavailable(request_id, "replica out of service")
        if self.is_installing or self.is_blank:
            return Unavailable(request_id, "installing a snapshot")
        if self.role is Role.LEADER:
            return Unavailable(request_id, "leadership not confirmed")
        leader = self.leader
        return NotLeader(request_id, None if leader is None else leader.node_id)
