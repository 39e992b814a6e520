"""Causes: what a trunk's state means in plain words, what to do about it, and why a call failed.

The worker stores only a key (`wrong_password`, `timeout`, …) with code, reason and target; the words are made here, so
that a better sentence needs no migration.  Does not decide which cause holds: `sipengine.uac.registration` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

#: Reason phrases come from the network; nobody needs more of one than this.
REASON_LIMIT = 120


class Shown(StrEnum):
    """The six states people see; each has a shape, a word and a rank (worst first)."""

    REFUSED = "ref"
    FAILING = "fail"
    UNKNOWN = "unk"
    REFRESHING = "work"
    REGISTERED = "ok"
    DISABLED = "off"

    @property
    def label(self) -> str:
        return self.name.capitalize()

    @property
    def rank(self) -> int:
        return list(Shown).index(self)

    @property
    def needs_attention(self) -> bool:
        return self in (Shown.REFUSED, Shown.FAILING, Shown.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Cause:
    """Texts of one cause; `{names}` are filled in from the registration."""

    shown: Shown
    short: str
    sentence: str
    fix: str


CAUSES: dict[str, Cause] = {
    # The provider said no: a person is needed.
    "wrong_password": Cause(
        Shown.REFUSED, "Password refused", "The provider does not accept the password.",
        "Enter the SIP password again. It is not the password of the customer portal.",
    ),
    "unknown_user": Cause(
        Shown.REFUSED, "Account unknown", "The provider does not know this user name.",
        "Check user name and domain; some want the number with country code, without +.",
    ),
    "realm_mismatch": Cause(
        Shown.REFUSED, "Realm does not match", 'The provider asks for realm "{got}", this trunk is set to "{want}".',
        'Clear the realm to accept the provider\'s, or set it to "{got}".',
    ),
    "contact_number": Cause(
        Shown.REFUSED, "Number wanted in Contact", "The provider accepts only your number in the Contact.",
        'Set Contact user to "{number}" and register again.',
    ),
    "banned_403": Cause(
        Shown.REFUSED, "Blocked by provider", "The provider blocks us, most likely after too many tries.",
        "Stop other devices with this account, wait {ban}, ask for {our_ip} to be unblocked.",
    ),
    "throttled_403": Cause(
        Shown.FAILING, "Kept out for a time", "The provider refuses what it took before, often after too many tries.",
        "Stop other devices with this account and wait. Over an hour: ask the provider whether {our_ip} is blocked.",
    ),
    "throttled": Cause(
        Shown.FAILING, "Asked too often", "The provider says that we register too often.",
        "Nothing to do, we ask less often. Other devices with this account? Stop them.",
    ),
    "redirected": Cause(
        Shown.FAILING, "Sent elsewhere", "The provider sent us to a server that this account may not register at.",
        "Ask the provider for the right server, and set it as proxy.",
    ),
    "no_password": Cause(
        Shown.REFUSED, "No password set", "The provider asks for a password and this trunk has none.",
        "Enter the SIP password of this account.",
    ),
    "secret_unreadable": Cause(
        Shown.REFUSED, "Password not readable", "No key of this installation opens the stored password.",
        "Enter the password again, or add the key it was stored under to TRUNKMGR_FIELD_KEYS and restart.",
    ),
    "auth_unsupported": Cause(
        Shown.REFUSED, "Signing not supported", "The provider asks for a way of signing that we do not speak.",
        "Ask the provider for Digest with MD5, SHA-256 or SHA-512-256.",
    ),
    "weaker_digest": Cause(
        Shown.REFUSED, "Weaker signing asked for", "The provider asks for MD5, weaker than before or than allowed.",
        "Ask the provider. If this is meant, set this trunk's weakest digest to MD5.",
    ),
    "no_gin": Cause(
        Shown.REFUSED, "No bulk registration", "The provider does not take bulk registration (GIN).",
        "Switch bulk registration (gin) off for this trunk, or ask the provider to switch it on for the account.",
    ),
    "bad_row": Cause(
        Shown.REFUSED, "Row cannot be used", "A field of this trunk is missing or cannot stand in a SIP message.",
        "Check user names, domains, Contact address and Contact user of this trunk.",
    ),
    # No usable answer: we keep trying.
    "dns_empty": Cause(
        Shown.FAILING, "No address found", "DNS has no address for {host}.",
        "Check the spelling; else set a proxy.",
    ),
    "tls_name": Cause(
        Shown.FAILING, "Certificate name differs", "The certificate is for {cert}; we called {host}.",
        "Use the name on the certificate as proxy, or let the provider's row say what else counts.",
    ),
    "tls_certificate": Cause(
        Shown.FAILING, "Certificate does not count", "The certificate of {host} does not count: {detail}.",
        "Signed by an authority of its own? Name that one in TRUNKMGR_TLS_CA. Else tell the provider.",
    ),
    "tls_fingerprint": Cause(
        Shown.FAILING, "Not the pinned certificate", "{host} shows another certificate than the pinned one: {detail}.",
        "Ask the provider whether it has a new one; if so, enter this fingerprint at the provider.",
    ),
    "tls_handshake": Cause(
        Shown.FAILING, "No TLS", "{target} takes connections but no TLS of ours: {detail}.",
        "Check the port (TLS has 5061 mostly) and TRUNKMGR_TLS_MINIMUM; does the provider want our certificate?",
    ),
    "timeout": Cause(
        Shown.FAILING, "No answer in 32 s", "{target} does not answer.",
        "Check firewall for {proto} {port}; other trunks there fine? Then ask the provider.",
    ),
    "unreachable": Cause(
        Shown.FAILING, "Not reachable", "{target} cannot be reached: the network or the host there says no.",
        "Check address and port, and whether a firewall rejects {proto} {port}.",
    ),
    "no_socket": Cause(
        Shown.FAILING, "No socket reaches it", "None of our sockets can reach {target}.",
        "Check TRUNKMGR_SIP_LISTEN and the local socket of this trunk or its provider: "
        "one on 127.0.0.1 stays on this host, TCP needs a tcp: entry.",
    ),
    "bad_proxy": Cause(
        Shown.FAILING, "Proxy not readable", "The outbound proxy of this trunk is not a SIP URI.",
        "Write it as sip:host or sip:host:port.",
    ),
    "no_binding": Cause(
        Shown.FAILING, "No binding in the answer", "The provider answered 200 and did not list our Contact.",
        'Try Contact user "{number}". Still so? Ask the provider which Contact it keeps for this account.',
    ),
    "busy_503": Cause(
        Shown.FAILING, "Provider asks to wait", "The provider is overloaded and asked us to wait {wait}.",
        "Nothing to do. We wait as asked. Over an hour: call the provider.",
    ),
    # Under way.
    "interval_423": Cause(
        Shown.REFRESHING, "Asking for {longer}", "The provider wants a longer registration time, at least {longer}.",
        "Done by itself. Set expiry to {longer} to save one exchange.",
    ),
    "connection_lost": Cause(
        Shown.REFRESHING, "Connection ended", "The connection that we registered over has ended.",
        "Done by itself: we register again. Often? A firewall on the way may cut quiet connections.",
    ),
    "options_silent": Cause(
        Shown.REFRESHING, "No answer to OPTIONS", "{target} no longer answers OPTIONS.",
        "Done by itself: we register again, at the next server where the provider has one.",
    ),
    "options_busy": Cause(
        Shown.REFRESHING, "503 to OPTIONS", "{target} answers OPTIONS by 503: it is too busy.",
        "Nothing to do, calls go on. Over an hour: call the provider.",
    ),
    "options_answered": Cause(
        Shown.REGISTERED, "Answers OPTIONS again", "{target} answers OPTIONS again.", "Nothing to do.",
    ),
    "nat_changed": Cause(
        Shown.REFRESHING, "Our address changed", "The provider now sees another address of ours.",
        "Done by itself. Often? Ask for a fixed address or use TCP/TLS.",
    ),
    # Registered, with a remark.
    "short_grant": Cause(
        Shown.REGISTERED, "Granted {granted} s, asked {asked}", "The provider gave a shorter time than we asked for.",
        "Nothing to do, we renew at {renew} s.",
    ),
    # Nothing is sent now.
    "inactive": Cause(
        Shown.DISABLED, "Registrations are stopped", "Sending of registrations is switched off for all trunks.",
        "Start it again with: manage.py uac reg_active 1. Register now works meanwhile, once.",
    ),
    # Nobody watches it now.
    "worker_silent": Cause(
        Shown.UNKNOWN, "Worker silent", "{worker} has sent no beat for {silence}. Calls may still work.",
        "Check the service on {worker_host}; other workers take over after {takeover} s.",
    ),
    "worker_stopped": Cause(
        Shown.UNKNOWN, "Worker stopped",
        "{worker} was stopped {silence} ago. Bindings stay at the provider until they expire.",
        "Start the service on {worker_host} again.",
    ),
    "no_worker": Cause(
        Shown.UNKNOWN, "No worker", "No SIP worker has taken this trunk yet.",
        "Check that the service runs: make run, or manage.py runsip.",
    ),
    "lapsed": Cause(
        Shown.UNKNOWN, "Not renewed", "The registration ran out, and {worker} has told nothing since.",
        "Press Register now. Still so? Look into the log of the worker.",
    ),
    "beat_late": Cause(
        Shown.UNKNOWN, "Beat late", "Last news from {worker} is {silence} old.", "Wait. Over 10 s it becomes Unknown.",
    ),
    # Switched off by a person.
    "disabled": Cause(
        Shown.DISABLED, "Disabled by operator", "{who} switched it off{when}{note}.",
        "Enable it, or delete it if it is no longer used.",
    ),
    "unregistered": Cause(
        Shown.DISABLED, "Not registered", "This trunk holds no registration and no attempt is planned.",
        "Press Register now. A trunk with expiry 0 never registers by itself.",
    ),
}

#: What the six states read where no cause is stored.
UNDER_WAY = {
    "registering": "Registering", "refreshing": "Renewing", "unregistering": "Removing the registration",
    "unregistered": "Waiting for its turn",
}

#: Words for a parameter that the registration does not tell.
_UNTOLD = {
    "got": "another realm", "want": "", "number": "Remote user name", "ban": "a while", "our_ip": "our address",
    "host": "the provider", "cert": "another name", "detail": "no reason given",
    "target": "The provider", "proto": "UDP", "port": "5060",
    "wait": "a while", "longer": "a longer time", "granted": "less", "asked": "more", "renew": "half of that",
    "worker": "The worker", "silence": "some time", "worker_host": "its host", "takeover": "30",
    "who": "An operator", "when": "", "note": "",
}


class _Words(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return _UNTOLD[name]


@dataclass(frozen=True, slots=True)
class Explanation:
    short: str
    sentence: str
    fix: str


def explain(key: str, code: int | None, reason: str, facts: Mapping[str, str]) -> Explanation:
    """Put the cause `key` into words; a key without texts reads as the raw answer, never as a guess."""
    cause = CAUSES.get(key)
    if cause is None:
        raw = answer(code, reason)
        if not raw:
            return Explanation(
                "No usable answer", "No usable answer has come yet.", "Check user name, domain and proxy.",
            )
        return Explanation(
            f"Answer {raw}", f"Answer {raw} not known to us.",
            "Look the answer up at the provider, or ask their support.",
        )
    words = _Words((name, value) for name, value in facts.items() if value)
    return Explanation(cause.short.format_map(words), cause.sentence.format_map(words), cause.fix.format_map(words))


#: What a final answer to an INVITE means; `{far}` is who gave it, the provider or the PBX.
CALL_RESULTS: dict[int, str] = {
    401: "The {far} asked for a password that we do not have", 403: "The {far} refused the call",
    404: "Number unknown at the {far}", 407: "The {far} asked for a password that we do not have",
    408: "No answer in time", 410: "Number no longer in use", 480: "Not reachable now", 484: "Number incomplete",
    486: "Busy", 487: "Given up by the caller", 488: "No codec in common", 500: "Fault at the {far}",
    503: "The {far} is overloaded or not reachable", 504: "No answer from behind the {far}", 600: "Busy",
    603: "Declined", 604: "Number unknown at the {far}", 606: "No codec in common",
}


def call_result(code: int | None, reason: str, *, outbound: bool) -> str:
    """Say in words how a call ended that nobody answered; one that we have no words for by its answer alone."""
    if code == 403 and "credentials" in reason.lower():
        # Ours to the PBX, which could do nothing with the provider's challenge (`TrunkRouting.answer_challenge`).
        return "The provider refused the password for this call"
    far = "provider" if outbound else "PBX"
    return CALL_RESULTS.get(code or 0, "").format(far=far) or answer(code, reason) or "Not answered"


def answer(code: int | None, reason: str) -> str:
    """Code and reason phrase as one text, cut to what a page can hold."""
    return f"{code or ''} {reason}".strip()[:REASON_LIMIT]
