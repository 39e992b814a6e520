"""Answers a provider's challenges in place of the PBX, and counts CSeq on for it (RFC 3261 §22.3, §22.2, §12.2.1.1).

A request that is challenged goes out again with credentials and the next CSeq number; from then on the numbers of this
direction differ on our two sides (`dialog.cseq`).  First requests are answered by `uac_auth` in a failure_route,
requests within a call by themselves, and only towards the provider.  The user agents never see any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sipengine.dialog import state
from sipengine.dialog.cseq import Numbering
from sipengine.dialog.cseq import Sequence as Numbers
from sipengine.dialog.record import DialogRecord
from sipengine.events import DialogOver, DialogShifted, Target
from sipengine.message.fields import AUTHORIZATION, CANONICAL, CSEQ, PROXY_AUTHORIZATION, TO
from sipengine.message.message import Message
from sipengine.message.values import MAX_CSEQ, tag_of
from sipengine.proxy.branch import Branch
from sipengine.proxy.context import DOWN, UP
from sipengine.proxy.forward import NO_NAMES, SENT
from sipengine.proxy.hold import Hold
from sipengine.proxy.variables import credentials_of
from sipengine.transport.flow import Address
from sipengine.uac.digest import Challenge, Credentials, pair, realm_of
from sipengine.uac.nonces import Nonces
from sipengine.uac.submission import Submission

if TYPE_CHECKING:
    from sipengine.proxy.context import Marks, ResponseContext
    from sipengine.proxy.core import ProxyCore

MAX_ROUNDS = 5
"""Times that one request goes out again: 401, 407 and a new nonce for each, and no more."""
CSEQ_EXHAUSTED = b"CSeq Exhausted"

CredentialsOf = Callable[[str], Sequence[Credentials]]
"""Credentials of an account, by l_uuid: for challenges within its calls."""


class Authentication:
    """What one request keeps while it may be challenged."""

    __slots__ = (
        "again", "credentials", "cseq_line", "hold", "n", "number", "numbers", "refused", "rounds", "submissions",
        "tag",
    )  # fmt: skip

    def __init__(self, cseq_line: bytes, credentials: Sequence[Credentials]) -> None:
        self.cseq_line = cseq_line
        """As received: what every response shows."""
        self.n = int(cseq_line.partition(b":")[2].split()[0])
        self.number = 0
        """The far side's number, 0 while none was taken."""
        self.numbers: Numbers | None = None
        """How the call's direction is counted; None for a request that opens no dialog."""
        self.tag = b""
        """Tag of the far side, for a request within a call."""
        self.credentials = credentials
        self.submissions: dict[Branch, Submission] = {}
        self.again: list[tuple[Branch, Submission]] = []
        """Branches to send anew, and how."""
        self.rounds = 0
        self.refused = False
        """Our answer was not taken."""
        self.hold: Hold | None = None
        """Requests that wait until this one is through."""


class Authenticator:
    """Part of the proxy core."""

    def __init__(self, core: ProxyCore) -> None:
        self.core = core
        self.nonces = Nonces()
        self.credentials_of: CredentialsOf = _no_credentials

    # first requests
    def open(self, context: ResponseContext) -> None:
        """A first request with credentials: what its sender knows for their realms is not for the provider to see."""
        auth = self._of(context)
        if AUTHORIZATION in context.names or PROXY_AUTHORIZATION in context.names:
            _strip(context.message, {secret.realm for secret in auth.credentials})

    def uac_auth(self, context: ResponseContext, mode: int) -> bool:
        """Prepare the challenged branches to be sent anew; False when none can be answered."""
        auth = self._of(context)
        if mode & 1:
            auth.credentials = [replace(c, password=b"", ha1=c.ha1 or c.password) for c in auth.credentials]
        auth.again = self._challenged(auth, context, self.core.now)
        if not auth.again:
            return False
        challenged = auth.again[0][0]
        context.ruri = challenged.ruri
        context.du = challenged.next_hop if challenged.next_hop != challenged.ruri else b""
        return True

    def relay(self, context: ResponseContext, now: float) -> bool:
        """After `uac_auth`: send the challenged branches anew; False when the routing did not ask for that."""
        auth = context.auth
        assert auth is not None
        again, auth.again = auth.again, []
        if not again:
            return False
        if not self._number_again(auth):
            context.answer(500, now, CSEQ_EXHAUSTED)
            return True
        first = again[0][0]
        if context._ruri == first.ruri and (context._du or context._ruri) == first.next_hop:
            self._resend(context, again, now)
        else:  # the routing wants these credentials elsewhere
            branch = self._renewed(context, *again[0], context._ruri, context._du or context._ruri)
            self.core.locator.locate(branch.next_hop, branch.located, now)
        return True

    def _of(self, context: ResponseContext) -> Authentication:
        auth = context.auth
        if auth is None:
            assert context.server is not None
            [line] = [line for line in context.server.head if CANONICAL[line.partition(b":")[0]] is CSEQ]
            auth = context.auth = Authentication(line, ())
            if context.branches:
                auth.number = auth.n  # it went out before anybody knew of credentials
        configured = reversed(self.core.configuration.credentials)
        of_script = credentials_of(context) if all(self.core.auth_avps) else ()
        auth.credentials = [*of_script, *context.credentials, *[secret for secret in configured if secret.realm]]
        return auth

    def count(self, context: ResponseContext, record: DialogRecord | None) -> None:
        """Before a copy of a first request leaves: its number, in the call's record too where there is one."""
        auth = context.auth or self._of(context)
        if record is None:
            auth.number = auth.number or auth.n
            return
        numbering = record.numbering
        if numbering is None:
            numbering = record.numbering = Numbering()
        numbers = numbering.directions.get(DOWN)
        if numbers is None:
            numbers = numbering.directions[DOWN] = Numbers(auth.n, auth.n)
        auth.numbers = numbers
        if not auth.number:
            auth.number = min(numbers.take(auth.n), MAX_CSEQ)
        numbers.note(auth.n, auth.number)
        if numbering.told != numbers.shift:
            numbering.told = numbers.shift
            record.token = b""

    def other_provider(self, context: ResponseContext, record: DialogRecord, marks: Marks) -> None:
        """The routing goes on to another account: its provider counts for itself and sees nothing meant for the last.
        """
        record.l_uuid = marks.l_uuid
        record.provider = DOWN if marks.direction == "out" else UP
        record.numbering = None
        record.token = b""
        if context.auth is not None:
            context.auth = None
            self._of(context)

    # within a call
    def within(self, context: ResponseContext, record: DialogRecord, callee_tag: bytes, now: float) -> bool:
        """Count a request within a call; False when it waits for another or was answered."""
        credentials = self.credentials_of(record.l_uuid) if record.provider == context.direction else ()
        numbering = record.numbering
        numbers = numbering.directions.get(context.direction) if numbering is not None else None
        if not credentials and numbers is None:
            return True
        message = context.message
        auth = context.auth = Authentication(message.line(CSEQ), credentials)
        auth.tag = callee_tag
        if numbering is None:
            numbering = record.numbering = Numbering()
        if numbers is None:
            numbers = numbering.directions[context.direction] = Numbers(auth.n, auth.n)
        auth.numbers = numbers
        if AUTHORIZATION in message.keys or PROXY_AUTHORIZATION in message.keys:
            _strip(message, {secret.realm for secret in credentials})
        if numbering.hold is not None and context.method != b"PRACK":
            numbering.hold.take(context)
            return False
        return self.take_number(context, auth, numbers, now)

    def take_number(self, context: ResponseContext, auth: Authentication, numbers: Numbers, now: float) -> bool:
        auth.number = numbers.take(auth.n)
        if auth.number > MAX_CSEQ:
            context.answer(500, now, CSEQ_EXHAUSTED)
            return False
        if context.method == b"PRACK":
            _translate_rack(context.message, numbers, auth.tag)
        return True

    def again_within(self, context: ResponseContext, now: float) -> bool:
        """A request within a call failed by challenges: send it anew; False when they are not ours to answer.

        Once our answer was refused the PBX gets 403: it could do nothing with a challenge of the provider's.
        """
        auth, record = context.auth, context.record
        assert auth is not None and record is not None and record.numbering is not None
        again = self._challenged(auth, context, now)
        if not again and not auth.refused:
            return False
        if not again or not self._number_again(auth):
            status, reason = (500, CSEQ_EXHAUSTED) if again else (403, b"Credentials Refused")
            context.answer(status, now, reason)
            self._through(auth, now)
            return True
        if record.numbering.hold is None:
            record.numbering.hold = auth.hold = Hold(self.core, record.numbering, now)
        self._resend(context, again, now)
        self._store(record, now)
        return True

    def ack(self, message: Message, numbering: Numbering, direction: int, callee_tag: bytes) -> None:
        """An ACK for a 2xx: number and credentials of its INVITE (§13.2.2.4)."""
        numbers = numbering.directions.get(direction)
        if numbers is None:
            return
        i = message.keys.index(CSEQ)
        number = int(message.lines[i].partition(b":")[2].split()[0])
        sent = numbers.number_of(callee_tag, number)
        if sent != number:
            message.lines[i] = b"CSeq: %d ACK" % sent
        invite = numbers.invite(callee_tag, number)
        if invite is not None and invite.lines:
            _strip(message, {realm_of(line) for line in invite.lines})
            for line in invite.lines:
                message.insert(i + 1, line)

    def _store(self, record: DialogRecord, now: float) -> None:
        """Tell the host what the call's token cannot."""
        core, numbering = self.core, record.numbering
        if record.over or numbering is None:
            return
        numbering.stored = numbering.stored or record.mark or core.identifiers.hex().decode()
        call_id = record.key.partition(b" ")[0].decode(errors="replace")
        text = state.write(record, core.sealer)
        core.events.append(DialogShifted(numbering.stored, call_id, record.l_uuid, text, record.expires_at, now))

    def forget(self, numbering: Numbering, now: float) -> None:
        """The call is over."""
        self.core.events.append(DialogOver(numbering.stored, now))
        numbering.stored = ""

    # both
    def stamp(
        self, context: ResponseContext, branch: Branch, message: Message, server: Address, now: float
    ) -> None:
        """Write number and credentials into a copy that is about to leave for `server`."""
        auth = context.auth
        assert auth is not None
        keys, lines = message.keys, message.lines
        i = keys.index(CSEQ)
        if auth.number != auth.n:
            lines[i] = b"CSeq: %d %b" % (auth.number, context.method)
        submission = auth.submissions.get(branch)
        if submission is None:
            submission = auth.submissions[branch] = Submission.of_known(self.nonces, server, auth.credentials, now)
        if submission.answers:
            if AUTHORIZATION in keys or PROXY_AUTHORIZATION in keys:
                _strip(message, {realm for _, realm in submission.answers})
                i = keys.index(CSEQ)
            lines[i + 1 : i + 1] = submission.write(
                context.method, branch.ruri, self.core.identifiers.hex(), message.body
            )
            keys[i + 1 : i + 1] = [
                PROXY_AUTHORIZATION if proxy else AUTHORIZATION for proxy, _ in submission.answers
            ]
        if context.method == b"INVITE" and auth.numbers is not None:
            auth.numbers.remember(auth.tag, auth.n, auth.number, submission.lines)

    def succeeded(self, context: ResponseContext, branch: Branch, message: Message, now: float) -> None:
        """A 2xx came."""
        auth = context.auth
        assert auth is not None
        if context.on_reply is None:
            context.message, context.names = SENT, NO_NAMES  # it goes nowhere any more
        submission = auth.submissions.get(branch)
        if submission is not None and submission.answers:
            submission.accepted(message, self.nonces, now)
            if not submission.unasked:
                self.core.strength.took([(x.challenge, x.credentials) for x in submission.answers.values()])
        if context.method == b"INVITE" and auth.numbers is not None:
            lines = submission.lines if submission is not None else ()
            tag = auth.tag or tag_of(message.line(TO))
            invite = auth.numbers.remember(tag, auth.n, auth.number, lines)
            invite.over_at = now + self.core.timers.timeout
            first = auth.numbers.invites.get((b"", auth.n))
            if first is not None:
                first.over_at = invite.over_at

    def translate(self, context: ResponseContext, message: Message, now: float) -> None:
        """A response goes back: it shows the number that its receiver knows (from the request, never by arithmetic)."""
        auth = context.auth
        assert auth is not None
        message.lines[message.keys.index(CSEQ)] = auth.cseq_line
        self._through(auth, now)

    def _through(self, auth: Authentication, now: float) -> None:
        """The far side has seen this request: what waited for it may go."""
        if auth.hold is not None:
            hold, auth.hold = auth.hold, None
            hold.end(now)

    def _challenged(
        self, auth: Authentication, context: ResponseContext, now: float
    ) -> list[tuple[Branch, Submission]]:
        """The branches that failed by challenges which we can answer, and how."""
        if auth.rounds >= MAX_ROUNDS:
            return []
        return [
            (branch, submission)
            for branch in context.branches
            if branch.status in (401, 407) and (submission := self._answer(auth, branch, now)) is not None
        ]

    def _answer(self, auth: Authentication, branch: Branch, now: float) -> Submission | None:
        """How to send a challenged branch anew; None where its challenges are not ours, or our answer was refused."""
        client, reply = branch.client, branch.reply
        if client is None or reply is None:
            return None
        server = client.flow.remote
        old = auth.submissions.get(branch) or Submission({}, {}, False)
        www, proxy = reply.get_all(b"WWW-Authenticate"), reply.get_all(b"Proxy-Authenticate")
        found = pair(www, proxy, lambda challenge: self._strong_enough(auth.credentials, challenge))
        if not found and pair(www, proxy, lambda challenge: _find(auth.credentials, challenge)):
            auth.refused = True  # by us: what it asks for now is weaker than what it took before
            return None
        if found and not self.core.transactions.peers.may_challenge(server[0]):
            self.core.counters.unasked_challenges += 1
            return None
        if not found:
            return None
        submission = old.challenged(found, self.nonces, server, now)
        auth.refused = auth.refused or submission is None
        return submission

    def _strong_enough(self, credentials: Sequence[Credentials], challenge: Challenge) -> Credentials | None:
        found = _find(credentials, challenge)
        return found if found is not None and self.core.strength.allows(challenge, found) else None

    def _number_again(self, auth: Authentication) -> bool:
        """Take the next number of the far side; False when there is none."""
        last = auth.number if auth.numbers is None else auth.numbers.last_b
        if last >= MAX_CSEQ:
            return False
        auth.rounds += 1
        auth.number = last + 1 if auth.numbers is None else auth.numbers.again()
        return True

    def _resend(self, context: ResponseContext, again: list[tuple[Branch, Submission]], now: float) -> None:
        """To the very address that asked (a nonce is its server's), each in a new branch (§22.2, §8.1.3.5)."""
        renewed = []
        for old, submission in again:
            assert old.client is not None
            flow, targets = old.client.flow, old.targets
            branch = self._renewed(context, old, submission, old.ruri, old.next_hop)
            branch.targets = targets
            renewed.append((branch, Target(flow.listener.transport, flow.remote, flow.names)))
        for branch, target in renewed:
            branch.send_to(target, now)

    def _renewed(
        self, context: ResponseContext, old: Branch, submission: Submission, ruri: bytes, next_hop: bytes
    ) -> Branch:
        """A branch in place of a challenged one."""
        auth = context.auth
        assert auth is not None
        branch = Branch(context, ruri, next_hop)
        auth.submissions.pop(old, None)
        auth.submissions[branch] = submission
        context.branches[context.branches.index(old)] = branch
        old.release()
        return branch


def _find(credentials: Sequence[Credentials], challenge: Challenge) -> Credentials | None:
    """The first that answer this realm and algorithm."""
    for found in credentials:
        if found.answers(challenge):
            return found
    return None


def _strip(message: Message, realms: set[bytes]) -> None:
    """Take off what the sender knows for these realms; b"" among them stands for any (§22.3 leaves others alone)."""
    for i in reversed(range(len(message.keys))):
        if message.keys[i] in (AUTHORIZATION, PROXY_AUTHORIZATION) and (
            b"" in realms or realm_of(message.lines[i]) in realms
        ):
            del message.keys[i], message.lines[i]


def _translate_rack(message: Message, numbers: Numbers, tag: bytes) -> None:
    """RAck names the INVITE by its number (RFC 3262 §7.2)."""
    words = (message.get(b"RAck") or b"").split()
    if len(words) == 3 and words[1].isdigit() and len(words[1]) <= 10:
        words[1] = b"%d" % numbers.number_of(tag, int(words[1]))
        message.replace(b"RAck", b" ".join(words))


def _no_credentials(l_uuid: str) -> Sequence[Credentials]:
    return ()
