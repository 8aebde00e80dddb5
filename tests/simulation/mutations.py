"""Rules whose absence chance alone shows soon: switched off, they must; else the simulator proves nothing.

For all rules see `rules.py`.

python -m tests.simulation.mutations [NAME ...] [--seeds N] [--control: same worlds, all rules on, no violation]
python -m tests.simulation.mutations --search 1000     the bugs put in on purpose, found by chance alone in
                                                       standing configurations: prints which, and the seed
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from raft.elections import Elections
from raft.group import Settings
from raft.guard import Guard
from raft.journal import GroupJournal
from raft.pysyncobj_group import Core
from raft.replica import Replica
from raft.voting import Voting
from raft.wire import Ack
from tests.simulation.observed import ObservedJournal
from tests.simulation.options import Options, Violation
from tests.simulation.patching import Patch, mutated, no, nothing, yes
from tests.simulation.run import CONFIGURATIONS
from tests.simulation.workloads import simulate


@dataclass(frozen=True)
class Mutation:
    """Rules taken out, and a world in which that is likely to show."""

    patches: tuple[Patch, ...]
    options: Options
    seeds: int = 200  # within so many seeds the violation must show


def _route_everything(replica: Replica, send: Callable[..., None]) -> None:
    guard = replica.guard
    for message in (*guard.appends, *guard.others):
        node = replica.routes.get(message.target)
        if node is not None:
            send(node, message)
    guard.drop_outbox()


def _bare_with_commit(original: Callable[..., None]) -> Callable[..., None]:
    def append_to(guard, target, previous, previous_term, entries, commit):
        if not previous:
            commit = guard.core.commit_index
        original(guard, target, previous, previous_term, entries, commit)

    return append_to


def _elected_alone(core: Core) -> None:
    core._guard.became_leader(core.term)
    Core.__base__._SyncObj__onBecomeLeader(core)
    core._on_elected()


ALWAYS = property(yes)
TINY = CONFIGURATIONS["tiny"]
COMPACT = CONFIGURATIONS["compact"]
SLOW_FIVE = replace(CONFIGURATIONS["slow"], network="unordered")
NO_PRE_VOTE: Patch = (Elections, "has_pre_votes", yes)

MUTATIONS: dict[str, Mutation] = {
    "a lone voter that does not wait for its disk": Mutation(
        ((Core, "_SyncObj__onBecomeLeader", _elected_alone),), CONFIGURATIONS["single"]
    ),
    "no trimming": Mutation(
        ((Guard, "without_known", lambda guard, entries, first, last: entries),),
        replace(TINY, network="unordered"),
    ),
    "no clamping": Mutation(
        ((Guard, "clamped", lambda guard, commit, verified: commit),),
        replace(TINY, network="unordered", isolations=0.8),
    ),
    "commit by unverified messages": Mutation(
        (
            (Guard, "commit_unverified", lambda guard, m: m.commit),
            (Guard, "append_to", _bare_with_commit(Guard.append_to)),
        ),
        replace(COMPACT, isolations=0.8, proposals=30.0, reads=40.0),
    ),
    "send before sync": Mutation(((Replica, "route", _route_everything),), COMPACT),
    "tick before sync": Mutation(((GroupJournal, "is_durable", ALWAYS),), COMPACT),
    "votes counted, not voters": Mutation(
        ((Voting, "counts_vote", yes), NO_PRE_VOTE, (Voting, "leader_is_alive", no)),
        replace(SLOW_FIVE, duplicate=0.5),
    ),
    "reset again and again": Mutation(
        (
            (Guard, "accepts_reset", yes),
            (Guard, "resume_at", lambda guard, previous, last: min(previous, last + 1)),
        ),
        replace(TINY, isolations=0.8, proposals=40.0),
    ),
    "no stale-term answer": Mutation(
        ((Voting, "_tell_term", nothing),), replace(COMPACT, has_pre_votes=False, isolations=0.8)
    ),
    "reads before an own entry": Mutation(
        ((Guard, "is_readable", property(lambda guard: guard.core.is_leader)),),
        replace(Options(), reads=80.0, crashes=0.6),
    ),
    "lease survives a transfer": Mutation(
        ((Guard, "is_lease_off", no),), replace(Options(), transfers=2.0, reads=80.0), 300
    ),
    "no margin": Mutation(
        (),
        replace(Options().with_settings(clock_drift_margin=-1.0), drift=0.1, reads=80.0),
    ),
}


def _vote_in_memory(journal: ObservedJournal, term: int, voted_for: int | None) -> None:
    journal.term = term
    journal.voted_for = None if voted_for is None else int(voted_for)


def _vote_with_next_batch(journal: GroupJournal, term: int, voted_for: int | None) -> None:
    journal.term = term
    journal.voted_for = None if voted_for is None else int(voted_for)
    journal._log.record_term(journal.group, term, journal.voted_for)


def _acks_leave_early(replica: Replica, send: Callable[..., None]) -> None:
    guard = replica.guard
    kept = []
    for message in guard.others:
        if isinstance(message, Ack):
            send(replica.routes[message.target], message)
        else:
            kept.append(message)
    guard.others[:] = kept
    ROUTE(replica, send)


def _lease_without_margin(guard: Guard, now: float) -> bool:
    before, guard.settings = guard.settings, replace(guard.settings, clock_drift_margin=0.0)
    try:
        return RENEW_LEASE(guard, now)
    finally:
        guard.settings = before


ROUTE = Replica.route
RENEW_LEASE = Guard.renew_lease


@dataclass(frozen=True)
class Bug:
    """One mistake of the kind that people make, and where chance alone is to find it."""

    patches: tuple[Patch, ...]
    configuration: str
    network: str
    found_by: range  # seeds of which at least one finds it; they are part of the short run

    @property
    def options(self) -> Options:
        return replace(CONFIGURATIONS[self.configuration], network=self.network)


BUGS: dict[str, Bug] = {
    "a vote that is never written": Bug(
        ((ObservedJournal, "setCurrentTerm", _vote_in_memory),), "votes", "unordered", range(7, 12)
    ),
    "a vote that is written with the next batch": Bug(
        ((GroupJournal, "setCurrentTerm", _vote_with_next_batch),),
        "votes",
        "unordered",
        range(7, 12),
    ),
    "an ack before its fsync": Bug(
        ((Replica, "route", _acks_leave_early),), "crashes", "fifo", range(1)
    ),
    "an ack of another term counted": Bug(
        ((Guard, "is_current", yes),), "slow", "unordered", range(2, 6)
    ),
    "a matching entry truncated": Bug(
        ((Guard, "without_known", lambda guard, entries, first, last: entries),),
        "tiny",
        "unordered",
        range(1),
    ),
    "a lease without a bound on clock drift": Bug(
        ((Guard, "renew_lease", _lease_without_margin),), "drift", "fifo", range(188, 193)
    ),
}


def _sane(settings: Settings) -> Settings:
    return replace(settings, clock_drift_margin=0.2)


def search(mutation: Mutation | Bug, seeds: Iterable[int]) -> tuple[int, Exception] | None:
    """The first seed that shows the violation."""
    with mutated(mutation.patches):
        for seed in seeds:
            try:
                simulate(seed, mutation.options)
            except Exception as error:  # noqa: BLE001 - any of them is what is looked for
                return seed, error
    return None


def search_all(seeds: int, names: list[str]) -> int:
    """Find every bug by chance; the number of those that were missed."""
    missed = 0
    for name in names or BUGS:
        bug = BUGS[name]
        found = search(bug, range(seeds))
        where = f"{bug.configuration}/{bug.network}"
        if found is None:
            missed += 1
            print(f"{name}: {where}: NOT FOUND in {seeds} seeds", flush=True)
            continue
        seed, error = found
        kind = error.kind if isinstance(error, Violation) else type(error).__name__
        print(f"{name}: {where} seed {seed}: {kind}: {str(error)[:100]}", flush=True)
    return missed


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--search", type=int, default=0, metavar="SEEDS")
    arguments = parser.parse_args(argv)
    if arguments.search:
        return 1 if search_all(arguments.search, arguments.names) else 0
    missed = 0
    for name in arguments.names or MUTATIONS:
        mutation = MUTATIONS[name]
        seeds = arguments.seeds or mutation.seeds
        if arguments.control:
            sane = replace(mutation.options, settings=_sane(mutation.options.settings))
            mutation = replace(mutation, patches=(), options=sane)
        found = search(mutation, range(seeds))
        if found is None:
            missed += 1
            print(f"{name}: nothing in {seeds} seeds", flush=True)
        else:
            seed, error = found
            kind = error.kind if isinstance(error, Violation) else type(error).__name__
            print(f"{name}: seed {seed}: {kind}: {str(error)[:120]}", flush=True)
    if arguments.control:
        missed = len(arguments.names or MUTATIONS) - missed
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
