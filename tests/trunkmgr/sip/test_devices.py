"""Devices through the product's routing: who may register from where, and calls that ring what is registered."""

from __future__ import annotations

from typing import Any

import pytest

from sipengine.message import Message, parse
from sipengine.registrar.registrar import Device
from sipengine.testing import Station
from sipengine.uac.digest import Credentials, answer, parse_challenge
from tests.sipengine.net import PHONE, STRANGER, reply
from tests.trunkmgr.sip.net import DOMAIN, TrunkNet, account, trunk
from trunkmgr.sip.registrar import open_registrar
from trunkmgr.sip.routing import TrunkRouting
from trunkmgr.sip.snapshot import Pbx, Peers

SECRET = Credentials(b"100", b"wonder")
AOR = f"100@{DOMAIN}"
HOME = ("198.51.100.7", 5062)
DESK = ("198.51.100.8", 5062)


class DeviceNet(TrunkNet):
    """`pbx.example` has no next hop: its calls ring the device 100."""

    def __init__(self, routing: type[TrunkRouting] = TrunkRouting, devices_from: str = "198.51.100.0/24") -> None:
        super().__init__(routing, trunk(account()), trunk(account("acc2", l_username="200", r_username="49302")))
        self.admission.swap(self.admission.snapshot.patched(
            domains={DOMAIN: Pbx(b"", Peers()), "other.example": Pbx(b"sip:192.0.2.77", Peers(frozenset({PHONE[0]})))},
            devices={AOR: Device(AOR, SECRET, 3)},
        ))
        open_registrar(self.endpoint, self.admission, [devices_from] if devices_from else [])
        self.numbers = 0

    def station(self, address: tuple[str, int] = HOME, transport: str = "udp") -> Station:
        return self.wire.station(*address, transport)

    def register(self, station: Station, contact: bytes = b"", extra: bytes = b"", secret: Any = SECRET) -> Message:
        """Register as phones do; returns the last answer."""
        host, port = station.address
        contact = contact or b"<sip:100@%b:%d>" % (host.encode(), port)
        authorization = b""
        for _ in range(2):
            self.numbers += 1
            self.send(station, self._request(station, contact, extra + authorization))
            got = parse(station.take()[-1])
            challenge = got.get(b"WWW-Authenticate")
            if challenge is None:
                break
            name, value = answer(
                parse_challenge(challenge), secret, b"REGISTER", b"sip:pbx.example", cnonce=b"c", nc=1
            )
            authorization = name + b": " + value + b"\r\n"
        return got

    def _request(self, station: Station, contact: bytes, extra: bytes) -> bytes:
        return (
            b"REGISTER sip:pbx.example SIP/2.0\r\n"
            b"Via: SIP/2.0/%b %b:%d;rport;branch=z9hG4bKreg%d\r\n"
            b"From: <sip:100@pbx.example>;tag=f\r\nTo: <sip:100@pbx.example>\r\n"
            b"Call-ID: %b\r\nCSeq: %d REGISTER\r\nContact: %b\r\nMax-Forwards: 70\r\n"
            b"User-Agent: phone/1.0\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY, UPDATE, INFO\r\n"
            b"%bContent-Length: 0\r\n\r\n"
        ) % (
            station.transport.upper().encode(), station.address[0].encode(), station.address[1], self.numbers,
            b"%b-%d" % (station.address[0].encode(), station.address[1]), self.numbers, contact, extra,
        )

    def called(self, *stations: Station, user: bytes = b"acc1") -> list[list[Message]]:
        """What each station gets of a call from the provider."""
        self.numbers += 1
        self.send(self.provider, self.invite(b"call%d" % self.numbers, user=user))
        return [[parse(data) for data in station.take()] for station in stations]

    @property
    def answered(self) -> list[int]:
        return [parse(data).status for data in self.provider.take()]


def test_a_device_registers_and_a_call_rings_it() -> None:
    net = DeviceNet()
    phone = net.station()
    assert net.register(phone).status == 200
    [[invite]] = net.called(phone)
    assert invite.ruri == b"sip:100@198.51.100.7:5062"
    net.send(phone, reply(invite, b"486 Busy Here", b"t"))
    assert net.answered[-1] == 486


def test_an_unknown_user_is_404_and_nobody_registered_480() -> None:
    net = DeviceNet()
    net.called(user=b"acc2")
    assert net.answered[-1] == 404
    net.called()
    assert net.answered[-1] == 480
    phone = net.station()
    net.register(phone)
    net.register(phone, extra=b"Expires: 0\r\n")
    net.called()
    assert net.answered[-1] == 480


@pytest.mark.checklist("H19")
def test_a_number_of_a_bulk_registration_rings_the_device_of_that_name() -> None:
    net = DeviceNet()
    net.admission.swap(net.admission.snapshot.patched({"bulk": trunk(account("bulk", gin=True, l_username="pbx"))}))
    phone = net.station()
    net.register(phone)
    assert [invite.ruri for [invite] in net.called(phone, user=b"100")] == [b"sip:100@198.51.100.7:5062"]
    net.called(user=b"+498912345")
    assert net.answered[-1] == 404


@pytest.mark.checklist("M5")
def test_strangers_may_register_from_configured_networks_only() -> None:
    elsewhere = DeviceNet(devices_from="")
    phone = elsewhere.station()
    elsewhere.send(phone, elsewhere._request(phone, b"<sip:100@198.51.100.7>", b""))
    assert not phone.take()
    net = DeviceNet()
    stranger = net.station(STRANGER)
    net.send(stranger, net._request(stranger, b"<sip:100@203.0.113.66>", b""))
    assert not stranger.take()
    home = net.station()
    invite = net.invite(b"x", user=b"acc1")
    net.send(home, invite)
    assert not home.take()  # nothing but REGISTER
    net.admission.swap(net.admission.snapshot.patched(devices={AOR: None}))
    net.send(home, net._request(home, b"<sip:100@198.51.100.7>", b""))
    assert not home.take()  # no devices, no registrar


@pytest.mark.checklist("M5")
def test_a_wrong_password_binds_nothing() -> None:
    net = DeviceNet()
    phone = net.station()
    assert net.register(phone, secret=Credentials(b"100", b"Wonder")).status == 401
    assert not len(net.endpoint.location) and net.endpoint.counters.unauthorized == 1
    net.called()
    assert net.answered[-1] == 480


def test_while_it_is_registered_a_device_calls_out_by_the_accounts_of_its_domain() -> None:
    net = DeviceNet()
    phone = net.station()
    call = net.request(
        b"INVITE", b"sip:+49401@192.0.2.5", b"<sip:100@pbx.example>;tag=o", b"<sip:+49401@192.0.2.5>", b"out", 1,
        extra=b"Contact: <sip:100@198.51.100.7:5062>\r\n", host=b"198.51.100.7:5062",
    )  # fmt: skip
    net.send(phone, call)
    assert not net.provider.take() and not phone.take()
    net.register(phone)
    net.send(phone, call.replace(b"branch=", b"branch=z9hG4bK2"))
    assert parse(net.provider.take()[-1]).ruri == b"sip:+49401@sip.provider.example"
    assert not net.admission.serves("other.example", HOME[0]) and net.admission.serves(DOMAIN, HOME[0])
    net.register(phone, extra=b"Expires: 0\r\n")
    assert not net.admission.kind(HOME[0]) and not net.admission.serves(DOMAIN, HOME[0])


def test_contacts_of_one_q_ring_together_and_lower_ones_after_them() -> None:
    net = DeviceNet()
    home, desk, last = net.station(), net.station(DESK), net.station(("198.51.100.9", 5062))
    for phone, q in ((home, b"0.9"), (desk, b"0.9"), (last, b"0.1")):
        host, port = phone.address
        net.register(phone, b"<sip:100@%b:%d>;q=%b" % (host.encode(), port, q))
    first, second, third = net.called(home, desk, last)
    assert len(first) == len(second) == 1 and not third
    net.send(home, reply(first[0], b"486 Busy Here", b"a"))
    assert not last.take()
    net.send(desk, reply(second[0], b"480 Away", b"b"))
    [invite] = [parse(data) for data in last.take() if data.startswith(b"INVITE")]
    net.send(last, reply(invite, b"200 OK", b"c", b"Contact: <sip:100@198.51.100.9:5062>"))
    assert net.answered[-1] == 200


def test_a_decline_for_all_ends_the_search() -> None:
    net = DeviceNet()
    home, desk = net.station(), net.station(DESK)
    net.register(home)
    net.register(desk, b"<sip:100@198.51.100.8:5062>;q=0.1")
    [invite], _ = net.called(home, desk)
    net.send(home, reply(invite, b"603 Decline", b"a"))
    assert net.answered[-1] == 603 and not desk.take()


@pytest.mark.rfc("3327", "5.3")
def test_path_is_the_route_of_its_branch() -> None:
    class Own(TrunkRouting):
        def branch_route(self, context: Any) -> None:
            context.append_hf(b"X-Own: 1")

    net = DeviceNet(Own)
    edge, desk = net.station(), net.station(DESK)
    net.register(edge, b"<sip:100@10.0.0.5>", b"Path: <sip:198.51.100.7:5062;lr>\r\nSupported: path\r\n")
    net.register(desk)
    [through], [straight] = net.called(edge, desk)
    assert through.ruri == b"sip:100@10.0.0.5" and through.get_list(b"Route") == [b"<sip:198.51.100.7:5062;lr>"]
    assert not straight.get_list(b"Route") and straight.get(b"X-Own") == through.get(b"X-Own") == b"1"


@pytest.mark.rfc("5626", "5.3")
def test_a_device_on_tcp_is_called_over_its_connection() -> None:
    net = DeviceNet()
    net.endpoint.transport.listeners.reverse()
    phone = net.station((HOME[0], 40123), "tcp")
    net.register(phone, b"<sip:100@10.0.0.5:5060;transport=tcp>")
    [[invite]] = net.called(phone)
    assert invite.ruri == b"sip:100@10.0.0.5:5060;transport=tcp" and invite.via.transport == b"TCP"
    net.send(phone, reply(invite, b"200 OK", b"t", b"Contact: <sip:100@10.0.0.5:5060;transport=tcp>"))
    ok = parse(net.provider.take()[-1])
    for method, number in ((b"ACK", 1), (b"BYE", 2)):
        net.send(net.provider, within(net, ok, method, number))
        [got] = [parse(data) for data in phone.take()]
        assert (got.method, got.ruri, got.via.transport) == (method, invite.ruri, b"TCP")


def within(net: DeviceNet, ok: Message, method: bytes, number: int) -> bytes:
    """What the provider says within the call that `ok` answered."""
    head = b"%b %b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=%b\r\nMax-Forwards: 70\r\n" % (
        method, ok.contacts[0].uri, net.branch()
    )
    routes = b"".join(b"Route: %b\r\n" % value for value in reversed(ok.get_list(b"Record-Route")))
    rest = b"From: %b\r\nTo: %b\r\nCall-ID: %b\r\nCSeq: %d %b\r\nContent-Length: 0\r\n\r\n" % (
        ok.get(b"From") or b"", ok.get(b"To") or b"", ok.call_id, number, method
    )
    return head + routes + rest


@pytest.mark.checklist("M5")
def test_no_device_names_a_peer_of_ours() -> None:
    net = DeviceNet()
    phone = net.station()
    assert net.register(phone, b"<sip:100@192.0.2.1:5060>").status == 403  # the provider
    assert net.register(phone, b"<sip:100@192.0.2.5:5060>").status == 403  # ourselves
