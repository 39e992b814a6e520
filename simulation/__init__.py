"""Pretend providers and a pretend PBX: on the loopback behind `make demo`, on a virtual wire behind `make sim`.

Built on sipengine's messages and digest, never imported by it.
"""
