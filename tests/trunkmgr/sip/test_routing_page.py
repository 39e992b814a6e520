"""docs/routing.md: each class on it runs, and its tables name what is there."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.events import Target
from sipengine.message import parse
from sipengine.proxy.context import ResponseContext
from sipengine.proxy.variables import Variables
from tests.sipengine.net import ANONYMOUS, CALLER, KEYS, reply, starts
from tests.trunkmgr.sip.net import TrunkNet, account, trunk
from trunkmgr.sip.routing import TrunkRouting

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "routing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def classes() -> dict[str, type[TrunkRouting]]:
    """The classes of the page, each made by its own block."""
    found: dict[str, type[TrunkRouting]] = {}
    for block in BLOCKS:
        namespace: dict[str, Any] = {}
        exec(compile(block, "docs/routing.md", "exec"), namespace)
        own = [value for name, value in namespace.items() if isinstance(value, type) and value is not TrunkRouting]
        found |= {each.__name__: each for each in own}
    return found


def from_provider(example: type[TrunkRouting], caplog: pytest.LogCaptureFixture) -> None:
    net = TrunkNet(example)
    with caplog.at_level(logging.INFO, "sipengine"):
        call = net.establish()
    assert call.invite.ruri == b"sip:100@pbx.example"
    assert "[sip:acc1@192.0.2.5 => sip:100@pbx.example]" in caplog.text
    net.send(net.provider, net.invite(b"call2", user=b"nobody"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 404"


def disguised(example: type[TrunkRouting], caplog: pytest.LogCaptureFixture) -> None:
    call = TrunkNet(example).establish()
    assert call.invite.get(b"From") == b"Robin <sip:robin@gotham.org>;tag=ct"
    assert call.invite.get(b"To") == b"<sip:batcave@gotham.org>"
    assert call.ok.get(b"From") == CALLER + b";tag=ct" and call.ok.get(b"To") == b"<sip:acc1@192.0.2.5>;tag=pt"


def per_branch(example: type[TrunkRouting], caplog: pytest.LogCaptureFixture) -> None:
    net = TrunkNet(example)
    net.send(net.provider, net.invite())
    shown = {parse(data).ruri: parse(data).from_.uri for data in net.phone.take()}
    assert shown == {
        b"sip:100@pbx.example": b"sip:for-100@gotham.org", b"sip:200@pbx.example": b"sip:for-200@gotham.org"
    }


def to_provider(example: type[TrunkRouting], caplog: pytest.LogCaptureFixture) -> None:
    net = TrunkNet(example)
    for user, status in ((b"acc1", b"SIP/2.0 200"), (b"nobody", b"SIP/2.0 403")):
        net.send(net.phone, net.request(
            b"INVITE", b"sip:+4930@192.0.2.5", b"<sip:%b@pbx.example>;tag=bt" % user, b"<sip:+4930@192.0.2.5>", user, 1,
            host=b"192.0.2.9:5060", extra=b"Contact: <sip:bob@192.0.2.9>\r\n",
        ))
        while got := [parse(data) for data in net.provider.take() if data.startswith(b"INVITE")]:
            assert got[-1].ruri == b"sip:+4930@sip.provider.example"
            answer = [b"200 OK", b"Contact: <sip:gw@192.0.2.1>"]
            if b"proxy-authorization" not in got[-1].keys:
                assert got[-1].cseq[0] == 1
                answer = [b"407 Who?", b'Proxy-Authenticate: Digest realm="r", nonce="n"']
            else:
                assert got[-1].cseq[0] == 2
            net.send(net.provider, reply(got[-1], answer[0], b"gt", answer[1]))
        assert starts(net.phone.take())[-1] == status


def next_target(example: type[TrunkRouting], caplog: pytest.LogCaptureFixture) -> None:
    net = TrunkNet(example)
    net.send(net.provider, net.invite())
    net.send(net.phone, reply(parse(net.phone.take()[-1]), b"500 Out of order"))
    second = parse(net.phone.take()[-1])
    assert second.ruri == b"sip:200@pbx.example"
    net.send(net.phone, reply(second, b"180 Ringing"))
    assert parse(net.provider.take()[-1]).get(b"X-Tried") == b"1"
    net.send(net.phone, reply(second, b"500 Out of order"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 500"


def asking(example: type[TrunkRouting], caplog: pytest.LogCaptureFixture) -> None:
    net = TrunkNet(example)
    net.wire.hosts["kamailio.example"] = [Target("udp", ("192.0.2.88", 5060))]
    other = net.wire.station("192.0.2.88", 5060)
    told: list[Any] = []
    net.endpoint.uac_requests.event_uac_reply = lambda heard: told.append(heard)
    net.send(net.provider, net.invite())
    options = parse(other.take()[0])
    assert options.start == b"OPTIONS sip:kamailio.example SIP/2.0"
    net.wire.send("udp", other.address, ("192.0.2.5", 5060), reply(options, b"200 OK"))
    net.run()
    with caplog.at_level(logging.INFO, "trunkmgr.sip"):
        example().event_uac_reply(told[0])
    assert "received reply code is: 200" in caplog.text
    assert parse(net.phone.take()[-1]).method == b"INVITE", "the call itself goes its usual way"


def by_hand(example: type[TrunkRouting], caplog: pytest.LogCaptureFixture) -> None:
    configuration = Configuration(seal_keys=KEYS, restore_mode="manual")
    net = TrunkNet(example, trunk(account(), anonymous=True), configuration=configuration)
    call = net.establish()
    net.send(net.provider, call.from_caller(b"INFO", 2))
    info = parse(net.phone.take()[-1])
    assert info.get(b"From") == ANONYMOUS + b";tag=ct"
    net.send(net.phone, reply(info, b"200 OK"))
    assert parse(net.provider.take()[-1]).get(b"From") == CALLER + b";tag=ct"


def marked(example: type[TrunkRouting], caplog: pytest.LogCaptureFixture) -> None:
    net = TrunkNet(example)
    net.endpoint.local_route = example().local_route  # type: ignore[attr-defined]
    net.endpoint.registrations.load(account(), None, net.wire.now)
    net.run()
    assert parse(net.provider.take()[-1]).get(b"X-From-Us") == b"yes"


SCENARIOS: dict[str, Callable[[type[TrunkRouting], pytest.LogCaptureFixture], None]] = {
    "FromProvider": from_provider, "Disguised": disguised, "PerBranch": per_branch, "ToProvider": to_provider,
    "NextTarget": next_target, "Asking": asking, "ByHand": by_hand, "Marked": marked,
}


def test_every_class_of_the_page_has_its_scenario() -> None:
    assert set(classes()) == set(SCENARIOS) and len(BLOCKS) == len(SCENARIOS)
    assert PAGE.count("```kamailio") == len(BLOCKS), "each beside its script"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_class_of_the_page_runs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    SCENARIOS[name](classes()[name], caplog)


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_variable_stands_in_the_table_and_is_there() -> None:
    named = set(re.findall(r"`\$(\w+)`", section("Pseudo-variables")))
    there = {name for name, value in vars(Variables).items() if type(value).__name__ == "Variable"}
    assert named == there | {"du", "rU", "null"}


def test_every_function_of_the_table_is_there() -> None:
    rows = [line.split("|")[1] for line in section("Functions").splitlines() if line.startswith("| `")]
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(names) > 35
    for name in names:
        of_routing = name.startswith("uac_reg_") or name in ("lookup", "registered", "save")
        owner = TrunkRouting if of_routing else ResponseContext
        assert callable(getattr(owner, name, None)), f"docs/routing.md names {name}, which is not there"


def test_every_hook_of_the_table_is_called_somewhere() -> None:
    hooks = re.findall(r"`(?:async def )?(\w+)\(self,", section("The hooks"))
    assert hooks == [
        "request_route", "failure_route", "branch_route", "onreply_route", "local_route", "event_uac_reply"
    ]
