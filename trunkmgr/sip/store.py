"""What the worker reads and writes through the services, in its database thread."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from sipengine.events import BindingChanged, Reachability
from sipengine.message import SipUri
from sipengine.uac.account import UacAccount
from sipengine.uac.binding import BindingRecord
from sipengine.uac.routes import Routes
from trunkmgr.models import Location, Node, Registration
from trunkmgr.services import calls, departures, dialogs, locations, nodes, registrations
from trunkmgr.sip.bridge import Batch
from trunkmgr.sip.changes import ChangeLog, Patch, read_rows
from trunkmgr.sip.clock import Clock
from trunkmgr.sip.snapshot import departing_account


def store(node: str, batch: Batch) -> None:
    """Write a batch.  What is refused belongs to another worker by now, or its account is gone."""
    if batch.registrations:
        registrations.record(node, batch.registrations)
    if batch.refreshes:
        registrations.record_refreshes(node, batch.refreshes)
    if batch.further:
        registrations.record_further(batch.further)
    if batch.qualified:
        registrations.record_qualify(node, batch.qualified)
    if batch.calls:
        calls.record(node, batch.calls)
    if batch.dialogs:
        dialogs.record(node, batch.dialogs)
    if batch.dialogs_over:
        dialogs.forget(batch.dialogs_over)
    if batch.bindings:
        locations.record(node, batch.bindings)
    if batch.bindings_over:
        locations.forget(batch.bindings_over)
    if batch.departed:
        departures.forget(batch.departed)


def look(log: ChangeLog, node: Node) -> tuple[Patch, dict[str, int]]:
    """Read what changed since the last look, and which registrations are ours by now."""
    changed, lines = log.read()
    if not changed:
        log.done(lines)
        return Patch(), {}
    patch = read_rows(changed)
    fences = own(node) if patch.trunks else {}
    log.done(lines)
    return patch, fences


def own(node: Node) -> dict[str, int]:
    """Claim what nobody looks after; return the fencing numbers of all that is ours."""
    registrations.claim_ownership(node.name)
    return nodes.owned(node)


def calls_going_on(node: str, clock: Clock) -> list[tuple[str, str, float]]:
    """Read what an earlier process left of its calls, as `Endpoint.load_dialogs` wants it."""
    return [(row.key, row.state, clock.at(row.expires_time)) for row in dialogs.going_on(node)]


_RECORD = (
    "account_id", "call_id", "from_tag", "cseq", "contact", "granted", "bound_until_time", "next_attempt_time",
    "generation", "failures", "target", "realm_seen", "code", "reason", "round_trip",
    "service_route", "path", "associated_uris", "digest", "covered", "coverable", "counted_time",
    "local_address", "seen_address", "qualify_state",
)


def binding_records(node: Node, clock: Clock) -> dict[str, BindingRecord]:
    """Read what stood before a restart, by l_uuid."""
    rows = Registration.objects.filter(owner=node).exclude(call_id="", counted_time=None).values(*_RECORD)
    return {row["account_id"]: _record(row, clock) for row in rows}


def _record(row: Mapping[str, Any], clock: Clock) -> BindingRecord:
    bound, planned, counted = row["bound_until_time"], row["next_attempt_time"], row["counted_time"]
    return BindingRecord(
        call_id=row["call_id"], from_tag=row["from_tag"], cseq=row["cseq"],
        contact=row["contact"], granted=row["granted"],
        bound_until_at=clock.at(bound) if bound else None, next_attempt_at=clock.at(planned) if planned else None,
        generation=row["generation"], failures=row["failures"], target=row["target"], realm_seen=row["realm_seen"],
        code=row["code"], reason=row["reason"], round_trip=row["round_trip"],
        routes=Routes(row["service_route"], row["path"], row["associated_uris"]), digest=row["digest"],
        covered=row["covered"], coverable=row["coverable"], counted_to=clock.at(counted) if counted else None,
        local_address=row["local_address"], seen_address=row["seen_address"],
        reachability=Reachability(row["qualify_state"]),
    )


def departing(node: Node, clock: Clock, known: Container[str]) -> list[tuple[UacAccount, BindingRecord]]:
    """Read what nobody names any more, as `Registrations.depart` wants it; not those whose Call-IDs are `known`."""
    return [
        (departing_account(row), BindingRecord(
            row.call_id, row.from_tag, row.cseq, row.contact, bound_until_at=clock.at(row.bound_until_time),
        ))
        for row in departures.of_node(node) if row.call_id not in known
    ]  # fmt: skip


def bindings(clock: Clock) -> list[BindingChanged]:
    """Read what devices had registered before a restart, as `Location.load` wants it."""
    return [_binding(row, clock) for row in locations.standing()]


def _binding(row: Location, clock: Clock) -> BindingChanged:
    received = SipUri.parse(row.received)
    return BindingChanged(
        row.ruid, f"{row.username}@{row.domain}", row.contact, round(row.q * 1000), clock.at(row.expires), row.callid,
        row.cseq, row.path, (received.param(b"transport") or b"udp").decode(),
        (received.host.strip(b"[]").decode(), received.port or 5060), row.instance, row.reg_id, row.user_agent,
        clock.at(row.last_modified),
    )
