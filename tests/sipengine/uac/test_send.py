"""`uac_req_send()` on the wire: what leaves, what is answered, what the event route hears."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.events import Target
from sipengine.message import Message, parse
from sipengine.testing import Station, Wire
from sipengine.uac.digest import Credentials
from sipengine.uac.send import MAX_UNDER_WAY, UacReply
from sipengine.uac.uac_req import UacRequest
from tests.sipengine.net import entropy_from, reply

US = ("192.0.2.5", 5060)
THEM = ("192.0.2.9", 5060)
REALM = "far.example"
PASSWORD = "s3cret"

Answer = Callable[[Message], "bytes | None"]


class Net:
    """An endpoint with two addresses, and a far side that answers by script."""

    def __init__(self, answer: Answer | None = None, **configuration: Any) -> None:
        self.wire = Wire()
        self.endpoint = Endpoint(
            Configuration(**configuration), application=lambda context: None, admission=lambda flow: True,
            entropy=entropy_from(b"send"),
        )
        for transport, host, port in (("udp", *US), ("tcp", *US), ("udp", "192.0.2.6", 5080)):
            self.endpoint.add_listener(transport, host, port)
        self.wire.attach(self.endpoint)
        self.heard: list[UacReply] = []
        self.ends: list[UacReply] = []
        self.endpoint.uac_requests.event_uac_reply = self.heard.append
        self.far = self.station(answer or answering(b"200 OK"))

    def station(self, answer: Answer, host: str = THEM[0], transport: str = "udp") -> Station:
        station = self.wire.station(host, 5060, transport)
        seen: dict[bytes, bytes | None] = {}

        def on_receive(data: bytes, source: tuple[str, int]) -> None:
            station.inbox.append(data)
            message = parse(data)
            if message.method == b"ACK":
                return
            key = message.via.branch + message.method
            if key not in seen:
                seen[key] = answer(message)
            if (sent := seen[key]) is not None:
                for part in sent.split(b"\0"):
                    station.send(part, source)

        station.on_receive = on_receive
        return station

    def send(self, seconds: float = 1.0, **keys: Any) -> UacRequest:
        uac_req = request(**keys)
        assert self.endpoint.uac_requests.begin(uac_req, self.ends.append)
        self.wire.run(seconds)
        return uac_req

    @property
    def sent(self) -> list[Message]:
        return [parse(data) for data in self.far.inbox]


def request(**keys: Any) -> UacRequest:
    uac_req = UacRequest()
    for key, value in {"method": "OPTIONS", "ruri": "sip:far@192.0.2.9", **keys}.items():
        uac_req[key] = value
    return uac_req


def answering(*statuses: bytes) -> Answer:
    """Each new request gets the next status, the last one for ever; b"" is silence."""
    left = list(statuses)

    def answer(message: Message) -> bytes | None:
        status = left.pop(0) if len(left) > 1 else left[0]
        return reply(message, status) if status else None

    return answer


def challenging(then: Answer, *challenges: tuple[bytes, list[bytes]], algorithm: str = "MD5", ha: str = "") -> Answer:
    """Ask once with each challenge, and check the digest of the last one."""
    left = list(challenges)

    def answer(message: Message) -> bytes | None:
        if left:
            status, headers = left.pop(0)
            return reply(message, status, b"pt", *headers)
        value = message.get(b"Authorization") or message.get(b"Proxy-Authorization")
        assert value is not None
        assert right(value.decode(), message, algorithm, ha), value
        return then(message)

    return answer


def www(nonce: str, more: str = "", algorithm: str = "") -> bytes:
    return f'WWW-Authenticate: Digest realm="{REALM}", nonce="{nonce}", qop="auth"{more}{algorithm}'.encode()


def proxy(nonce: str, realm: str = REALM) -> bytes:
    return f'Proxy-Authenticate: Digest realm="{realm}", nonce="{nonce}", qop="auth"'.encode()


def right(value: str, message: Message, algorithm: str = "MD5", ha1: str = "") -> bool:
    """Check a digest with code of our own."""

    def h(text: str) -> str:
        return hashlib.new(algorithm.replace("-", ""), text.encode()).hexdigest()

    field = dict(re.findall(r'(\w+)="?([^",]*)"?', value))
    ha1 = ha1 or h(f"{field['username']}:{field['realm']}:{PASSWORD}")
    ha2 = h(f"{message.method.decode()}:{message.ruri.decode()}")
    return field["response"] == h(f"{ha1}:{field['nonce']}:{field['nc']}:{field['cnonce']}:auth:{ha2}")


def test_the_shortest_request() -> None:
    net = Net()
    net.send()
    [options] = net.sent
    assert options.start == b"OPTIONS sip:far@192.0.2.9 SIP/2.0"
    assert options.from_.uri == options.to.uri == b"sip:far@192.0.2.9", "the Request-URI, as in the seed"
    assert options.from_.tag and not options.to.tag
    assert options.cseq == (10, b"OPTIONS")
    assert options.get(b"Max-Forwards") == b"70" and options.get(b"Content-Length") == b"0"
    assert options.get(b"Contact") is None
    [end] = net.ends
    assert (end.evcode, end.evtype, end.reason) == (200, 1, "OK")
    assert end.message is not None and end.message.status == 200
    assert net.heard == [], "evroute 0"
    assert net.endpoint.uac_requests.under_way == 0


@pytest.mark.rfc("3261", "8.1.1")
def test_every_key_of_the_message() -> None:
    net = Net()
    net.send(
        method="MESSAGE", furi='"Desk" <sip:desk@pbx.example>', turi="sip:to@far.example", ftag="f1", ttag="t1",
        callid="my-call@id", cseqno=77, hdrs="Content-Type: text/plain\r\nX-One: 1\r\n", body="grüße",
        sock="udp:192.0.2.6:5080", ruri="sip:x@far.example", ouri="sip:192.0.2.9",
    )  # fmt: skip
    [message] = net.sent
    assert message.start == b"MESSAGE sip:x@far.example SIP/2.0"
    assert message.line(b"from") == b'From: "Desk" <sip:desk@pbx.example>;tag=f1'
    assert message.line(b"to") == b"To: <sip:to@far.example>;tag=t1"
    assert (message.call_id, message.cseq) == (b"my-call@id", (77, b"MESSAGE"))
    assert message.get_all(b"Content-Type") == [b"text/plain"] and message.get(b"X-One") == b"1"
    assert message.body.decode() == "grüße" and message.get(b"Content-Length") == b"7"
    assert message.get(b"Route") is None, "ouri decides where it goes, and stands nowhere"
    assert net.wire.sent[0][1] == ("192.0.2.6", 5080)
    assert message.via.host == b"192.0.2.6"


def test_a_binary_body_leaves_as_it_is() -> None:
    net = Net()
    net.send(method="MESSAGE", hdrs="Content-Type: application/octet-stream", body=bytes(range(256)))
    assert net.sent[0].body == bytes(range(256))


def test_a_socket_of_another_transport_decides_for_a_uri_that_does_not() -> None:
    net = Net()
    far = net.station(answering(b"200 OK"), transport="tcp")
    net.send(sock="tcp:192.0.2.5:5060")
    assert len(far.inbox) == 1 and net.far.inbox == []
    assert parse(far.inbox[0]).start == b"OPTIONS sip:far@192.0.2.9 SIP/2.0", "the Request-URI stays"
    assert net.ends[0].evcode == 200


def test_a_socket_that_is_not_ours() -> None:
    net = Net()
    net.send(sock="udp:192.0.2.77:5060", evroute=1)
    [end] = net.heard
    assert (end.evcode, end.evtype) == (503, 2)
    assert end.reason == "No socket of ours reaches udp:192.0.2.9:5060 from udp:192.0.2.77:5060."


@pytest.mark.rfc("3261", "22.2")
@pytest.mark.parametrize(
    ("status", "header", "field"),
    [(b"401 Unauthorized", www("n1"), b"Authorization"), (b"407 Proxy", proxy("n1"), b"Proxy-Authorization")],
)
def test_its_own_challenge_is_answered(status: bytes, header: bytes, field: bytes) -> None:
    net = Net(challenging(answering(b"200 OK"), (status, [header])))
    net.send(
        method="INFO", auser="alice", apasswd=PASSWORD, callid="c1", ftag="f1", hdrs="X-One: 1\r\n",
        sock="udp:192.0.2.6:5080", evroute=1,
    )  # fmt: skip
    first, second = net.sent
    assert first.get(field) is None and second.get(field) is not None
    assert (first.cseq[0], second.cseq[0]) == (10, 11)
    assert first.call_id == second.call_id and first.line(b"from") == second.line(b"from")
    assert not second.to.tag, "the challenge's To tag is not taken over"
    assert second.get(b"X-One") == b"1"
    assert first.via.branch != second.via.branch
    assert [sent[1] for sent in net.wire.sent if sent[2] == THEM] == [("192.0.2.6", 5080)] * 2, "the socket stays"
    [end] = net.heard
    assert (end.evcode, end.evtype) == (200, 1), "the event comes once, with the last answer"


def test_the_default_socket_holds_for_the_repeat_too() -> None:
    net = Net(challenging(answering(b"200 OK"), (b"401 U", [www("n1")])), default_socket="udp:192.0.2.6:5080")
    net.send(auser="alice", apasswd=PASSWORD)
    assert [sent[1] for sent in net.wire.sent if sent[2] == THEM] == [("192.0.2.6", 5080)] * 2


def test_401_and_407_one_after_the_other() -> None:
    def then(message: Message) -> bytes:
        assert message.get(b"Authorization") and message.get(b"Proxy-Authorization")
        return reply(message, b"202 Accepted")

    net = Net(challenging(then, (b"407 P", [proxy("p", "proxy.example")]), (b"401 U", [www("w")])))
    net.send(auser="alice", apasswd=PASSWORD)
    assert [message.cseq[0] for message in net.sent] == [10, 11, 12]
    assert net.ends[0].evcode == 202


def test_each_realm_is_answered_with_its_own_credentials() -> None:
    def then(message: Message) -> bytes:
        assert b'username="proxy-user"' in (message.get(b"Proxy-Authorization") or b"")
        assert b'username="alice"' in (message.get(b"Authorization") or b"")
        return reply(message, b"200 OK")

    net = Net(challenging(then, (b"407 P", [proxy("p", "proxy.example")]), (b"401 U", [www("w")])))
    means = [
        Credentials(b"proxy-user", b"other", realm=b"proxy.example"),
        Credentials(b"alice", PASSWORD.encode(), realm=REALM.encode()),
    ]
    net.endpoint.uac_requests.begin(request(), net.ends.append, means)
    net.wire.run(1)
    assert net.ends[0].evcode == 200


def test_a_stale_nonce_is_taken_up_again() -> None:
    net = Net(challenging(answering(b"200 OK"), (b"401 U", [www("n1")]), (b"401 U", [www("n2", ", stale=true")])))
    net.send(auser="alice", apasswd=PASSWORD)
    assert len(net.sent) == 3 and net.ends[0].evcode == 200


def test_a_wrong_password_ends_at_the_second_refusal() -> None:
    net = Net(answering_always_401())
    net.send(auser="alice", apasswd="wrong", evroute=2)
    assert len(net.sent) == 3, "another nonce gets one more try"
    [end] = net.heard
    assert (end.evcode, end.evtype, end.outcome.cause) == (401, 1, "wrong_password")


def answering_always_401() -> Answer:
    nonces = iter(range(100))
    return lambda message: reply(message, b"401 Unauthorized", b"pt", www(f"n{next(nonces)}"))


def test_without_credentials_the_challenge_is_the_answer() -> None:
    net = Net(answering_always_401())
    net.send(evroute=1)
    assert len(net.sent) == 1 and net.heard[0].evcode == 401


def test_the_first_challenge_that_we_can_answer_is_taken() -> None:
    headers = [b'WWW-Authenticate: Digest realm="x", nonce="1", algorithm=AKAv1-MD5', www("n1")]
    net = Net(challenging(answering(b"200 OK"), (b"401 U", headers)))
    net.send(auser="alice", apasswd=PASSWORD)
    assert net.ends[0].evcode == 200


@pytest.mark.parametrize(("algorithm", "digits"), [("MD5", 32), ("SHA-256", 64)])
def test_an_ha1_answers_for_a_password(algorithm: str, digits: int) -> None:
    ha1 = hashlib.new(algorithm.replace("-", ""), f"alice:{REALM}:{PASSWORD}".encode()).hexdigest()
    assert len(ha1) == digits
    headers = [www("n0", algorithm=f", algorithm={name}") for name in ("SHA-256", "MD5")]
    net = Net(challenging(answering(b"200 OK"), (b"401 U", headers), algorithm=algorithm, ha=ha1))
    net.send(auser="alice", apasswd=ha1, flags=1)
    assert net.ends[0].evcode == 200
    assert f"algorithm={algorithm}" in (net.sent[1].get(b"Authorization") or b"").decode()


def test_a_realm_keeps_the_credentials_from_others() -> None:
    net = Net(answering_always_401())
    credentials = Credentials(b"a", b"b", realm=b"mine.example")
    net.endpoint.uac_requests.begin(request(), net.ends.append, [credentials])
    net.wire.run(1)
    assert len(net.sent) == 1 and net.ends[0].outcome.cause == "realm_mismatch"


def test_credentials_of_somebody_else_stand_for_the_keys() -> None:
    net = Net(challenging(answering(b"200 OK"), (b"401 U", [www("n1")])))
    credentials = Credentials(b"alice", PASSWORD.encode(), realm=REALM.encode())
    net.endpoint.uac_requests.begin(request(auser="x", apasswd="y"), net.ends.append, [credentials])
    net.wire.run(1)
    assert net.ends[0].evcode == 200


@pytest.mark.rfc("3261", "8.1.3.1")
def test_silence_is_408_and_a_dead_name_503() -> None:
    net = Net(lambda message: None)
    net.send(40, evroute=1, evparam="ping 7")
    net.send(1, evroute=1, ruri="sip:nowhere.example")
    silent, dead = net.heard
    assert (silent.evcode, silent.evtype, silent.evparam, silent.message) == (408, 2, "ping 7", None)
    assert silent.reason == "No final answer came in time."
    assert silent.outcome.at == pytest.approx(32, abs=0.1), "Timer F"
    assert (dead.evcode, dead.evtype, dead.reason) == (503, 2, "nowhere.example has no address")


@pytest.mark.parametrize("evroute", [0, 1, 2])
@pytest.mark.parametrize(("status", "code", "evtype"), [(b"200 OK", 200, 1), (b"404 No", 404, 1), (b"", 408, 2)])
def test_evroute(evroute: int, status: bytes, code: int, evtype: int) -> None:
    net = Net(answering(status))
    net.send(40, evroute=evroute, evparam="mine")
    told = [(end.evcode, end.evtype, end.evparam) for end in net.heard]
    assert told == ([(code, evtype, "mine")] if evroute == 1 or (evroute == 2 and code >= 300) else [])


def test_evroute_2_answers_challenges_too() -> None:
    net = Net(challenging(answering(b"486 Busy"), (b"401 U", [www("n1")])))
    net.send(evroute=2, auser="alice", apasswd=PASSWORD)
    assert [end.evcode for end in net.heard] == [486]


def test_the_event_has_the_keys_of_its_own_request() -> None:
    net = Net()
    uac_req = request(evroute=1, evparam="one")
    net.endpoint.uac_requests.send(uac_req)
    uac_req["all"] = None
    uac_req.method = "INFO"
    net.wire.run(1)
    [end] = net.heard
    assert (end.uac_req.method, end.uac_req["evparam"], end.uac_req["evcode"]) == ("OPTIONS", "one", 200)
    end.uac_req.method = "MESSAGE"
    assert uac_req.method == "INFO"


def test_the_event_route_may_send_again() -> None:
    net = Net()

    def event_uac_reply(end: UacReply) -> None:
        net.heard.append(end)
        if end.uac_req.method == "OPTIONS":
            end.uac_req.method = "INFO"
            end.uac_req_send()

    net.endpoint.uac_requests.event_uac_reply = event_uac_reply
    net.send(evroute=1)
    assert [message.method for message in net.sent] == [b"OPTIONS", b"INFO"] and len(net.heard) == 2


def test_an_event_route_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    net = Net()

    def event_uac_reply(end: UacReply) -> None:
        raise RuntimeError("a fault of its author")

    net.endpoint.uac_requests.event_uac_reply = event_uac_reply
    net.send(evroute=1, auser="a", apasswd="s3cret")
    assert net.endpoint.counters.hook_failures == 1 and net.ends[0].evcode == 200
    assert "event_route[uac:reply] failed for <UacRequest OPTIONS" in caplog.text and "s3cret" not in caplog.text


@pytest.mark.parametrize("method", ["OPTIONS", "INVITE"])
def test_fr_timeout_is_the_time_of_each_target(method: str) -> None:
    net = Net(lambda message: None)
    net.station(answering(b"200 OK"), "192.0.2.10")
    net.wire.hosts["far.example"] = [Target("udp", THEM), Target("udp", ("192.0.2.10", 5060))]
    net.send(10, method=method, ruri="sip:far.example", fr_timeout=700)
    [end] = net.ends
    assert end.evcode == 200 and end.outcome.at == pytest.approx(0.702, abs=0.01)
    assert not net.endpoint.rests.resting, "the caller was in a hurry; the target has done no wrong"


def test_nothing_is_repeated_after_fr_timeout() -> None:
    net = Net(lambda message: None)
    net.send(40, fr_timeout=700, evroute=2)
    assert len(net.far.inbox) == 2, "at 0 and 0.5 s"
    assert [(end.evcode, end.evtype) for end in net.heard] == [(408, 2)]
    assert net.endpoint.live["client_transactions"] == 0


@pytest.mark.rfc("3263", "4.3")
def test_the_next_target_is_asked_after_503_and_silence() -> None:
    net = Net(answering(b"503 Busy"))
    net.station(lambda message: None, "192.0.2.10")
    net.station(answering(b"200 OK"), "192.0.2.11")
    net.wire.hosts["far.example"] = [Target("udp", (f"192.0.2.{n}", 5060)) for n in (9, 10, 11)]
    net.send(60, ruri="sip:far.example")
    assert net.ends[0].evcode == 200
    target = net.ends[0].outcome.target
    assert target is not None and target.address[0] == "192.0.2.11"


@pytest.mark.rfc("3261", "13.2.2.4")
def test_an_invite_that_is_taken_is_ended() -> None:
    def answer(message: Message) -> bytes:
        if message.method == b"INVITE":
            ok = reply(message, b"200 OK", b"t1", b"Contact: <sip:there@192.0.2.9>")
            return reply(message, b"180 Ringing", b"t1") + b"\0" + ok + b"\0" + ok
        return reply(message, b"200 OK")

    net = Net(answer)
    net.send(5, method="INVITE", evroute=1)
    invite, *rest = net.sent
    assert invite.contacts[0].uri == b"sip:192.0.2.5:5060"
    assert [message.method for message in rest] == [b"ACK", b"BYE", b"ACK"]
    ack, bye = rest[:2]
    assert ack.start == b"ACK sip:there@192.0.2.9 SIP/2.0" and ack.cseq == (10, b"ACK")
    assert bye.cseq == (11, b"BYE") and bye.to.tag == b"t1" and bye.call_id == invite.call_id
    assert [end.evcode for end in net.heard] == [200]
    net.wire.run(70)
    assert net.endpoint.live["client_transactions"] == 0


@pytest.mark.rfc("3261", "13.2.2.4")
def test_its_ack_has_the_credentials_and_its_bye_answers_a_challenge_once() -> None:
    asked: list[bytes] = []
    lenient = True

    def answer(message: Message) -> bytes:
        value = message.get(b"Proxy-Authorization")
        if value is None or (message.method == b"BYE" and not lenient):
            asked.append(message.method)
            return reply(message, b"407 Proxy", b"t1", proxy(f"n{len(asked)}"))
        assert right(value.decode(), message)
        return reply(message, b"200 OK", b"t1", b"Contact: <sip:there@192.0.2.9>")

    net = Net(answer)
    net.send(5, method="INVITE", auser="alice", apasswd=PASSWORD)
    sent = [(message.method, message.cseq[0]) for message in net.sent]
    assert sent == [
        (b"INVITE", 10), (b"ACK", 10), (b"INVITE", 11), (b"ACK", 11), (b"BYE", 12), (b"BYE", 13),
    ]  # fmt: skip
    invite, ack = net.sent[2:4]
    assert ack.get(b"Proxy-Authorization") == invite.get(b"Proxy-Authorization") is not None
    assert net.sent[4].get(b"Proxy-Authorization") is None and asked == [b"INVITE", b"BYE"]
    lenient = False
    net.send(5, method="INVITE", auser="alice", apasswd=PASSWORD)
    # the INVITE's nonce is good again; a BYE that is refused ends there
    assert asked == [b"INVITE", b"BYE", b"BYE", b"BYE"]


@pytest.mark.rfc("3261", "22.2")
def test_an_invite_is_challenged_and_refused() -> None:
    net = Net(challenging(answering(b"486 Busy Here"), (b"407 P", [proxy("n1")])))
    net.send(method="INVITE", auser="alice", apasswd=PASSWORD, evroute=1)
    assert [(m.method, m.cseq[0]) for m in net.sent] == [
        (b"INVITE", 10), (b"ACK", 10), (b"INVITE", 11), (b"ACK", 11),
    ]  # fmt: skip
    assert [end.evcode for end in net.heard] == [486]


@pytest.mark.parametrize(("fr_inv_timeout", "seconds"), [(0, 120), (3000, 3)])
def test_an_invite_that_rings_on_is_cancelled(fr_inv_timeout: int, seconds: float) -> None:
    def answer(message: Message) -> bytes:
        return reply(message, b"180 Ringing" if message.method == b"INVITE" else b"200 OK")

    net = Net(answer)
    net.send(seconds + 1, method="INVITE", fr_timeout=500, fr_inv_timeout=fr_inv_timeout, evroute=1)
    assert [message.method for message in net.sent] == [b"INVITE", b"CANCEL"]
    [end] = net.heard
    assert (end.evcode, end.evtype) == (408, 2)
    assert end.outcome.at == pytest.approx(seconds, abs=0.01)


def test_a_call_that_rang_rings_nowhere_else() -> None:
    net = Net(lambda message: reply(message, b"180 Ringing" if message.method == b"INVITE" else b"200 OK"))
    other = net.station(answering(b"200 OK"), "192.0.2.10")
    net.wire.hosts["far.example"] = [Target("udp", THEM), Target("udp", ("192.0.2.10", 5060))]
    net.send(10, method="INVITE", ruri="sip:far.example", fr_inv_timeout=3000)
    assert other.inbox == [] and net.ends[0].evcode == 408


def test_the_time_to_ring_ends_with_the_target_that_rang() -> None:
    net = Net(lambda message: reply(message, b"180 Ringing") + b"\0" + reply(message, b"503 Busy"))
    net.station(lambda message: None, "192.0.2.10")
    net.wire.hosts["far.example"] = [Target("udp", THEM), Target("udp", ("192.0.2.10", 5060))]
    net.send(60, method="INVITE", ruri="sip:far.example", fr_inv_timeout=3000)
    assert net.ends[0].outcome.at == pytest.approx(32, abs=0.1), "Timer B of the second"


def test_a_request_may_be_abandoned() -> None:
    net = Net(lambda message: None)
    exchange = net.endpoint.uac_requests.begin(request(), net.ends.append)
    assert exchange is not None
    net.wire.run(1)
    exchange.abandon(net.wire.now)
    exchange.abandon(net.wire.now)
    net.wire.run(40)
    assert len(net.ends) == 1 and net.ends[0].evcode == 408
    assert len(net.far.inbox) == 2 and net.endpoint.uac_requests.under_way == 0


def test_the_bound_on_requests_under_way() -> None:
    net = Net(lambda message: None)
    sent = [net.endpoint.uac_requests.begin(request(), net.ends.append) for _ in range(MAX_UNDER_WAY + 2)]
    assert None not in sent[:MAX_UNDER_WAY] and sent[MAX_UNDER_WAY:] == [None] * 2
    assert not net.endpoint.uac_requests.send(request())
    assert net.endpoint.counters.unsent == 3
    net.wire.run(60)
    assert len(net.ends) == MAX_UNDER_WAY and net.endpoint.uac_requests.under_way == 0
    assert net.endpoint.uac_requests.send(request())


def test_keys_that_make_no_request_send_nothing() -> None:
    net = Net()
    with pytest.raises(ValueError, match="must be set"):
        net.endpoint.uac_requests.send(UacRequest())
    net.wire.run(1)
    assert net.wire.sent == [] and net.endpoint.uac_requests.under_way == 0


def test_local_route_edits_it_and_a_careless_one_ends() -> None:
    net = Net(lambda message: None)

    def local_route(message: Message, flow: object) -> None:
        message.append(b"X-Mark: 1")
        net.endpoint.uac_requests.send(request())  # each request sends another

    net.endpoint.local_route = local_route
    net.send(5)
    assert net.sent[0].get(b"X-Mark") == b"1"
    assert net.endpoint.uac_requests.under_way == MAX_UNDER_WAY and net.endpoint.counters.unsent
