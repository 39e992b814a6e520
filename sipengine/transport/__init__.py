"""Where a message came from and must go; holds no socket (RFC 3261 §18, RFC 3581)."""
