"""A response context from a request to its last response, and the five route hooks (RFC 3261 §16)."""
