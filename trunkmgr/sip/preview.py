"""What would be sent for an account, byte by byte: the order `preview`.

Made by the engine itself on an endpoint without sockets (`dry_run`), from the same picture, listeners and resolver.
Only what is drawn anew for each request differs on the wire: Call-ID, tags, branch, nonces.  Digests are masked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sipengine.events import Target
from sipengine.exceptions import ResolutionError
from sipengine.message.message import Message, parse
from sipengine.transport.flow import Flow
from trunkmgr.causes import explain
from trunkmgr.sip.dry_run import PATIENCE, DryRun
from trunkmgr.sip.snapshot import Trunk

Result = dict[str, Any]

#: What a number looks like that nobody has.
NUMBER = "+493023125000"

_DIGEST = re.compile(rb'(response=")[^"]*')


class Preview:
    """The requests of one account; `worker` is its owner."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    async def run(self, asked: Mapping[str, Any]) -> Result:
        """Return `{"ok", "message", "requests": [{"title", "goes_to", "text"}], "remarks": […]}`.

        `asked` names the account by `l_uuid`, and with `number` whom it calls.
        """
        l_uuid = str(asked.get("l_uuid", ""))
        trunk = self._worker.admission.snapshot.trunks.get(l_uuid)
        if trunk is None:
            return {"ok": False, "message": f"The account {l_uuid} is not at this worker."}
        requests: list[Result] = []
        remarks: list[str] = []
        await self._register(trunk, requests, remarks)
        await self._invite(trunk, str(asked.get("number") or NUMBER), requests, remarks)
        return {
            "ok": bool(requests), "message": "" if requests else " ".join(remarks), "requests": requests,
            "remarks": remarks,
        }

    async def _register(self, trunk: Trunk, requests: list[Result], remarks: list[str]) -> None:
        account = replace(trunk.account, enabled=True, reg_delay=0)
        if not account.expires:
            remarks.append("It has expires 0, so it never registers.")
            return
        dry = DryRun(self._worker)
        endpoint, now = dry.endpoint, time.monotonic()
        registrations = endpoint.registrations
        registrations.requests.open_listener = self._worker.endpoint.registrations.requests.open_listener
        registrations.change(account, now)
        await dry.settle(now + PATIENCE)
        if not endpoint.out:
            state = registrations.snapshot(account.l_uuid)
            cause = state.cause if state is not None else ""
            text = explain(cause, None, "", {"host": trunk.registrar}) if cause else None
            remarks.append(f"No REGISTER leaves. {text.sentence} {text.fix}" if text else "No REGISTER leaves now.")
            return
        data, flow = endpoint.out.pop()
        requests.append(_told("REGISTER", data, flow))
        challenge = _challenge(parse(data, False), trunk)
        endpoint.receive(challenge, flow, time.monotonic(), flow.listener.transport != "udp")
        if endpoint.out and not endpoint.out[-1][0].startswith(b"SIP/2.0"):
            requests.append(_told("REGISTER, after a challenge", *endpoint.out[-1]))

    async def _invite(self, trunk: Trunk, number: str, requests: list[Result], remarks: list[str]) -> None:
        account, picture = trunk.account, self._worker.admission.snapshot
        next_hop = picture.next_hop(account.l_domain)
        if not next_hop:
            remarks.append(f"No INVITE is shown: the domain {account.l_domain} has no PBX as its next hop.")
            return
        pbx = await self._first(next_hop)
        if pbx is None:
            remarks.append(f"No INVITE is shown: {next_hop.decode(errors='replace')} leads nowhere now.")
            return
        transports = [listener.transport for listener in self._worker.endpoint.listeners]
        dry = DryRun(self._worker)
        told = await dry.run({
            "source": pbx.address[0], "method": "INVITE", "ruri": f"sip:{number}@{account.l_domain}",
            "furi": f"sip:{account.l_uuid}@{account.l_domain}",
            "transport": pbx.transport if pbx.transport in transports else transports[0],
        })
        sent = [(data, flow) for data, flow in dry.endpoint.out if not data.startswith(b"SIP/2.0")]
        if sent:
            requests.append(_told("INVITE of its PBX, without the PBX's own lines and body", *sent[0]))
        else:
            remarks.append(f"No INVITE leaves. {told['message']}")

    async def _first(self, uri: bytes) -> Target | None:
        try:
            targets: list[Target] = await self._worker.server.locate(uri, PATIENCE)
        except ResolutionError:
            return None
        return targets[0]


def _told(title: str, data: bytes, flow: Flow) -> Result:
    return {
        "title": title, "goes_to": str(Target(flow.listener.transport, flow.remote)),
        "text": _DIGEST.sub(rb"\1********", data).decode("utf-8", "replace").replace("\0", "�"),
    }


def _challenge(request: Message, trunk: Trunk) -> bytes:
    """A 401 as the provider may give it."""
    realm = (trunk.account.realm or trunk.account.r_domain).replace('"', "").encode()
    algorithm = b"SHA-256" if trunk.account.digest_minimum == "SHA-256" else b"MD5"
    kept = b"".join(
        b"%b: %b\r\n" % (name, value) for name in (b"Via", b"From", b"Call-ID", b"CSeq")
        for value in request.get_all(name)
    )
    return (
        b"SIP/2.0 401 Unauthorized\r\n%bTo: %b;tag=preview\r\n"
        b'WWW-Authenticate: Digest realm="%b", nonce="the-provider-draws-this", algorithm=%b, qop="auth"\r\n'
        b"Content-Length: 0\r\n\r\n"
    ) % (kept, request.get(b"To") or b"", realm, algorithm)
