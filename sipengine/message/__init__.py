"""Bytes to messages and back; what nobody touches leaves as it came (RFC 3261 §7, §19, §20, §25)."""

from sipengine.message.message import Message, parse
from sipengine.message.uri import SipUri
from sipengine.message.values import NameAddr, Via

__all__ = ["Message", "NameAddr", "SipUri", "Via", "parse"]
