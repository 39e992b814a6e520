"""Pretend providers and a pretend PBX on the loopback, behind `make demo`; built on sipengine's messages and digest."""
