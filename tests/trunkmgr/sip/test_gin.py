"""Calls to the numbers of a bulk registration (RFC 6140) through the product's routing."""

from __future__ import annotations

from typing import Any

import pytest

from sipengine.events import CallStarted
from sipengine.message import Message, parse
from tests.sipengine.net import PROXY, Station, starts
from tests.trunkmgr.sip.net import TrunkNet, account, trunk
from tests.trunkmgr.sip.test_routing import asked
from trunkmgr.sip.limits import limits_of
from trunkmgr.sip.routing import TrunkRouting
from trunkmgr.sip.rules import refusals
from trunkmgr.sip.snapshot import Peers, Trunk

pytestmark = pytest.mark.checklist("H19")

OTHER = ("192.0.2.50", 5060)
NUMBER = b"+498912345"


@pytest.fixture(autouse=True)
def fresh_counts() -> None:
    refusals.counts.clear()


def bulk(l_uuid: str = "bulk", anonymous: bool = False, more: dict[str, Any] | None = None, **columns: Any) -> Trunk:
    return trunk(account(l_uuid, gin=True, **columns), anonymous, **more or {})


class BulkNet(TrunkNet):
    """The provider and another one, at OTHER, that has none of the accounts."""

    def __init__(self, *trunks: Trunk) -> None:
        super().__init__(TrunkRouting, *trunks or (bulk(), trunk(account("acc1"))))
        self.admission.swap(self.admission.snapshot.patched(providers={2: Peers(frozenset({OTHER[0]}))}))
        self.other = self.wire.station(*OTHER)

    def call(self, user: bytes = NUMBER, line: bytes = b"bulk", station: Station | None = None) -> Message | None:
        """What the PBX gets of a call to a number."""
        ruri = b"sip:%b@192.0.2.5" % user + (b";line=" + line if line else b"")
        data = self.invite(user=user).replace(b"INVITE sip:%b@192.0.2.5" % user, b"INVITE " + ruri)
        (station or self.provider).send(data, PROXY)
        self.run()
        got = self.phone.take()
        return parse(got[-1]) if got else None

    @property
    def started(self) -> CallStarted:
        [event] = [event for event in self.events() if isinstance(event, CallStarted)]
        return event


@pytest.mark.parametrize("line", [b"bulk", b""])
def test_the_pbx_is_called_by_the_number(line: bytes) -> None:
    net = BulkNet()
    invite = net.call(line=line)
    assert invite is not None and invite.ruri == b"sip:+498912345@pbx.example"
    assert (net.started.direction, net.started.l_uuid, net.started.callee) == ("in", "bulk", "+498912345@pbx.example")


def test_a_number_stays_written_as_it_came() -> None:
    net = BulkNet()
    invite = net.call(b"%2B49%2089")
    assert invite is not None and invite.ruri == b"sip:%2B49%2089@pbx.example"
    assert net.started.callee == "+49 89@pbx.example"


def test_numbers_of_other_accounts_stay_theirs() -> None:
    net = BulkNet(bulk(), trunk(account("acc1", contact_user="4930")))
    invite = net.call(b"4930", b"")
    assert invite is not None and invite.ruri == b"sip:100@pbx.example"


@pytest.mark.parametrize(("trunks", "refused"), [
    ([bulk(), bulk("second")], "unknown_account"), ([bulk(enabled=False)], "unknown_account"),
    ([trunk(account())], "unknown_account"),
])  # fmt: skip
def test_without_line_only_the_one_account_that_it_can_be_is_called(trunks: list[Trunk], refused: str) -> None:
    net = BulkNet(*trunks)
    assert net.call(line=b"") is None and starts(net.provider.take())[-1] == b"SIP/2.0 404"
    assert refusals.counts == {refused: 1}


def test_with_line_each_of_several_is_called() -> None:
    net = BulkNet(bulk(), bulk("second", l_username="200"))
    assert net.call(line=b"second") is not None and net.started.l_uuid == "second"


@pytest.mark.checklist("M2")
@pytest.mark.parametrize("line", [b"bulk", b""])
def test_another_provider_reaches_no_number(line: bytes) -> None:
    net = BulkNet()
    assert net.call(line=line, station=net.other) is None
    assert starts(net.other.take())[-1] == b"SIP/2.0 404"


def test_any_provider_may_call_by_line_where_the_account_says_so() -> None:
    net = BulkNet(bulk(more={"from_any": True}))
    assert net.call(line=b"", station=net.other) is None, "whose number that is nothing tells"
    assert net.call(station=net.other) is not None


def test_limits_and_anonymity_hold_as_for_others() -> None:
    net = BulkNet(bulk(anonymous=True, more={"limits": limits_of("", 1, 0)}))
    invite = net.call()
    assert invite is not None and invite.from_.uri == b"sip:anonymous@anonymous.invalid"
    net.provider.take()
    assert net.call(b"+498954321") is None and refusals.counts == {"calls": 1}
    assert starts(net.provider.take())[-1] == b"SIP/2.0 486"


@pytest.mark.parametrize(("user", "ruri", "found"), [
    (NUMBER, b"sip:+498912345@192.0.2.5;line=bulk", "sip:+498912345@pbx.example"),
    (b"bulk", b"", "sip:100@pbx.example"),
])  # fmt: skip
def test_a_routing_class_finds_the_number_too(
    user: bytes, ruri: bytes, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.trunkmgr.sip.test_routing.TRUNKS", [bulk()])
    assert asked(lambda routing, context: routing.uac_reg_lookup("$rU"), user, ruri) == found
