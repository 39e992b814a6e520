"""Kamailio's pseudo-variables of a response context: `context.fU`, `context.pv("$hdr(X-Foo)")`, `context.avp["name"]`.

A variable is text, or a number where it is one; what is not there is "" or 0, and None where it was asked for by a key
(`$hdr(x)`, `$avp(x)`, `$var(x)`).  Nothing is worked out before somebody asks.  Transformations (`{s.len}`) are not
built: Python has them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sipengine.exceptions import InvalidState, LocalProtocolError, ParseError, UnsupportedUriScheme
from sipengine.message.fields import CACHE_LIMIT, CANONICAL, CONTACT, FROM, TO
from sipengine.message.message import Message, value_of
from sipengine.message.uri import SipUri
from sipengine.message.values import NameAddr, tag_of, uri_of
from sipengine.proxy.hooks import BRANCH_ROUTE, FAILURE_ROUTE, ONREPLY_ROUTE, log
from sipengine.uac.digest import Credentials

if TYPE_CHECKING:
    from sipengine.proxy.context import ResponseContext

Value = str | int | None

LEVELS = {
    "L_ALERT": logging.CRITICAL, "L_CRIT": logging.CRITICAL, "L_ERR": logging.ERROR, "L_WARN": logging.WARNING,
    "L_NOTICE": logging.INFO, "L_INFO": logging.INFO, "L_DBG": logging.DEBUG,
}  # fmt: skip
SECRET_FIELDS = frozenset({b"authorization", b"proxy-authorization"})
NO_NAME_ADDR = NameAddr(b"", b"", b"")

_ARGUMENT = r"[^()]*(?:\([^()]*\)[^()]*)*"
_FORM = re.compile(rf"\$(?:(\w+)(?:\(({_ARGUMENT})\))?|\((\w+)(?:\(({_ARGUMENT})\))?(?:\[(-?\d+)\])?\))")
_IN_TEXT = re.compile(r"\$\$|" + _FORM.pattern)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


class Variable:
    """One pseudo-variable as an attribute of the context; without `write` it can only be read."""

    __slots__ = ("cure", "name", "read", "write")

    def __init__(
        self, read: Callable[[ResponseContext], str | int],
        write: Callable[[ResponseContext, Any], None] | None = None, cure: str = "",
    ) -> None:
        self.read = read
        self.write = write
        self.cure = cure

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, context: ResponseContext, owner: type) -> Any:
        return self.read(context)

    def __set__(self, context: ResponseContext, value: Any) -> None:
        if self.write is None:
            raise InvalidState(f"${self.name} can only be read{self.cure}")
        self.write(context, value)


class Store:
    """What the hooks of one request put by: AVPs and `$var`s, both gone with its transaction."""

    __slots__ = ("avp", "var")

    def __init__(self) -> None:
        self.avp: dict[str, Any] = {}
        self.var: dict[str, Any] = {}


# what the variables read
def looked_at(context: ResponseContext) -> Message:
    """The message that a hook is about: the response in `onreply_route`, else the request."""
    return context.response or context.message if context.route is ONREPLY_ROUTE else context.message


def from_line(context: ResponseContext) -> bytes:
    return looked_at(context).line(FROM) if context.route is ONREPLY_ROUTE else context.from_line


def to_line(context: ResponseContext) -> bytes:
    return looked_at(context).line(TO) if context.route is ONREPLY_ROUTE else context.to_line


def original(context: ResponseContext) -> bytes:
    """Request-URI as received."""
    return (context.pristine if context.route is BRANCH_ROUTE else context.message).ruri


def last_response(context: ResponseContext) -> Message | None:
    """The response in `onreply_route`, the best one in `failure_route`; None where it is ours or there is none."""
    return context.response if context.route in (ONREPLY_ROUTE, FAILURE_ROUTE) else None


def text(value: bytes | None) -> str:
    return value.decode(errors="replace") if value else ""


def uri_part(uri: bytes, part: str) -> str:
    """`user` (without password), `host`, `port`, `transport` of a URI; "" for what has none or is no SIP URI."""
    try:
        parsed = SipUri.parse(uri)
    except UnsupportedUriScheme:
        return text(uri.partition(b":")[2].partition(b";")[0]) if part == "user" else ""
    except ParseError:
        return ""
    if part == "user":
        return text((parsed.user or b"").partition(b":")[0])
    if part == "host":
        return text(parsed.host)
    if part == "port":
        return str(parsed.port or "")
    return text(parsed.param(b"transport"))


def port_of(uri: bytes) -> int:
    """Port of a URI, 5060 (5061 for sips) where it names none, 0 for what is no SIP URI."""
    written = uri_part(uri, "port")
    if written or not uri_part(uri, "host"):
        return int(written or 0)
    return 5061 if uri[:5].lower() == b"sips:" else 5060


def display_of(line: bytes) -> str:
    return text(NameAddr.parse(value_of(line)).display)


def field(name: bytes) -> Callable[[ResponseContext], str]:
    return lambda context: text(looked_at(context).get(name))


def status_of(context: ResponseContext) -> int:
    """`$T_reply_code`: of the response in hand, or the best one so far."""
    if context.route is ONREPLY_ROUTE and context.response is not None:
        return context.response.status
    return context.status


# what they write
def write_ruri(context: ResponseContext, uri: bytes | str) -> None:
    context.ruri = uri


def write_ruri_host(context: ResponseContext, host: bytes | str) -> None:
    uri = SipUri.parse(context.ruri)
    name, _, port = (host if isinstance(host, str) else text(host)).partition(":")
    context.ruri = bytes(SipUri(
        uri.scheme, uri.user, name.encode(), int(port) if port.isdigit() else uri.port, uri.parameters, uri.headers
    ))


def write_ruri_port(context: ResponseContext, port: int | str) -> None:
    uri = SipUri.parse(context.ruri)
    context.ruri = bytes(SipUri(
        uri.scheme, uri.user, uri.host, int(port) if port else None, uri.parameters, uri.headers
    ))


_FROM_CURE = "; uac_replace_from changes it, and puts it back for the whole call"
_TO_CURE = "; uac_replace_to changes it, and puts it back for the whole call"


class Variables:
    """The pseudo-variables of a response context."""

    __slots__ = ()

    ru = Variable(lambda c: text(c.ruri), write_ruri)
    rd = Variable(lambda c: uri_part(c.ruri, "host"), write_ruri_host)
    rp = Variable(lambda c: port_of(c.ruri), write_ruri_port)
    ou = Variable(lambda c: text(original(c)))
    oU = Variable(lambda c: uri_part(original(c), "user"))  # noqa: N815 - Kamailio's names, here and below
    od = Variable(lambda c: uri_part(original(c), "host"))
    op = Variable(lambda c: port_of(original(c)))
    dd = Variable(lambda c: uri_part(c._du, "host"))
    dp = Variable(lambda c: port_of(c._du))

    fu = Variable(lambda c: text(uri_of(from_line(c))), cure=_FROM_CURE)
    fU = Variable(lambda c: uri_part(uri_of(from_line(c)), "user"), cure=_FROM_CURE)  # noqa: N815
    fd = Variable(lambda c: uri_part(uri_of(from_line(c)), "host"), cure=_FROM_CURE)
    fn = Variable(lambda c: display_of(from_line(c)), cure=_FROM_CURE)
    ft = Variable(lambda c: text(tag_of(from_line(c))))
    tu = Variable(lambda c: text(uri_of(to_line(c))), cure=_TO_CURE)
    tU = Variable(lambda c: uri_part(uri_of(to_line(c)), "user"), cure=_TO_CURE)  # noqa: N815
    td = Variable(lambda c: uri_part(uri_of(to_line(c)), "host"), cure=_TO_CURE)
    tn = Variable(lambda c: display_of(to_line(c)), cure=_TO_CURE)
    tt = Variable(lambda c: text(tag_of(to_line(c))))

    si = Variable(lambda c: c.flow.remote[0])
    sp = Variable(lambda c: c.flow.remote[1])
    Ri = Variable(lambda c: c.flow.listener.host)
    Rp = Variable(lambda c: c.flow.listener.port)
    pr = Variable(lambda c: c.flow.listener.transport)

    ci = Variable(lambda c: text(c._call_id))
    cs = Variable(lambda c: looked_at(c).cseq[0])
    rm = Variable(lambda c: text(c.method))
    rs = Variable(lambda c: c.response.status if c.route is ONREPLY_ROUTE and c.response else 0)
    rr = Variable(lambda c: text(c.response.reason) if c.route is ONREPLY_ROUTE and c.response else "")
    ua = Variable(field(b"User-Agent"))
    ct = Variable(field(CONTACT))
    cT = Variable(field(b"Content-Type"))  # noqa: N815
    rb = Variable(lambda c: text(looked_at(c).body))
    T_reply_code = Variable(status_of)
    T_reply_reason = Variable(lambda c: text(r.reason) if (r := last_response(c)) else "")

    @property
    def avp(self: ResponseContext) -> dict[str, Any]:  # type: ignore[misc]
        """AVPs by name: what one hook of a request leaves for the next, until its transaction ends."""
        return _store(self).avp

    def pv(self: ResponseContext, name: str) -> Value:  # type: ignore[misc]
        """Value of a pseudo-variable by its text: `$fU`, `$hdr(X-Foo)`, `$(hdr(Via)[1])`, `$avp(s:x)`, `$T_rpl($ua)`.

        Raises LocalProtocolError for a name that is none.
        """
        name, argument, index = _parsed(name)
        if argument is None:
            if name == "null":
                return None
            if name == "du" or name == "rU":
                return str(getattr(self, name))
            variable = vars(Variables).get(name)
            if not isinstance(variable, Variable):
                raise LocalProtocolError(f"${name} is no pseudo-variable; docs/routing.md has those that are")
            return variable.read(self)
        if name == "hdr":
            return _header(looked_at(self), argument, index)
        if name == "avp":
            return _scalar(_store(self).avp.get(avp_name(argument)))
        if name == "var":
            return _scalar(_store(self).var.get(argument))
        if name == "uac_req":
            return self.uac_req.get(argument)
        if name in ("T_rpl", "T_req"):
            return self._read_as(name, argument)
        raise LocalProtocolError(f"${name}(…) is no pseudo-variable; docs/routing.md has those that are")

    def set_pv(self: ResponseContext, name: str, value: Any) -> None:  # type: ignore[misc]
        """Set a pseudo-variable by its text; None is Kamailio's `$null` and takes it away."""
        name, argument, _ = _parsed(name)
        if argument is None:
            if name not in ("du", "rU") and not isinstance(vars(Variables).get(name), Variable):
                raise LocalProtocolError(f"${name} is no pseudo-variable; docs/routing.md has those that are")
            setattr(self, name, "" if value is None else value)
        elif name == "uac_req":
            self.uac_req.set(argument, value)
        elif name in ("avp", "var"):
            store = getattr(_store(self), name)
            key = avp_name(argument) if name == "avp" else argument
            if value is None:
                store.pop(key, None)
            else:
                store[key] = value
        else:
            raise InvalidState(f"${name}({argument}) can only be read")

    def expand(self: ResponseContext, template: str) -> str:  # type: ignore[misc]
        """A text with each pseudo-variable in it replaced by its value; `$$` is a dollar sign."""
        return _IN_TEXT.sub(lambda found: self._shown(found[0]), template)

    def xlog(self: ResponseContext, level_or_text: str, template: str = "") -> None:  # type: ignore[misc]
        """Log a text with pseudo-variables: `xlog("L_NOTICE", "[$ou => $ru]")`, or the text alone (`L_INFO`).

        Secrets are shown as ``***``, and nobody can break a line.
        """
        level = LEVELS.get(level_or_text, logging.INFO) if template else logging.INFO
        if log.isEnabledFor(level):
            shown = _IN_TEXT.sub(
                lambda found: "***" if self._is_secret(found[0]) else self._shown(found[0]), template or level_or_text
            )
            log.log(level, "%s (call %s)", _CONTROL.sub(" ", shown).strip(), self.call_id)

    def _shown(self: ResponseContext, name: str) -> str:  # type: ignore[misc]
        if name == "$$":
            return "$"
        value = self.pv(name)
        return "<null>" if value is None else str(value)

    def _is_secret(self: ResponseContext, name: str) -> bool:  # type: ignore[misc]
        if name == "$$":
            return False
        name, argument, _ = _parsed(name)
        if argument is None:
            return False
        if name in ("T_rpl", "T_req"):
            return self._is_secret(argument)
        if name == "hdr":
            return argument.encode().lower() in SECRET_FIELDS
        if name == "avp":
            return avp_name(argument) in self.core.secret_variables
        return (name == "uac_req" and argument == "apasswd") or f"${name}({argument})" in self.core.secret_variables

    def _read_as(self: ResponseContext, name: str, variable: str) -> Value:  # type: ignore[misc]
        """`$T_rpl(pv)`, `$T_req(pv)`: read `pv` of the response, or of the request, whatever hook runs."""
        route, kept = self.route, last_response(self)
        if name == "T_rpl" and kept is None:
            return None
        self.route = ONREPLY_ROUTE if name == "T_rpl" else FAILURE_ROUTE
        try:
            return self.pv(variable)
        finally:
            self.route = route


def credentials_of(context: ResponseContext) -> tuple[Credentials, ...]:
    """What the script put into the variables of `auth_realm_avp`, `auth_username_avp` and `auth_password_avp`."""
    realm, username, password = (str(context.pv(name) or "") for name in context.core.auth_avps)
    if not username or not password:
        return ()
    return (Credentials(username.encode(), password.encode(), realm=realm.encode()),)


def avp_name(name: str) -> str:
    """`$avp(s:x)`, `s:x` and `x` are one AVP; `i:11` is another than `11`."""
    if name.startswith("$avp(") and name.endswith(")"):
        name = name[5:-1]
    return name.removeprefix("s:")


@lru_cache(CACHE_LIMIT)
def _parsed(text: str) -> tuple[str, str | None, int]:
    """Name, argument and index of a pseudo-variable's text."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise LocalProtocolError(f"{text!r} is no pseudo-variable; write $name, $name(key) or $(name(key)[index])")
    plain, argument, wrapped, wrapped_argument, index = match.groups()
    return plain or wrapped, argument if plain else wrapped_argument, int(index or 0)


def _store(context: ResponseContext) -> Store:
    store = context._store
    if store is None:
        store = context._store = Store()
    return store


def _header(message: Message, name: str, index: int) -> str | None:
    try:
        key = CANONICAL[name.encode()]
    except ParseError as error:
        raise LocalProtocolError(f"$hdr({name}): {error}") from None
    if key not in message.keys:
        return None
    values = message.get_all(key)
    return text(values[index]) if -len(values) <= index < len(values) else None


def _scalar(value: Any) -> Value:
    return text(value) if isinstance(value, bytes) else value
