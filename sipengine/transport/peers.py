"""What the host knows about peers' addresses and the engine asks for in rare cases (RFC 3261 §18.1.1, §18.1.2)."""

from __future__ import annotations


class PeerBook:
    """Knows nothing: every peer speaks TCP too, and every address is a peer of its own.  Hosts override what they know.
    """

    def udp_only(self, host: str) -> bool:
        """Whether requests to this address stay on UDP however long they are; asked for long ones."""
        return False

    def may_challenge(self, host: str) -> bool:
        """Whether a digest of an account's password may go to this address when it asks for one."""
        return True

    def same_peer(self, asked: str, answered: str) -> bool:
        """Whether a response from `answered` may belong to a request that went to another address, `asked`."""
        return False
