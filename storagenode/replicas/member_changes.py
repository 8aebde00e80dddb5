"""Changing a group's members, on its leader: only from what the asker saw to what follows from it.

A change is asked for as a pair, the members that the asker knows and those that it wants: compare and set. Thus
asking twice does no harm, and who decided on an old view is told so. The order that keeps a group safe and
writable (a learner first, promoted when it is level, then the old one removed) is the asker's business; what
would break it is refused here all the same.
"""

import asyncio

from raft.group import Configuration, LogIndex, Member, Outcome, ReplicaId
from raft.membership import BadConfiguration, check_configuration
from storagenode.replicas.replica import Replica

LEVEL_ENTRIES = 1_000
"""A learner that lacks no more of what is committed may become a voter: it is level within moments. One that still
needs a snapshot may not, however short the log.
"""


class NotNow(Exception):
    """Not a leader, busy, or the outcome is unknown: look again, then ask again."""


class Impossible(Exception):
    """The members are other ones than the asker thinks, or must not become what it wants."""


async def change_members(
    replica: Replica, expected: Configuration, proposed: Configuration
) -> None:
    """Replace the members `expected` by `proposed`; returns once that is applied here. Idempotent.

    Raises:
        NotNow: Ask again.
        Impossible: Do not ask that again.
    """
    group = replica.standing.group
    if not replica.standing.is_leading:
        raise NotNow("this replica does not lead")
    current = group.status().configuration
    if _same(current, proposed):
        return
    if not _same(current, expected):
        raise Impossible(f"the members are {_text(current)}")
    try:
        check_configuration(proposed)
    except BadConfiguration as error:
        raise Impossible(str(error)) from error
    _check_level(replica, current, proposed)
    if not group.may_change_configuration():
        raise NotNow("another change is under way")
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def settled(outcome: Outcome, index: LogIndex) -> None:
        del index
        if not future.done():
            future.set_result(outcome)

    try:
        taken = group.change_configuration(proposed, settled)
    except ValueError as error:
        raise Impossible(str(error)) from error
    if not taken:
        raise NotNow("the log takes no entry just now")
    outcome = await future
    if outcome is not Outcome.COMMITTED:
        raise NotNow(f"the change is {outcome.value}")


def _check_level(replica: Replica, current: Configuration, proposed: Configuration) -> None:
    """A voter that lags holds up commits; a learner does not."""
    status = replica.standing.group.status()
    voters = {member.replica_id for member in current.members if not member.is_learner}
    for member in proposed.members:
        if member.is_learner or member.replica_id in voters:
            continue
        match = status.match_index.get(ReplicaId(member.replica_id), LogIndex(0))
        if match < status.first_index or match + LEVEL_ENTRIES < status.commit_index:
            raise NotNow(f"replica {member.replica_id} stands at {match}")


def _same(one: Configuration, other: Configuration) -> bool:
    return set(one.members) == set(other.members)


def _text(configuration: Configuration) -> str:
    def one(member: Member) -> str:
        return f"{member.replica_id}@{member.node_id}{' (learner)' if member.is_learner else ''}"

    return ", ".join(one(member) for member in configuration.members)
