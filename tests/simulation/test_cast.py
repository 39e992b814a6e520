"""The pretend peers among themselves: digest is really checked, calls are really set up and ended."""

from __future__ import annotations

import asyncio
import time

import pytest

from simulation.pbx import Pbx
from simulation.peer import Address, Peer
from simulation.provider import Mood, Provider
from simulation.registrar import Bound
from sipengine.message import Message
from sipengine.uac.digest import Credentials, answer, parse_challenge


class Customer(Peer):
    """Registers once, as it is told, and keeps the answers."""

    def __init__(self) -> None:
        super().__init__("127.0.0.20")
        self.answers: asyncio.Queue[Message] = asyncio.Queue()

    def on_response(self, message: Message) -> None:
        self.answers.put_nowait(message)

    async def register(self, provider: Provider, user: str, password: str) -> Message:
        challenge = await self._send(provider, user, 1)
        if challenge.status != 401:
            return challenge
        header = answer(
            parse_challenge(challenge.get(b"WWW-Authenticate") or b""), Credentials(user.encode(), password.encode()),
            b"REGISTER", b"sip:" + provider.domain.encode(), cnonce=b"c0ffee",
        )
        return await self._send(provider, user, 2, header)

    async def _send(self, provider: Provider, user: str, cseq: int, *more: tuple[bytes, bytes]) -> Message:
        aor = f"<sip:{user}@{provider.domain}>".encode()
        headers = [
            (b"From", aor + b";tag=1"), (b"To", aor), (b"Call-ID", user.encode()), (b"CSeq", b"%d REGISTER" % cseq),
            (b"Contact", b"<sip:%b@127.0.0.20:%d>" % (user.encode(), self.port)), (b"Expires", b"3600"), *more,
        ]
        message = self.request(b"REGISTER", b"sip:" + provider.domain.encode(), headers)
        self.send(message.serialize(), (provider.host, provider.port))
        return await asyncio.wait_for(self.answers.get(), 2)


def run(provider: Provider, user: str = "4711", password: str = "right") -> Message:
    async def main() -> Message:
        customer = Customer()
        await provider.open()
        await customer.open()
        try:
            return await customer.register(provider, user, password)
        finally:
            provider.close()
            customer.close()

    return asyncio.run(main())


def test_a_right_password_is_granted_for_a_while() -> None:
    provider = Provider("127.0.0.21", "sip.example", {"4711": "right"}, grant=60)
    message = run(provider)
    assert message.status == 200
    assert (message.get(b"Contact") or b"").endswith(b";expires=60")
    [contact] = provider.registrar.tables[b"4711"]
    assert contact.startswith(b"sip:4711@127.0.0.20:")


def test_a_wrong_password_is_challenged_again() -> None:
    provider = Provider("127.0.0.21", "sip.example", {"4711": "right"})
    assert run(provider, password="wrong").status == 401
    assert not provider.registrar.tables[b"4711"]


def test_an_unknown_user_is_told_so() -> None:
    assert run(Provider("127.0.0.21", "sip.example", {}), user="4712").status == 404


def test_an_overloaded_provider_says_when_to_come_back() -> None:
    message = run(Provider("127.0.0.21", "sip.example", {"4711": "right"}, mood=Mood.OVERLOADED))
    assert message.status == 503
    assert message.get(b"Retry-After") == b"45"


def test_calls_are_set_up_and_ended_by_either_side() -> None:
    """Forty calls at a pace of their own, played with every random length cut to nothing."""

    class Hurried(Provider):
        def later(self, seconds: float, *rest: object) -> asyncio.TimerHandle:  # type: ignore[override]
            return super().later(seconds / 50, *rest)  # type: ignore[arg-type]

    class HurriedPbx(Pbx):
        methods: list[bytes] = []

        def later(self, seconds: float, *rest: object) -> asyncio.TimerHandle:  # type: ignore[override]
            return super().later(seconds / 50, *rest)  # type: ignore[arg-type]

        def on_request(self, message: Message, source: Address) -> None:
            self.methods.append(message.method)
            super().on_request(message, source)

    async def main() -> None:
        provider, pbx = Hurried("127.0.0.21", "sip.example", {}), HurriedPbx("127.0.0.22")
        await provider.open()
        await pbx.open()
        contact = f"sip:4711@127.0.0.22:{pbx.port}".encode()
        provider.registrar.tables[b"4711"] = {contact: Bound(b"c", 1, time.monotonic() + 60)}
        for _ in range(40):
            provider.call_somebody()
        end = time.monotonic() + 5
        while (provider.calls or pbx.calls) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        provider.close()
        pbx.close()
        assert not provider.calls and not pbx.calls, "calls are still up"
        assert pbx.answered > 20
        assert {b"INVITE", b"ACK", b"BYE", b"CANCEL"} <= set(pbx.methods)

    asyncio.run(main())


def test_nothing_is_sent_outside_the_loopback() -> None:
    async def main() -> None:
        peer = Peer("127.0.0.23")
        await peer.open()
        try:
            with pytest.raises(ValueError, match="outside"):
                peer.send(b"OPTIONS", ("192.0.2.1", 5060))
        finally:
            peer.close()

    asyncio.run(main())
