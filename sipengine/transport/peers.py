"""What the host knows about peers' addresses and the engine asks for in rare cases (RFC 3261 §18.1.1, §18.1.2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """What a peer must prove before anything is sent to it over TLS (RFC 5922 §7)."""

    names: tuple[str, ...]
    """Its certificate must be for one of these; the first is asked for by SNI."""
    wildcard: bool = False
    """Whether ``*.example.com`` counts for ``sip.example.com``."""
    fingerprint: str = ""
    """SHA-256 in lower hex of the one certificate that counts, whoever signed it; empty: names and chain count."""
    client_certificate: bool = False
    """Whether we show our own."""


class PeerBook:
    """Knows nothing: every peer speaks TCP too, and every address is a peer of its own.  Hosts override what they know.
    """

    def udp_only(self, host: str) -> bool:
        """Whether requests to this address stay on UDP however long they are; asked for long ones."""
        return False

    def may_challenge(self, host: str) -> bool:
        """Whether a digest of an account's password may go to this address when it asks for one."""
        return True

    def tls(self, names: tuple[str, ...], host: str) -> TlsPolicy:
        """What is expected of the peer at address `host`; `names` as those of a `Target`."""
        return TlsPolicy(names[:1] or (host,))

    def budget(self, host: str) -> float:
        """REGISTERs a second that this address takes at most; 0 where nothing is known."""
        return 0.0

    def is_peer(self, host: str) -> bool:
        """Whether this address belongs to anybody whom requests are taken from."""
        return True

    def same_peer(self, asked: str, answered: str) -> bool:
        """Whether a response from `answered` may belong to a request that went to another address, `asked`."""
        return False
