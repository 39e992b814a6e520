"""A DNS server on loopback whose records a test writes as in a zone file; it can fall silent."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.interop.programs import free_port

Records = Mapping[tuple[str, str], Sequence[str]]
"""(name without its last dot, type) → record data."""


class Nameserver:
    """Answers over UDP from its own thread until `stop`."""

    def __init__(self, ttl: int = 300) -> None:
        self.ttl = ttl
        self.records: dict[tuple[str, str], Sequence[str]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.silent = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", free_port()))
        self._thread = threading.Thread(target=self._serve, name="nameserver", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """As TRUNKMGR_NAMESERVERS takes it."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def _serve(self) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            query = dns.message.from_wire(data)
            question = query.question[0]
            key = (question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype))
            self.asked[key] += 1
            if self.silent:
                continue
            reply = dns.message.make_response(query)
            reply.flags |= dns.flags.RA
            if key in self.records:
                reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", key[1], *self.records[key]))
            elif not any(name == key[0] for name, _ in self.records):
                reply.set_rcode(dns.rcode.NXDOMAIN)
            self._socket.sendto(reply.to_wire(), source)

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()
