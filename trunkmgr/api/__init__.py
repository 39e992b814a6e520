"""The HTTP API: JSON in, JSON out, for programs with a token and for pages of ours (docs/api.md)."""
