"""What must be translated for a whole call, and the tokens that carry it (RFC 3261 §12)."""
