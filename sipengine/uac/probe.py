"""OPTIONS to a target whose rest is over, before calls depend on it again (RFC 3261 §11.1, §21.5.4).

Any answer but 503 means that it works: whether it likes us is not the question.
"""

from __future__ import annotations

from sipengine.events import Target
from sipengine.exceptions import SipError, TransportError
from sipengine.message.message import Message
from sipengine.transport.layer import host_port
from sipengine.transport.rests import Rests, asked_rest
from sipengine.uac.request import Agent


class Probe:
    """Asks targets for `rests`."""

    def __init__(self, agent: Agent, rests: Rests) -> None:
        self._agent = agent
        self._rests = rests

    def __call__(self, target: Target, now: float) -> None:
        agent, rests = self._agent, self._rests
        transport, address = target.transport, target.address
        try:
            listener = agent.transport.listener_for(transport, address[0])
        except TransportError:
            rests.failed(transport, address, now)
            return
        flow = agent.flow_for(listener, address)
        uri = b"sip:" + host_port(*address) + (b"" if transport == "udp" else b";transport=" + transport.encode())
        here = b"<sip:%b>" % flow.sent_by
        call_id, tag = agent.entropy(16).hex().encode(), agent.entropy(8).hex().encode()
        headers = [
            (b"From", here + b";tag=" + tag), (b"To", b"<%b>" % uri), (b"Call-ID", call_id), (b"CSeq", b"1 OPTIONS"),
            (b"Accept", b"application/sdp"),
        ]  # fmt: skip

        def on_response(status: int, message: Message, at: float) -> None:
            if status == 503:
                rests.failed(transport, address, at, asked_rest(message))
            elif status >= 200:
                rests.answered(transport, address)

        def on_failure(error: SipError, at: float) -> None:
            rests.failed(transport, address, at)

        agent.send_request(
            b"OPTIONS", uri, headers, flow=flow, now=now, on_response=on_response, on_failure=on_failure
        )
