"""Scenarios of promises, candidates and terms; see `directed.py`."""

from raft.elections import NEVER
from tests.simulation.directed import GROUP, Stage, stale_lease
from tests.simulation.options import SETTINGS, Violation


def own_promise() -> str:
    """A asks C to take over, C is writing just then; A asks B, and C votes for B. C's core does not put off its
    deadline for B: C must not stand while B leads with a lease that rests on C.
    """
    stage = Stage()
    stage.lead("A")
    node, leader = stage.node("C"), stage.replica("A")
    held: list = []
    node.disk.append, honest = (lambda *what: held.append(what)), node.disk.append
    node.checkpoint(GROUP)
    stage.pause(0.2)
    assert stage.replica("C").is_in_flight
    for successor in (3, 2):
        stage.node("A").step(lambda to=successor: leader.transfer_leadership(to))
        stage.pause(0.0)
        stage.deliver("A", "BC"[successor == 3])
    stage.deliver("B", "C")
    node.disk.append = honest
    honest(*held[0])
    stage.exchange("BC", 0.02, 0.001)
    assert stage.leads("B")
    term = stage.replica("B").term
    stage.forget_messages()
    until = stage.world.now + 3 * SETTINGS.election_max_s
    while stage.world.now < until and stage.replica("C").term == term:
        for source, target in ("BC", "CB", "AC", "CA"):
            if stage.replica("C").term == term:
                stage.deliver(source, target)
        stage.pause(0.002)
    stage.exchange("AC", 0.02, 0.001)
    return stale_lease(stage, "B", "C", "AC")


def snapshot_of_a_later_term() -> str:
    """C slept through two terms and installs a snapshot of the second; what the leader of the first said to it
    arrives only now, and contradicts it.
    """
    stage = Stage(replicas=5)
    stage.lead("A")
    for name in "BDE":
        stage.replica(name).guard.elections.heard_leader_at = NEVER
    assert stage.campaign("B", "BDE")
    stage.world.queues.clear()
    for _ in range(8):
        stage.put("B")
    late = list(stage.world.queues[("B", "C")])
    stage.forget_messages()
    stage.pause(2.0)
    stage.forget_messages()
    assert stage.campaign("D", "ADE")
    for _ in range(3):
        stage.put("D")
        stage.exchange("ADE", 0.1)
    image = stage.node("D").machines[GROUP].image.copy()
    replica, machine = stage.replica("C"), stage.node("C").machines[GROUP]
    assert image.term > stage.replica("B").term > replica.term
    stage.world.images[b"later"] = image.copy()
    try:
        stage.node("C").step(
            lambda: (
                machine.stand_on(image.copy()),
                replica.install_snapshot(image.applied, image.term, image.configuration, b"later"),
            )
        )
        stage.pause(0.1)
        for payload in late:
            stage.world.deliver("B", "C", 0, payload)
            stage.pause(0.0)
    except Violation as violation:
        return violation.kind
    terms = [entry[2] for entry in stage.node("C").journal(GROUP)]
    return "" if terms == sorted(terms) else f"terms fall along the log: {terms}"
