"""One request and its responses, reliable on a wire that is not (RFC 3261 §17, RFC 6026)."""
