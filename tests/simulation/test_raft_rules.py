"""Every rule of replication in place, and missed when it is taken out; the document tells of the same rules."""

from pathlib import Path

import pytest

from tests.simulation import directed_faults
from tests.simulation.mutations import BUGS, MUTATIONS
from tests.simulation.patching import mutated
from tests.simulation.rules import BEGIN, DOCUMENT, END, RULES, table

ROOT = Path(__file__).resolve().parents[2]
ALL = [rule for rules in RULES.values() for rule in rules]
DIRECTED = [rule for rule in ALL if rule.scenario is not None]


@pytest.mark.parametrize("rule", DIRECTED, ids=lambda rule: rule.scenario.__name__)
def test_a_rule_is_in_place_and_is_missed(rule):
    assert rule.scenario() == ""
    if not rule.off:
        return
    with mutated(rule.off):
        try:
            noticed = rule.scenario()
        except Exception as error:  # noqa: BLE001 - that is notice enough
            noticed = repr(error)
    assert noticed


@pytest.mark.parametrize("rule", [r for r in ALL if r.scenario is None], ids=lambda r: r.said)
def test_what_shows_a_rule_elsewhere_exists(rule):
    if rule.by_chance:
        assert rule.by_chance in BUGS or rule.by_chance in MUTATIONS
        return
    path, _, name = rule.test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


def test_a_suspended_leader_needs_a_clock_that_goes_on():
    assert directed_faults.suspended_leader() == ""
    assert directed_faults.suspended_leader(has_boot_clock=False) != ""


def test_the_document_has_the_rules():
    told = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    assert told == table(), "python -m tests.simulation.rules --write"
