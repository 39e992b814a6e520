"""Our own values at the top of a route set (RFC 3261 §16.4, RFC 5658)."""

from __future__ import annotations

import pytest

from sipengine.message import parse
from sipengine.proxy.route import take_own_routes
from sipengine.transport.layer import TransportLayer, no_local_address


@pytest.mark.checklist("D2")
def test_both_values_of_a_pair_are_taken_off_and_no_more() -> None:
    layer = TransportLayer(no_local_address)
    flow = layer.flow_for(layer.add_listener("udp", "192.0.2.5", 5060), ("192.0.2.1", 5060))
    own = b"<sip:192.0.2.5:5060;lr;r2=on>"
    far = b"<sip:198.51.100.1;lr>"
    message = parse(b"BYE sip:a@b SIP/2.0\r\nRoute: " + own + b"\r\nRoute: " + own + b", " + far + b"\r\n\r\n")
    assert take_own_routes(message, flow, layer) is not None
    assert message.get_list(b"route") == [far]
