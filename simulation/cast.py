"""The cast of `make demo`: four providers of different health, one PBX, and a call every few seconds.

Nothing leaves 127.0.0.0/8, and every port is a free one. Does not know where accounts are stored: the caller enters
`trunks`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from simulation.pbx import Pbx
from simulation.provider import Mood, Provider

PAUSE = 3.0
"""Seconds between two calls."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """An account that the demo's customer has bought."""

    l_uuid: str
    provider: str
    local_user: str
    user: str
    password: str
    enabled: bool = True
    anonymous: bool = False
    note: str = ""


TRUNKS = (
    Trunk("berlin", "RheinTel", "reception", "493055501", "spree", note="Head office"),
    Trunk("hamburg", "RheinTel", "hamburg", "494055502", "elbe", anonymous=True),
    Trunk("koeln", "RheinTel", "koeln", "4922155503", "rhein"),
    Trunk("leipzig", "RheinTel", "leipzig", "4934155504", "mistyped", note="Somebody mistyped the password"),
    Trunk("stuttgart", "RheinTel", "stuttgart", "4971155505", "neckar", note="The provider does not know this number"),
    Trunk("wien", "Alpenvoice", "wien", "43155506", "donau"),
    Trunk("graz", "Alpenvoice", "graz", "4331655507", "mur", anonymous=True),
    Trunk("linz", "Alpenvoice", "linz", "4373255508", "traun", enabled=False, note="Closed over the winter"),
    Trunk("oslo", "Nordfon", "oslo", "4755509", "akerselva", note="The provider is down"),
    Trunk("lyon", "Rhonetel", "lyon", "3355510", "saone", note="The provider is overloaded"),
    Trunk("genf", "Rhonetel", "genf", "4155511", "arve"),
)
#: Passwords that were mistyped on our side, as the provider has them.
CORRECT = {"leipzig": "pleisse"}
UNKNOWN = {"stuttgart"}


class Cast:
    """Opens, runs and closes the cast."""

    def __init__(self) -> None:
        self.trunks = TRUNKS
        self.pbx = Pbx("127.0.0.50")
        self.providers = {
            "RheinTel": Provider("127.0.0.10", "sip.rheintel.example", self._passwords("RheinTel"), grant=60),
            "Alpenvoice": Provider("127.0.0.11", "voice.alpen.example", self._passwords("Alpenvoice"), grant=300),
            "Nordfon": Provider("127.0.0.12", "sip.nordfon.example", {}, mood=Mood.SILENT),
            "Rhonetel": Provider("127.0.0.13", "rhonetel.example", {}, mood=Mood.OVERLOADED),
        }
        self._calling: asyncio.Task[None] | None = None

    def _passwords(self, provider: str) -> dict[str, str]:
        """What the provider has on file."""
        return {
            trunk.user: CORRECT.get(trunk.l_uuid, trunk.password)
            for trunk in self.trunks
            if trunk.provider == provider and trunk.l_uuid not in UNKNOWN
        }

    async def start(self) -> None:
        """Open every socket; calls begin with the first registration."""
        for peer in (self.pbx, *self.providers.values()):
            await peer.open()
        self._calling = asyncio.create_task(self._call(), name="demo calls")

    async def _call(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            for provider in self.providers.values():
                if provider.mood is Mood.HEALTHY:
                    provider.call_somebody()

    async def stop(self) -> None:
        if self._calling is not None:
            self._calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._calling
        for peer in (self.pbx, *self.providers.values()):
            peer.close()
