"""The environment: every variable is typed and explained, and a bad value names itself and its cure."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from trunkmgr.env import BASE_DIR, REPLACED, Env, StaticCredential, example


def test_defaults() -> None:
    env = Env.read({})
    assert env.data_dir == BASE_DIR / "data"
    assert (env.http_host, env.http_port) == ("127.0.0.1", 8000)
    assert env.sip_listen == ("udp:0.0.0.0:5060", "tcp:0.0.0.0:5060")
    assert (env.restore_mode, env.restore_codec, env.rr_from_store_param, env.rr_to_store_param) == (
        "auto", "sealed", "vsf", "vst",
    )
    assert env.reg_timer_interval == 10.0
    assert env.embedded is True
    assert env.node
    assert env.replaced == ()


def test_values_are_typed() -> None:
    env = Env.read({
        "TRUNKMGR_HTTP": "[::1]:80", "TRUNKMGR_SIP_LISTEN": "udp:[::1]:5060, tcp:127.0.0.1:0", "TRUNKMGR_NODE": "sip-1",
        "TRUNKMGR_ALLOWED_HOSTS": "a.example, b.example", "UAC_RESTORE_MODE": "AUTO", "UAC_REG_TIMER_INTERVAL": "2.5",
        "REDIS_URL": "redis://127.0.0.1:6379/0", "DATABASE_URL": "postgres://u:p@127.0.0.1/x",
        "TRUNKMGR_LOG_LEVEL": "debug",
    })
    assert (env.http_host, env.http_port) == ("::1", 80)
    assert env.sip_listen == ("udp:[::1]:5060", "tcp:127.0.0.1:0")
    assert env.allowed_hosts == ("a.example", "b.example")
    assert (env.restore_mode, env.reg_timer_interval, env.embedded, env.log_level) == ("auto", 2.5, False, "DEBUG")


def test_registration_parameters_of_the_seed() -> None:
    env = Env.read({})
    assert (env.reg_active, env.reg_use_domain, env.reg_retry_interval, env.reg_random_delay, env.default_socket) == (
        True, False, 0, 0, "",
    )
    env = Env.read({
        "UAC_REG_ACTIVE": "0", "UAC_REG_USE_DOMAIN": "1", "UAC_REG_RETRY_INTERVAL": "300", "UAC_REG_RANDOM_DELAY": "60",
        "UAC_DEFAULT_SOCKET": "UDP:192.0.2.1:5060", "TRUNKMGR_SIP_LISTEN": "tcp:192.0.2.1:5060,udp:0.0.0.0:5060",
    })
    assert (env.reg_active, env.reg_use_domain, env.reg_retry_interval, env.reg_random_delay, env.default_socket) == (
        False, True, 300, 60, "udp:192.0.2.1:5060",
    )
    own = {"UAC_DEFAULT_SOCKET": "tcp:[::1]:5070", "TRUNKMGR_SIP_LISTEN": "udp:127.0.0.1:5060,tcp:[::1]:5070"}
    assert Env.read(own).default_socket == "tcp:[::1]:5070"


def test_browsers_come_over_sockets_of_their_own_and_from_pages_that_are_named() -> None:
    env = Env.read({
        "TRUNKMGR_SIP_LISTEN": "wss:0.0.0.0:8443", "TRUNKMGR_WS_ORIGINS": "https://Phone.example, http://[::1]:8080",
    })
    assert env.sip_listen == ("wss:0.0.0.0:8443",)
    assert env.ws_origins == ("https://phone.example", "http://[::1]:8080") and Env.read({}).ws_origins == ()
    assert Env.read({"TRUNKMGR_WS_ORIGINS": "*"}).ws_origins == ("*",)


def test_nameservers_and_hosts() -> None:
    env = Env.read({
        "TRUNKMGR_NAMESERVERS": "192.0.2.53, 127.0.0.1:5353 [::1]:53 2001:db8::53",
        "TRUNKMGR_HOSTS": "sip.Provider.example.=192.0.2.1,pbx=[2001:db8::9] pbx=192.0.2.9",
    })
    assert env.nameservers == ("192.0.2.53", "127.0.0.1:5353", "[::1]:53", "2001:db8::53")
    assert env.hosts == {"sip.provider.example": ("192.0.2.1",), "pbx": ("2001:db8::9", "192.0.2.9")}
    assert Env.read({}).nameservers == () and Env.read({}).hosts == {}


@pytest.mark.parametrize(("name", "value", "cure"), [
    ("TRUNKMGR_HTTP", "8000", "HOST:PORT"),
    ("UAC_REG_RETRY_INTERVAL", "3", "at least 5"),
    ("UAC_REG_RETRY_INTERVAL", "-1", "whole seconds"),
    ("UAC_REG_RANDOM_DELAY", "1.5", "whole seconds"),
    ("UAC_REG_ACTIVE", "perhaps", "1 or 0"),
    ("UAC_DEFAULT_SOCKET", "192.0.2.1:5060", "TRANSPORT:IP:PORT"),
    ("UAC_DEFAULT_SOCKET", "udp:192.0.2.1:5060,udp:192.0.2.1:5070", "one socket"),
    ("UAC_DEFAULT_SOCKET", "udp:192.0.2.1:5090", "TRUNKMGR_SIP_LISTEN"),
    ("UAC_DEFAULT_SOCKET", "udp:[::1]:5060", "TRUNKMGR_SIP_LISTEN"),
    ("TRUNKMGR_HTTP", "127.0.0.1:99999", "HOST:PORT"),
    ("TRUNKMGR_SIP_LISTEN", "sctp:127.0.0.1:5060", "write one of udp, tcp, tls, ws, wss"),
    ("TRUNKMGR_SIP_LISTEN", "udp:localhost:5060", "TRANSPORT:IP:PORT"),
    ("TRUNKMGR_SIP_LISTEN", ",", "at least one"),
    ("TRUNKMGR_TLS_CERTIFICATE", "own.pem", "absolute path"),
    ("TRUNKMGR_TLS_MINIMUM", "1.1", "1.2, 1.3"),
    ("TRUNKMGR_WS_ORIGINS", "phone.example", "https://phone.example"),
    ("TRUNKMGR_WS_ORIGINS", "https://phone.example/app", "https://phone.example"),
    ("UAC_DEFAULT_SOCKET", "wss:0.0.0.0:8443", "udp, tcp or tls"),
    ("TRUNKMGR_NODE", "a b", "letters, digits"),
    ("TRUNKMGR_NAMESERVERS", "dns.example", "IP or IP:PORT"),
    ("TRUNKMGR_NAMESERVERS", "192.0.2.53:0", "IP or IP:PORT"),
    ("TRUNKMGR_NAMESERVERS", "192.0.2.53:port", "IP or IP:PORT"),
    ("TRUNKMGR_HOSTS", "sip.provider.example", "NAME=IP"),
    ("TRUNKMGR_HOSTS", "sip.provider.example=elsewhere", "NAME=IP"),
    ("TRUNKMGR_HOSTS", "=192.0.2.1", "NAME=IP"),
    ("TRUNKMGR_DATA_DIR", "/" + "x" * 120, "too long"),
    ("TRUNKMGR_LOG_LEVEL", "LOUD", "WARNING"),
    ("DATABASE_URL", "mysql://x", "postgres://"),
    ("REDIS_URL", "http://x", "redis://"),
    ("UAC_RESTORE_MODE", "yes", "none, manual, auto"),
    ("UAC_RESTORE_CODEC", "xor", "sealed, kamailio"),
    ("UAC_RR_FROM_STORE_PARAM", "a;b", "URI parameter"),
    ("UAC_RESTORE_FROM_AVP", "original_from", "$avp(s:original_from)"),
    ("UAC_RESTORE_TO_AVP", "$var(x)", "an AVP"),
    ("UAC_AUTH_REALM_AVP", "realm", "pseudo-variable"),
    ("UAC_AUTH_REALM_AVP", "$avp(a) $avp(b)", "pseudo-variable"),
    ("UAC_AUTH_USERNAME_AVP", "$avp(user)", "set all three or none"),
    ("UAC_CREDENTIAL", "alice:s3cret", "entry 1 is not USER:REALM:PASSWORD"),
    ("UAC_CREDENTIAL", "alice:example.net:s3cret alice::s3cret", "entry 2 is not USER:REALM:PASSWORD"),
    ("UAC_REG_TIMER_INTERVAL", "0", "from 1 to 3600"),
    ("UAC_REG_TIMER_INTERVAL", "soon", "from 1 to 3600"),
])
def test_a_bad_value_names_variable_value_and_cure(name: str, value: str, cure: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        Env.read({name: value})
    assert str(caught.value).startswith("UAC_AUTH_" if name.startswith("UAC_AUTH_") else f"{name}: ")
    assert cure in str(caught.value)


def test_credentials_and_variables_of_the_routing_script() -> None:
    env = Env.read({
        "UAC_CREDENTIAL": " alice:example.net:s3:cret\n\tbob:example.org:hidden ",
        "UAC_RESTORE_FROM_AVP": "$avp(s:from)", "UAC_RESTORE_TO_AVP": "$avp(to)",
        "UAC_AUTH_REALM_AVP": "$avp(i:10)", "UAC_AUTH_USERNAME_AVP": "$var(user)",
        "UAC_AUTH_PASSWORD_AVP": "$avp(s:password)",
    })
    assert env.credentials == (
        StaticCredential("alice", "example.net", "s3:cret"), StaticCredential("bob", "example.org", "hidden"),
    )
    assert (env.restore_from_avp, env.restore_to_avp) == ("$avp(s:from)", "$avp(to)")
    assert (env.auth_realm_avp, env.auth_username_avp, env.auth_password_avp) == (
        "$avp(i:10)", "$var(user)", "$avp(s:password)",
    )
    assert "hidden" not in repr(env.credentials)
    assert Env.read({}).credentials == ()


@pytest.mark.parametrize("name", [
    "TRUNKMGR_FIELD_KEYS", "TRUNKMGR_SEAL_KEYS", "DATABASE_URL", "REDIS_URL", "UAC_CREDENTIAL",
])
def test_the_error_of_a_secret_does_not_repeat_it(name: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        Env.read({name: "mysql://hidden-value"})
    assert "hidden-value" not in str(caught.value)


@pytest.mark.checklist("M11")
def test_no_secret_in_repr() -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    shown = repr(Env.read({
        "TRUNKMGR_SECRET_KEY": "hidden", "TRUNKMGR_FIELD_KEYS": key, "TRUNKMGR_SEAL_KEYS": key,
        "DATABASE_URL": "postgres://u:hidden@127.0.0.1/x", "REDIS_URL": "redis://:hidden@127.0.0.1",
        "UAC_RESTORE_PASSWD": "hidden", "UAC_CREDENTIAL": "alice:example.net:hidden", "UAC_REG_DB_URL": "postgres://u:hidden@127.0.0.1/x",
    }))
    assert "hidden" not in shown
    assert key not in shown


def test_the_25_parameters_of_the_seed_are_known() -> None:
    seed = """
        rr_from_store_param rr_to_store_param restore_mode restore_dlg restore_passwd
        restore_from_avp restore_to_avp credential auth_realm_avp auth_username_avp
        auth_password_avp reg_db_url reg_db_table reg_contact_addr reg_timer_interval
        reg_retry_interval reg_random_delay reg_keep_callid reg_active reg_gc_interval reg_hash_size
        reg_use_domain default_socket event_callback reload_delta
    """.split()
    ours = {item.metadata["name"] for item in fields(Env) if item.metadata}
    assert len(seed) == 25
    assert [name for name in seed if f"UAC_{name.upper()}" not in ours | set(REPLACED)] == []
    assert not ours & set(REPLACED)
    assert Env.read({"UAC_REG_HASH_SIZE": "8"}).replaced == ("UAC_REG_HASH_SIZE",)


def test_the_example_file_is_this_file() -> None:
    assert (BASE_DIR / ".env.example").read_text() == example(), "run: .venv/bin/python -m trunkmgr.env"
    for item in fields(Env):
        if item.metadata:
            assert item.metadata["sentence"].endswith("."), item.name


def test_nothing_else_reads_the_environment() -> None:
    for path in (BASE_DIR / "trunkmgr").rglob("*.py"):
        if path.name != "env.py" and "management" not in path.parts:
            text = path.read_text().replace('os.environ.setdefault("DJANGO_SETTINGS_MODULE"', "")
            assert "os.environ" not in text, path
            assert "getenv" not in text, path


def test_manage_py_says_it_in_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BASE_DIR / "manage.py"), "check"], capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "TRUNKMGR_HTTP": "nonsense"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("trunkmgr cannot start. TRUNKMGR_HTTP: 'nonsense' cannot be used")
    assert "Traceback" not in done.stderr
