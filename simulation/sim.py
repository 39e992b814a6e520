"""`make sim`: the shipped endpoint against providers with bad days, for weeks of virtual time, judged by their tables.

    make sim                        about seven minutes
    SIM_SHORT=1 make sim            about two
    SIM_SEED=7 make sim             that run again
    SIM_FAULT=no_backoff make sim   must fail and name the rule

Two parts: 100 accounts for 30 days over all grants and failures, and 10,000 accounts for one hour with a cold start, an
outage and recovery.  Ends with 1 and a line for each broken rule; `SIM_FAULT` (late_refresh, no_backoff,
ignore_retry_after) breaks one of the engine's on purpose.  Progress goes to stderr.
"""

from __future__ import annotations

import heapq
import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from simulation import weather
from simulation.carrier import Carrier, Mood
from simulation.coverage import Ledger
from simulation.registrar import Listing, Registrar
from simulation.weather import DAY, HOUR, Kind, Plan
from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.events import RegistrationChanged
from sipengine.testing import Wire
from sipengine.uac.account import UacAccount

WANTED = 0.9999
HIDDEN = 2.0
"""Seconds by which an account's own count may miss what counts against us: round trips, and the edges of a run."""
TICK = 10.0
"""Seconds between two ticks of beat (`reg_timer_interval`)."""
BEYOND = 5.0
"""Beat plans so many seconds beyond its next tick, as `services.registrations` does."""
LOSS, STORM = 0.005, 0.1
"""Share of datagrams that are lost, always and in the storms."""


SIZES = {"": (30.0, 10_000), "1": (5.0, 10_000), "ci": (1.0, 4_000)}
"""Days and accounts of the two parts, by `SIM_SHORT`."""


@dataclass(frozen=True, slots=True)
class Cast:
    """A provider of the month: what its accounts ask for, and what it is like."""

    name: str
    asks: tuple[int, ...]
    """Seconds that each account asks for."""
    kinds: tuple[Kind, ...]
    grant: int = 3600
    shortest: int = 1
    servers: int = 1
    transport: str = "udp"
    listing: Listing = Listing.PLAIN
    nonce_seconds: float = 1e9
    nonce_uses: int = 2**31
    says_stale: bool = True


# A REGISTER costs about a third of a millisecond, so short grants are few: an account with 30 s sends 144,000 a month.
MONTH = (
    Cast("plain", (60, 120, 300, 600, 600, 1800, 1800, 1800, 3600, 3600), (weather.SILENT, weather.RESTART)),
    Cast("short", (30, 30, 120, 300, 600, 600, 600, 900, 1800, 3600), (weather.RESTART, weather.OVERLOADED)),
    Cast("mean", (3600,) * 3, (weather.FAILING, weather.SILENT), grant=60, nonce_seconds=1800),
    Cast(
        "busy", (90, 180, 180, 300, 600, 900, 900, 1800, 3600, 3600, 3600, 3600),
        (weather.OVERLOADED, weather.THROTTLED, weather.FAILING), listing=Listing.BY_HEADER, nonce_uses=1,
    ),
    Cast(
        "strict", (45, 180, 300, 600, 600, 900, 900, 1800, 1800, 3600, 3600, 3600), (weather.BANNED, weather.THROTTLED),
        listing=Listing.AMONG_OTHERS, nonce_seconds=300,
    ),
    Cast(
        "cluster", (120, 180, 300, 600, 600, 900, 900, 1800, 1800, 3600, 3600, 3600),
        (weather.SERVER, weather.SRV_ORDER, weather.SILENT), servers=2, listing=Listing.DRESSED,
    ),
    Cast(
        "turning", (120, 300, 600, 600, 900, 900, 900, 1800, 1800, 3600, 3600, 3600),
        (weather.REALM, weather.NONCES, weather.RESTART), listing=Listing.REWRITTEN, says_stale=False,
    ),
    Cast(
        "stream", (120, 300, 600, 600, 900, 900, 1800, 1800, 1800, 3600, 3600, 3600),
        (weather.DROP, weather.RESTART), transport="tcp", servers=2,
    ),
    Cast(
        "brief", (60, 60, 300, 300, 600, 600, 900, 1800, 1800, 1800, 3600, 3600, 3600, 3600, 3600, 3600, 3600),
        (weather.SILENT, weather.RESTART, weather.BANNED), shortest=90,
    ),
)  # fmt: skip


class Simulation:
    """One endpoint, its providers, beat, and the virtual clock that all share."""

    def __init__(self, seed: int, title: str, *, say: Callable[[str], None]) -> None:
        self.draw = Random(seed)
        self.title, self.say = title, say
        self.wire = Wire(latency=0.01, jitter=0.02, chance=self.draw.random)
        self.endpoint = Endpoint(
            Configuration(), application=lambda context: None, admission=lambda flow: True,
            entropy=self.draw.randbytes,
        )  # fmt: skip
        self.endpoint.add_listener("udp", "192.0.2.1", 5060)
        self.endpoint.add_listener("tcp", "192.0.2.1", 5060)
        self.wire.attach(self.endpoint)
        self.carriers: list[Carrier] = []
        self.accounts: list[UacAccount] = []
        self.planned: set[str] = set()
        """Accounts that beat plans; the guard serves the others."""
        self._due: list[tuple[float, str, int]] = []
        self._plan: list[tuple[float, int, Callable[[], None]]] = []
        self._hosts = 0

    def add(self, cast: Cast) -> Carrier:
        """Bring a provider with its accounts."""
        names = [f"{cast.name}{number}" for number in range(len(cast.asks))]
        registrar = Registrar(
            f"{cast.name}.example".encode(), {name.encode(): b"secret" for name in names}, longest=cast.grant,
            shortest=cast.shortest, nonce_seconds=cast.nonce_seconds, nonce_uses=cast.nonce_uses, listing=cast.listing,
            says_stale=cast.says_stale,
        )  # fmt: skip
        hosts = [f"198.51.100.{self._hosts + number + 1}" for number in range(cast.servers)]
        self._hosts += cast.servers
        carrier = Carrier(self.wire, cast.name, registrar, hosts, cast.transport)
        self.carriers.append(carrier)
        for number, (name, asked) in enumerate(zip(names, cast.asks, strict=True)):
            account = UacAccount(
                f"uuid-{name}", name, "pbx.example", name, carrier.domain, auth_password="secret", expires=asked
            )
            self.accounts.append(account)
            if number % 2:
                self.planned.add(account.l_uuid)
        return carrier

    def schedule(self, plan: Plan) -> None:
        for at, deed in plan:
            heapq.heappush(self._plan, (at, len(self._plan), deed))

    def run(self, seconds: float) -> None:
        """Start the endpoint with all accounts and let time pass."""
        for account in self.accounts:
            self.endpoint.registrations.load(account, None, self.wire.now)
        began = told = time.monotonic()
        while self.wire.now < seconds:
            tick = self.wire.now + TICK
            while self._plan and self._plan[0][0] <= min(tick, seconds):
                at, _, deed = heapq.heappop(self._plan)
                self.wire.run(max(0.0, at - self.wire.now))
                deed()
            self.wire.run(min(tick, seconds) - self.wire.now)
            self._beat()
            if time.monotonic() - told > 5:
                told = time.monotonic()
                self.say(f"{self.title}: {self.wire.now / seconds:4.0%} after {told - began:.0f} s")
        for carrier in self.carriers:
            carrier.close_books()

    def _beat(self) -> None:
        """Plan what falls due before the next tick, from what the endpoint has told."""
        now, registrations = self.wire.now, self.endpoint.registrations
        for _, event in self.wire.events:
            if isinstance(event, RegistrationChanged) and event.l_uuid in self.planned and event.next_attempt_at:
                heapq.heappush(self._due, (event.next_attempt_at, event.l_uuid, event.generation))
        while self._due and self._due[0][0] <= now + TICK + BEYOND:
            at, l_uuid, generation = heapq.heappop(self._due)
            registrations.plan(l_uuid, generation, at, now)
        # Weeks of messages are not kept.
        self.wire.events.clear()
        self.wire.sent.clear()
        for carrier in self.carriers:
            for station in carrier.stations:
                station.log.clear()

    # what came of it
    @property
    def ledgers(self) -> Iterator[tuple[str, Ledger]]:
        for carrier in self.carriers:
            for user, ledger in carrier.ledgers.items():
                yield user.decode(), ledger

    def own(self, user: str) -> tuple[float, float]:
        """Seconds covered and coverable as the engine itself counted them."""
        told = self.endpoint.registrations.snapshot(f"uuid-{user}")
        return (told.covered, told.coverable) if told is not None else (0.0, 0.0)

    def own_lost(self, user: str) -> float:
        covered, coverable = self.own(user)
        return coverable - covered

    def own_ratio(self) -> float:
        """Of all accounts together; to the engine's disadvantage, so below `ratio`."""
        counts = [self.own(user) for user, _ in self.ledgers]
        return sum(covered for covered, _ in counts) / (sum(coverable for _, coverable in counts) or 1.0)

    def by_class(self) -> Counter[str]:
        return sum((carrier.by_class for carrier in self.carriers), Counter())

    def worst(self) -> tuple[str, Ledger]:
        return min(self.ledgers, key=lambda entry: entry[1].ratio)

    def ratio(self) -> float:
        """Of all accounts together."""
        covered = sum(ledger.covered for _, ledger in self.ledgers)
        return covered / ((covered + sum(ledger.lost for _, ledger in self.ledgers)) or 1.0)

    def faults(self) -> list[str]:
        """Each rule that was broken, by name."""
        found = [
            f"{rule}: {carrier.first_broken[rule]}" + (f", {count} times" if count > 1 else "")
            for carrier in self.carriers for rule, count in carrier.broken.items()
        ]  # fmt: skip
        low = [(name, ledger) for name, ledger in self.ledgers if ledger.ratio < WANTED]
        if low:
            name, ledger = min(low, key=lambda entry: entry[1].ratio)
            at, lost = max(ledger.gaps, key=lambda gap: gap[1])
            found.append(
                f"covered: {len(low)} accounts below {WANTED:.2%}, worst {name} with {ledger.ratio:.4%} "
                f"({ledger.lost:.1f} s lost, {lost:.1f} s of it at {at:.0f} s)"
            )
        hidden = {name: ledger.lost - self.own_lost(name) for name, ledger in self.ledgers}
        if (seconds := max(hidden.values(), default=0.0)) > HIDDEN:
            found.append(f"measured: {max(hidden, key=hidden.__getitem__)} hides {seconds:.1f} s")
        return found


def month(seed: int, days: float, *, say: Callable[[str], None], casts: tuple[Cast, ...] = MONTH) -> Simulation:
    """100 accounts over all grants and all classes of failure."""
    simulation = Simulation(seed, f"{days:g} days", say=say)
    every = min(DAY, days * DAY / 6)
    for cast in casts:
        carrier = simulation.add(cast)
        simulation.schedule(weather.month(carrier, cast.kinds, simulation.draw, days * DAY - 2 * HOUR, every))
    wire = simulation.wire
    wire.loss = LOSS
    at = every / 3
    while at < days * DAY:
        simulation.schedule([(at, lambda: setattr(wire, "loss", STORM))])
        simulation.schedule([(at + 600, lambda: setattr(wire, "loss", LOSS))])
        at += every
    simulation.run(days * DAY)
    return simulation


def many(seed: int, count: int, *, say: Callable[[str], None]) -> Simulation:
    """`count` accounts for one hour: a cold start, an outage of ten minutes at half of them, recovery."""
    simulation = Simulation(seed, f"{count:,} accounts", say=say)
    per_provider = max(1, count // 4)
    for number in range(4):
        asks = tuple(simulation.draw.choice((300, 600, 1800, 3600)) for _ in range(per_provider))
        carrier = simulation.add(Cast(f"many{number}x", asks, ()))
        if number % 2:
            mood = Mood(0) if number == 1 else Mood(503, 60)
            simulation.schedule([(1200.0, lambda c=carrier, m=mood: c.begin(m)), (1800.0, carrier.end)])  # type: ignore[misc]
    simulation.run(HOUR)
    return simulation


# faults of the engine
FAULTS: dict[str, tuple[tuple[str, Callable[..., float]], ...]] = {
    "late_refresh": (("refresh_after", lambda granted, jitter: granted + 3.0),),
    "no_backoff": (("back_off", lambda *_: 1.0),),
    "ignore_retry_after": (("retry_after", lambda message: 0), ("asked_rest", lambda message: 0.0)),
}
"""What is put in place of which function of the engine."""


@contextmanager
def broken(fault: str) -> Iterator[None]:
    """Break one rule of the engine; nothing with an empty name."""
    changed: list[tuple[object, str, object]] = []
    for name, instead in FAULTS.get(fault, ()):
        for key in [key for key in sys.modules if key.startswith("sipengine.")]:
            if callable(getattr(sys.modules[key], name, None)):
                changed.append((sys.modules[key], name, getattr(sys.modules[key], name)))
                setattr(sys.modules[key], name, instead)
        if not any(changed_name == name for _, changed_name, _ in changed):
            raise LookupError(f"The engine has no function {name} any more: let SIM_FAULT={fault} break another.")
    try:
        yield
    finally:
        for module, name, function in changed:
            setattr(module, name, function)


def main() -> int:
    seed_text, size = os.environ.get("SIM_SEED", ""), os.environ.get("SIM_SHORT", "")
    fault = os.environ.get("SIM_FAULT", "")
    for name, value, known in (("SIM_SHORT", size, list(SIZES)), ("SIM_FAULT", fault, ["", *FAULTS])):
        if value not in known:
            print(f"{name} is {value!r}; it is one of {', '.join(filter(None, known))}, or not set.", file=sys.stderr)
            return 2
    if seed_text and not seed_text.isdecimal():
        print(f"SIM_SEED is {seed_text!r}; it is a number.", file=sys.stderr)
        return 2
    seed = int(seed_text) if seed_text else secrets.randbelow(10**6)
    print(f"SIM_SEED={seed}" + (f" SIM_SHORT={size}" if size else "") + (f" SIM_FAULT={fault}" if fault else ""))
    days, count = SIZES[size]
    logging.getLogger("sipengine").setLevel(logging.ERROR)  # each outage would be told thousands of times
    began = time.monotonic()
    with broken(fault):
        parts = [month(seed, days, say=_progress), many(seed, count, say=_progress)]
    classes = sum((part.by_class() for part in parts), Counter())
    print("REGISTERs:", ", ".join(f"{count:,} {name}" for name, count in classes.most_common()))
    faults = [fault for part in parts for fault in part.faults()]
    for part in parts:
        name, ledger = part.worst()
        busiest = max(carrier.busiest for carrier in part.carriers)
        print(
            f"{part.title}: worst account {name} {ledger.ratio:.4%} ({ledger.lost:.1f} s lost, "
            f"{ledger.unsignalled:.0f} s unsignalled apart), all by their own count {part.own_ratio():.4%}; "
            f"at most {busiest} REGISTERs a second at one provider"
        )
    for found in faults:
        print(f"BROKEN {found}")
    ratio = min(part.ratio() for part in parts)
    took = time.monotonic() - began
    print(f"sim: {sum(classes.values()):,} REGISTERs in {took:.0f} s, covered {ratio:.4%} of the coverable seconds")
    return 1 if faults else 0


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
