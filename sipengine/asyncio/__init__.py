"""The only package with sockets, DNS and a clock."""
