"""Pre-flight of an account: the order `doctor`, from its row over DNS, connection, TLS and OPTIONS to a trial REGISTER.

Runs on the worker's own sockets, resolver and certificates, at the pace that all REGISTERs to that provider keep.
The account's binding is left alone: the trial has a Contact and a Call-ID of its own (`sipengine.uac.trial`) and is
removed.  Each step has a deadline, and tells of itself while the next one runs.
"""

from __future__ import annotations

from typing import Any

from sipengine.events import RegistrationState, Target
from sipengine.uac.account import UacAccount
from sipengine.uac.binding import judge, number_of
from sipengine.uac.contacts import Listed, listed
from sipengine.uac.register import problem_of
from sipengine.uac.request import Outcome
from sipengine.uac.trial import Trial
from trunkmgr.causes import answer, explain
from trunkmgr.models import Order
from trunkmgr.sip.checkup import BAD, GOOD, REMARK, SKIPPED, Checkup, Result, Step, facts_of, storable
from trunkmgr.sip.reach import Reach
from trunkmgr.sip.snapshot import Trunk

#: Seconds that a REGISTER may take, with its turn and its challenges.
REGISTER = 8.0
#: Longest registration that a trial agrees to when the provider finds it too short.
LONGEST = 3600

_UP = frozenset({RegistrationState.REGISTERED, RegistrationState.REFRESHING})


class Doctor:
    """One look at one account; `worker` is its owner."""

    def __init__(self, worker: Any, order: Order) -> None:
        self._worker = worker
        self._order = order
        self._registrations = worker.endpoint.registrations
        self._checkup = Checkup(worker, order)

    async def run(self) -> Result:
        """Look at one thing after the other until one fails for good; say what it comes to."""
        l_uuid = str(self._order.payload.get("l_uuid", ""))
        trunk = self._worker.admission.snapshot.trunks.get(l_uuid)
        if trunk is None:
            return {"ok": False, "message": f"The account {l_uuid} is not at this worker.", "steps": []}
        if l_uuid in self._worker.being_checked:
            return {"ok": False, "message": f"{l_uuid} is being checked already; wait for that.", "steps": []}
        self._worker.being_checked.add(l_uuid)
        try:
            await self._look(trunk)
        finally:
            self._worker.being_checked.discard(l_uuid)
        told: Result = storable(self._verdict(trunk))
        return told

    async def _look(self, trunk: Trunk) -> None:
        if not self._row(trunk.account):
            return
        target = await Reach(self._checkup, trunk).registrar()
        if target is not None:
            await self._registrar(trunk.account, target)

    def _row(self, account: UacAccount) -> bool:
        step = self._checkup.begin("account", "The account")
        if problem := problem_of(account):
            return step.ended(BAD, "Its row makes no REGISTER.", problem)
        state = self._registrations.snapshot(account.l_uuid)
        now = "is not registered here" if state is None else f"is {state.state.value} now"
        if state is not None and state.state in _UP:
            now += f" at {state.target}"
        if not account.enabled:
            return step.ended(REMARK, f"{account.l_uuid} is disabled; it is checked all the same.")
        if not account.expires:
            return step.ended(REMARK, f"{account.l_uuid} has expires 0: it never registers by itself.")
        return step.ended(GOOD, f"{account.l_uuid} {now}.")

    async def _registrar(self, account: UacAccount, target: Target) -> None:
        step = self._checkup.begin("query", f"Bindings at {target}")
        trial = Trial(self._registrations, account, (target,), REGISTER / 2)
        outcome = await self._checkup.exchange(trial.query, REGISTER)
        held_there = listed(outcome.message) if _granted(outcome) and outcome.message is not None else []
        names = [_name(each) for each in held_there]
        live = account.l_uuid if account.l_uuid in names else account.contact_key[0]
        was_listed = live in names
        if _granted(outcome):
            step.lines += [
                each.text.decode("utf-8", "replace") + (f", {each.expires} s left" if each.expires is not None else "")
                for each in held_there
            ]
            step.lines += [f"Realm {outcome.realm_seen}, signed with {outcome.digest}."] if outcome.digest else []
            held = self._registrations.target(account.l_uuid) is not None
            if held and not was_listed:
                step.ended(REMARK, "The provider accepts the account, but lists no binding of it. Press Register now.")
            else:
                step.ended(GOOD, f"The provider accepts the account; it holds {len(held_there)} of its bindings.")
        elif not self._went_wrong(step, account, target, outcome, lenient=True):
            return
        if self._order.payload.get("trial", True):
            await self._try(account, target, trial, live if was_listed else "")
        else:
            self._checkup.begin("trial", "A trial binding").ended(SKIPPED, "Not asked for.")

    async def _try(self, account: UacAccount, target: Target, trial: Trial, live: str) -> None:
        step = self._checkup.begin("trial", "A trial binding")
        outcome = await self._checkup.exchange(trial.register, REGISTER)
        if outcome.code == 423 and outcome.message is not None:
            least = number_of(outcome.message, b"Min-Expires") or 0
            if trial.binding.asked < least <= LONGEST:
                step.lines.append(f"The provider wants at least {least} s.")
                trial.binding.asked = least
                outcome = await self._checkup.exchange(trial.register, REGISTER)
        sent = outcome.sent_at is not None
        if _granted(outcome) and outcome.message is not None:
            names = [_name(each) for each in listed(outcome.message)]
            if not names:
                told = "The provider answered 200 and lists no binding."
                step.ended(BAD, told, "no_binding", number=account.r_username)
            elif trial.name not in names:
                step.ended(REMARK, "The provider rewrites Contacts: it lists another one than ours.")
            else:
                step.ended(GOOD, f"Bound for {trial.binding.asked} s at most, beside the account's own.")
        else:
            self._went_wrong(step, account, target, outcome, bound=False)
            if step.cause == "banned_403" and account.contact_key == (account.l_uuid, ""):
                # The account was accepted a moment ago; what was new is the Contact.
                step.cause, step.facts["number"] = "contact_number", account.r_username
            elif step.code == 420 and account.gin:
                step.cause = "no_gin"
        if sent and (outcome.message is None or _granted(outcome)):
            await self._remove(account, trial, live)

    async def _remove(self, account: UacAccount, trial: Trial, live: str) -> None:
        step = self._checkup.begin("removal", "Its removal")
        outcome = await self._checkup.exchange(trial.remove, REGISTER)
        if not _granted(outcome) or outcome.message is None:
            told = answer(outcome.code, outcome.reason) or "no answer"
            step.ended(REMARK, f"Not confirmed ({told}); it ends by itself within {trial.binding.asked} s.")
            return
        names = [_name(each) for each in listed(outcome.message)]
        if trial.name in names:
            step.ended(REMARK, f"The provider still lists it; it ends by itself within {trial.binding.asked} s.")
        elif live and live not in names:
            self._worker.call(self._registrations.register, account.l_uuid)
            step.ended(
                REMARK, "The provider keeps one binding only, and the trial took its place: registered again now. "
                "Check this account without a trial from now on.",
            )
        else:
            step.ended(GOOD, "The trial binding is gone" + (", the account's own stands." if live else "."))

    def _went_wrong(
        self, step: Step, account: UacAccount, target: Target, outcome: Outcome, *, lenient: bool = False,
        bound: bool = True,
    ) -> bool:
        """Close a step whose REGISTER got no 200; with `lenient` a server may dislike the form of a query."""
        step.code, step.reason = outcome.code, outcome.reason if outcome.message is not None else ""
        cause = outcome.cause or "timeout"
        if not outcome.cause and outcome.code is not None:
            _, cause = judge(outcome.code, outcome.retry_after > 0, False)
        told = answer(outcome.code, step.reason) if outcome.message is not None else outcome.reason or "No answer."
        if lenient and outcome.message is not None and not outcome.cause and outcome.code in (400, 405, 420, 500, 501):
            return step.ended(REMARK, f"The provider takes no query: {told}.")
        return step.ended(
            BAD, told, cause, got=outcome.realm_seen, want=account.realm, number=account.r_username,
            detail=outcome.detail, cert=outcome.detail, wait=f"{outcome.retry_after} s" if outcome.retry_after else "",
            our_ip=account.contact_addr or self._worker.env.reg_contact_addr, **facts_of(target),
        )

    def _verdict(self, trunk: Trunk) -> Result:
        account = trunk.account
        failed = next((step for step in self._checkup.steps if step.state == BAD), None)
        remarks = [step.detail for step in self._checkup.steps if step.state == REMARK]
        steps = [step.shown() for step in self._checkup.steps]
        base: Result = {"l_uuid": account.l_uuid, "steps": steps, "remarks": remarks}
        if failed is None:
            made = any(step.name == "removal" and step.state == GOOD for step in self._checkup.steps)
            verdict = "All is well: the provider accepts this account" + (
                ", and a trial binding was made and removed." if made else "."
            )
            return {"ok": True, "message": verdict, "verdict": verdict, "fix": "", "cause": "", **base}
        facts = {"host": trunk.registrar, "number": account.r_username, **{k: v for k, v in failed.facts.items() if v}}
        text = explain(failed.cause, failed.code, failed.reason, facts)
        return {
            "ok": False, "message": f"{text.sentence} {text.fix}", "verdict": text.sentence, "fix": text.fix,
            "cause": failed.cause, **base,
        }


def _name(each: Listed) -> str:
    """What tells a binding of ours from others: its line, else its user."""
    return (each.line or each.user).decode("utf-8", "replace")


def _granted(outcome: Outcome) -> bool:
    return outcome.code is not None and outcome.code // 100 == 2
