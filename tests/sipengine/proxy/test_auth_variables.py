"""auth_realm_avp, auth_username_avp, auth_password_avp: what a script leaves for `uac_auth` (kamailio-uac h.2)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.message import parse
from sipengine.uac.digest import Credentials
from tests.sipengine.net import KEYS
from tests.sipengine.outbound import Outbound, assert_apart, proves

OF_SCRIPT = Credentials(b"script", b"s3cret")


def outbound(**variables: str) -> Outbound:
    names = {"realm": "$avp(s:realm)", "username": "$avp(user)", "password": "$var(pw)"} | variables
    net = Outbound(
        Configuration(seal_keys=KEYS, **{f"auth_{part}_avp": name for part, name in names.items()})  # type: ignore[arg-type]
    )
    net.known["berlin"] = (Credentials(b"account", b"other"),)
    return net


@pytest.mark.parametrize(("realm", "values", "by"), [
    ("provider.example", ("script", "s3cret"), OF_SCRIPT),
    ("", ("script", "s3cret"), OF_SCRIPT),  # empty: any
    (None, ("script", "s3cret"), OF_SCRIPT),
    ("elsewhere", ("script", "s3cret"), Credentials(b"account", b"other")),  # exactly that realm
    ("", ("script", None), Credentials(b"account", b"other")),  # both, or none
    ("", (None, "s3cret"), Credentials(b"account", b"other")),
])  # fmt: skip
def test_the_scripts_variables_go_first(
    realm: str | None, values: tuple[str | None, str | None], by: Credentials
) -> None:
    net = outbound()

    def call_out(context: Any) -> None:
        context.set_pv("$avp(realm)", realm)
        context.set_pv("$avp(user)", values[0])
        context.set_pv("$var(pw)", values[1])
        net.call_out(context)

    net.routing.decide = call_out
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    assert proves(net.last(), by) == 1


def test_they_do_alone_and_the_number_is_raised_for_the_rest_of_the_call() -> None:
    net = outbound()
    net.known["berlin"] = ()

    def call_out(context: Any) -> None:
        context.avp["user"] = "script"
        context.set_pv("$var(pw)", "s3cret")
        net.call_out(context)

    net.routing.decide = call_out
    call = net.up()
    assert proves(call.invite, OF_SCRIPT) == 1 and call.invite.cseq[0] == 2 and call.ok.cseq[0] == 1
    assert net.last().cseq == (2, b"ACK")
    net.send(net.pbx, call.from_pbx(b"BYE", 2))
    assert net.last().cseq == (3, b"BYE")
    assert_apart(net)


def test_mode_1_takes_them_for_an_ha1() -> None:
    import hashlib

    net = outbound()
    net.mode = 1

    def call_out(context: Any) -> None:
        context.avp["user"] = "49301"
        context.set_pv("$var(pw)", hashlib.md5(b"49301:provider.example:s3cret").hexdigest())
        net.call_out(context)

    net.routing.decide = call_out
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    assert proves(net.last()) == 1


def test_a_log_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    net = outbound()

    def call_out(context: Any) -> None:
        context.set_pv("$var(pw)", "s3cret")
        context.set_pv("$uac_req(apasswd)", "s3cret")
        context.xlog("[$avp(user)] [$var(pw)] [$uac_req(apasswd)] [$T_req($var(pw))]")
        net.call_out(context)

    net.routing.decide = call_out
    with caplog.at_level(logging.INFO, "sipengine"):
        net.send(net.pbx, net.dial())
    assert parse(net.provider.take()[-1]).method == b"INVITE"
    [record] = caplog.records
    assert record.getMessage() == "[<null>] [***] [***] [***] (call out1)"
