"""Requests within a call, from either side, and what each side sees of the other (RFC 3261 §12.2, §16.4, §16.12).

The call's record knows the views; after a restart its sealed token does.  A request that belongs to no call of ours,
or whose token does not open, goes nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipengine.dialog.contact import hide_contact, reveal
from sipengine.dialog.cseq import Numbering
from sipengine.dialog.record import DialogRecord
from sipengine.dialog.views import Views
from sipengine.events import CallAnswered, CallEnded, Target
from sipengine.message.fields import COMPACT, CONTACT, FROM, TO
from sipengine.message.message import Message
from sipengine.message.values import params_at, tag_of
from sipengine.proxy.context import DOWN, UP, ResponseContext
from sipengine.transport.flow import Address, Flow
from sipengine.uac.restore import Recovered

if TYPE_CHECKING:
    from sipengine.proxy.core import ProxyCore

SESSION_EXPIRES = COMPACT[b"x"]


class WithinDialog:
    """Finds calls and translates their messages; part of the proxy core."""

    def __init__(self, core: ProxyCore) -> None:
        self.core = core
        self.dialogs = core.dialogs
        self.going_on: dict[str, int] = {}
        """Calls that go on, by account; without those of an earlier process that have not spoken yet."""

    def find(
        self, message: Message, call_id: bytes, from_tag: bytes, to_tag: bytes, params: bytes, now: float
    ) -> tuple[DialogRecord | None, int, Recovered | None]:
        """The record of a call and the direction of this request; and what its token says where that counts more.

        Raises ForgedToken, also when a token of one call comes in another.
        """
        records = self.dialogs
        direction = DOWN
        record = records.find(call_id, from_tag)
        if record is None:
            direction = UP
            record = records.find(call_id, to_tag)
        if record is not None and (not params or (record.token and params.find(record.token) >= 0)):
            if record.forks is None or params:
                return record, direction, None
            return record, direction, Recovered(record.forks.get(b"", record.views), direction == DOWN)
        token = self.core.codec.present(params) if params else b""
        if not token or (record is not None and record.token == token):
            return record, direction if record is not None else 0, None
        if record is not None and record.forks is not None and token in record.forks:
            return record, direction, Recovered(record.forks[token], direction == DOWN)
        for tag, leg_direction in ((from_tag, DOWN), (to_tag, UP)):
            leg = records.find(call_id, tag, token)
            if leg is not None:
                return leg, leg_direction, None
        recovered = self.core.codec.read(params, call_id, message.line(FROM), message.line(TO))
        if recovered is None:
            return record, direction if record is not None else 0, None
        direction = DOWN if recovered.downstream else UP
        if record is None and recovered.whole:
            # A restart took the record: from here on there is one again.
            caller_tag, callee_tag = (from_tag, to_tag) if recovered.downstream else (to_tag, from_tag)
            lifetime = self.core.configuration.dialog_lifetime
            record = records.add(call_id, caller_tag, recovered.views, now + lifetime, now)
            record.token = token
            record.mark = recovered.key
            record.answered = True
            record.tags = (callee_tag,)
            if recovered.l_uuid:
                record.l_uuid, record.provider = recovered.l_uuid, UP if recovered.incoming else DOWN
                if record.mark:
                    self.begin(record)
            if recovered.shift:
                record.numbering = Numbering.recovered(DOWN, recovered.shift)
            return record, direction, None
        # The record is of another leg of the same call through us, or the token tells one direction only.
        return None, direction, recovered

    def knows(self, call_id: bytes, from_tag: bytes, to_tag: bytes) -> bool:
        """Whether Call-ID and both tags are those of one call here; any callee's tag will do while nobody answered."""
        for caller, callee in ((from_tag, to_tag), (to_tag, from_tag)):
            record = self.dialogs.find(call_id, caller)
            if record is not None and (record.over or not record.answered or callee in record.tags):
                return True
        return False

    def is_side(self, record: DialogRecord, flow: Flow) -> bool:
        """Whether an address that is none of the call's sides is another address of one of them, or our own.

        A call taken up after a restart has no sides yet: its token, which nobody can forge, speaks for the first two.
        """
        source, port = flow.remote
        same_peer = self.core.transactions.peers.same_peer
        if any(same_peer(side, source) for side in record.sides):
            return True
        if self.core.transport.is_own(source.encode(), port):  # a spiral: it was judged when it came in
            return True
        if len(record.sides) < 2:
            record.sides += (source,)
            return True
        self.core.counters.not_a_side += 1
        return False

    def reachable(self, record: DialogRecord, targets: list[Target]) -> list[Target]:
        """Those of `targets` that a request of the call may go to, none where it leads to a third party: who may not
        speak within the call is not spoken to either, whatever a Contact or Route of a side says.
        """
        sides = record.sides
        found = [x for x in targets if x.address[0] in sides or self._may_receive(record, x.address)]
        if not found:
            self.core.counters.third_party += 1
        return found

    def _may_receive(self, record: DialogRecord, address: Address) -> bool:
        """Whether an address that is none of the call's sides is another one of theirs, or our own.

        A call taken up after a restart may have sides that have not spoken yet: any peer is one of them.
        """
        host, port = address
        peers = self.core.transactions.peers
        if any(peers.same_peer(side, host) for side in record.sides) or self.core.transport.is_own(host.encode(), port):
            return True
        return len(record.sides) < 2 and peers.is_peer(host)

    def translate(
        self, message: Message, views: Views, direction: int, call_id: bytes, record: DialogRecord | None,
        automatic: bool,
    ) -> tuple[bool, bool]:
        """Give a request within a call the view of its receiver; returns whether From and To changed.

        Without `automatic` both stay as they are, for the routing to decide.
        """
        if direction == DOWN:
            new_from, new_to = views.from_callee, views.to_callee
            self.hide(message, views, call_id, record)
            if new_from and message.start.startswith((b"INVITE", b"UPDATE")):
                message.remove(b"identity")  # as in the first request: it signs the From that was
        else:
            new_from, new_to = views.to_caller, views.from_caller
        if not automatic:
            return False, False
        if direction == DOWN and record is not None and not new_to and new_from and views is record.views:
            i = message.keys.index(FROM)
            line = message.lines[i]
            if line != record.from_line:
                record.from_line = line
                record.from_hidden = b"From: " + new_from + line[params_at(line) :]
            message.lines[i] = record.from_hidden
            return True, False
        return self.rewrite(message, new_from, new_to)

    def rewrite(self, message: Message, new_from: bytes, new_to: bytes) -> tuple[bool, bool]:
        keys, lines = message.keys, message.lines
        if new_from:
            i = keys.index(FROM)
            lines[i] = b"From: " + new_from + lines[i][params_at(lines[i]) :]
        if new_to:
            i = keys.index(TO)
            lines[i] = b"To: " + new_to + lines[i][params_at(lines[i]) :]
        return bool(new_from), bool(new_to)

    def hide(self, message: Message, views: Views, call_id: bytes, record: DialogRecord | None) -> None:
        """What the caller sends never names it: fields removed in the first request stay away, so does the Contact
        user.
        """
        if views.hidden:
            fields = views.hidden_fields()
            if not fields.isdisjoint(message.keys):
                for name in fields:
                    message.remove(name)
        if views.contact:
            self.hide_contacts(message, call_id, record)

    def hide_contacts(self, message: Message, call_id: bytes, record: DialogRecord | None) -> None:
        keys, lines = message.keys, message.lines
        if CONTACT not in keys:
            return
        if keys.count(CONTACT) == 1:
            i = keys.index(CONTACT)
            line = lines[i]
            if record is None:
                lines[i] = hide_contact(line, self.core.sealer, call_id)
                return
            if record.contact_line != line:
                record.contact_line, record.hidden_line = line, hide_contact(line, self.core.sealer, call_id)
            lines[i] = record.hidden_line
            return
        for i, key in enumerate(keys):
            if key is CONTACT:
                lines[i] = hide_contact(lines[i], self.core.sealer, call_id)

    def reveal_ruri(self, ruri: bytes, views: Views, direction: int, call_id: bytes) -> bytes:
        """A request of the callee comes for the hidden Contact: put the real user back."""
        if direction == UP and views.contact:
            return reveal(ruri, self.core.sealer, call_id)
        return ruri

    def restore(self, context: ResponseContext, key: bytes) -> bool:
        """`uac_restore_from`, `uac_restore_to` in manual mode; False where nothing was changed in the first request."""
        views = context.dialog_views
        if views is None:
            return False
        if context.direction == DOWN:
            new = views.from_callee if key is FROM else views.to_callee
        else:
            new = views.to_caller if key is FROM else views.from_caller
        return self.replace(context, key, new) if new else False

    def replace(self, context: ResponseContext, key: bytes, new: bytes) -> bool:
        """Put another name-addr into a request within a call; its responses get back what came."""
        if key is FROM:
            self.rewrite(context.message, new, b"")
            context.restore_from = True
        else:
            self.rewrite(context.message, b"", new)
            context.restore_to = True
        return True

    # the life of a record
    def on_request(self, record: DialogRecord, method: bytes, callee_tag: bytes, now: float) -> None:
        """A request of the call goes on: a BYE may end it, anything else prolongs it."""
        core = self.core
        if method != b"BYE":
            if record.answered:
                record.expires_at = now + record.lifetime
            return
        record.tags = tuple([tag for tag in record.tags if tag != callee_tag])
        if record.answered and not record.tags:
            record.end(core.timers.timeout, now)
            self.end(record, 200, "OK", now)

    def on_response(
        self, context: ResponseContext, record: DialogRecord, status: int, message: Message, now: float
    ) -> None:
        """Note who answered; hide the caller in its responses to requests of the callee."""
        if context.direction:
            if context.direction == UP:
                self.hide(message, record.views, context._call_id, record)
            if 200 <= status < 300 and context.method in (b"INVITE", b"UPDATE"):
                self._note_session(record, message, now)
            return
        if 200 <= status < 300:
            tag = tag_of(message.line(TO))
            if tag not in record.tags:
                record.tags += (tag,)
            self._note_session(record, message, now)
            if not record.answered:
                record.answered = True
                if record.mark:
                    self.core.events.append(CallAnswered(record.mark, record.counted, now))

    def _note_session(self, record: DialogRecord, message: Message, now: float) -> None:
        """A call with a session timer is kept for its interval and a margin: a BYE may get lost (RFC 4028 §8.2)."""
        lifetime = self.core.configuration.dialog_lifetime
        if SESSION_EXPIRES in message.keys:
            interval = (message.get(SESSION_EXPIRES) or b"").partition(b";")[0].strip()
            if interval.isdigit() and len(interval) < 10:
                seconds = int(interval)
                lifetime = min(lifetime, seconds + max(32.0, seconds / 3))
        record.lifetime = lifetime
        record.expires_at = now + lifetime

    def begin(self, record: DialogRecord) -> None:
        """Count a call among those of its account that go on."""
        record.counted = record.l_uuid
        self.going_on[record.counted] = self.going_on.get(record.counted, 0) + 1

    def end(self, record: DialogRecord, code: int, reason: str, now: float) -> None:
        l_uuid, record.counted = record.counted, ""
        if l_uuid:
            left = self.going_on[l_uuid] - 1
            if left:
                self.going_on[l_uuid] = left
            else:
                del self.going_on[l_uuid]
        if record.mark:
            self.core.events.append(CallEnded(record.mark, l_uuid, code, reason, now))
            record.mark = ""
        if record.numbering is not None and record.numbering.stored:
            self.core.authenticator.forget(record.numbering, now)
