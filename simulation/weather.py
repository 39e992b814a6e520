"""What goes wrong at providers, and when: a plan drawn from one seed, so that a run repeats exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from simulation.carrier import Carrier, Mood

Deed = Callable[[], None]
Plan = list[tuple[float, Deed]]
"""When, and what happens then."""

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of bad day: its name, and what it does to a provider."""

    name: str
    strike: Callable[[Carrier, Random, float], Plan]


def _mood(mood: Callable[[Random], Mood], shortest: float, longest: float) -> Callable[[Carrier, Random, float], Plan]:
    def strike(carrier: Carrier, draw: Random, at: float) -> Plan:
        now_in = mood(draw)
        return [(at, lambda: carrier.begin(now_in)), (at + draw.uniform(shortest, longest), carrier.end)]

    return strike


def _restart(carrier: Carrier, draw: Random, at: float) -> Plan:
    back_at = at + draw.uniform(2, 40)
    return [(at, lambda: carrier.begin(Mood(0))), (at, carrier.restart), (back_at, carrier.end)]


def _new_realm(carrier: Carrier, draw: Random, at: float) -> Plan:
    realm = b"realm-%d.%b" % (draw.randrange(1000), carrier.domain.encode())

    def change() -> None:
        carrier.registrar.realm = realm
        carrier.registrar.forget_nonces()

    return [(at, change)]


def _new_nonces(carrier: Carrier, draw: Random, at: float) -> Plan:
    return [(at, carrier.registrar.forget_nonces)]


def _srv_turns(carrier: Carrier, draw: Random, at: float) -> Plan:
    """The name leads to the servers in another order."""

    def turn() -> None:
        carrier.hosts.append(carrier.hosts.pop(0))
        carrier.resolve()

    return [(at, turn)]


def _server_fails(carrier: Carrier, draw: Random, at: float) -> Plan:
    """One of several servers is silent; the others know all bindings."""
    host = draw.choice(sorted(carrier.hosts))
    back_at = at + draw.uniform(60, 1800)
    return [(at, lambda: carrier.silent.add(host)), (back_at, lambda: carrier.silent.discard(host))]


def _connections_drop(carrier: Carrier, draw: Random, at: float) -> Plan:
    """All connections close, and what was bound over them is gone (RFC 5626 §7)."""
    return [(at, carrier.restart)]


SILENT = Kind("silence", _mood(lambda draw: Mood(0), 5, 1800))
OVERLOADED = Kind("overload", _mood(lambda draw: Mood(503, draw.choice((5, 30, 60, 300))), 20, 1200))
FAILING = Kind("failure", _mood(lambda draw: Mood(500), 10, 900))
THROTTLED = Kind("throttling", _mood(lambda draw: Mood(429, draw.choice((10, 60, 600))), 20, 900))
BANNED = Kind("ban", _mood(lambda draw: Mood(403), 60, 1800))
RESTART = Kind("restart", _restart)
REALM = Kind("new realm", _new_realm)
NONCES = Kind("new nonces", _new_nonces)
SRV_ORDER = Kind("SRV order", _srv_turns)
SERVER = Kind("server", _server_fails)
DROP = Kind("dropped connections", _connections_drop)


def month(carrier: Carrier, kinds: tuple[Kind, ...], draw: Random, seconds: float, every: float) -> Plan:
    """One bad day after another, about `every` seconds, the kinds in turn and never two at once."""
    plan: Plan = []
    at, turn = draw.uniform(0.5, 1.0) * every, 0
    while at < seconds:
        struck = kinds[turn % len(kinds)].strike(carrier, draw, at)
        plan += struck
        at = max(struck[-1][0] + HOUR / 2, at + draw.uniform(0.5, 1.5) * every)
        turn += 1
    return plan
