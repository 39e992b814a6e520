"""Digest answers against vectors that others computed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from sipengine.exceptions import ChallengeUnsupported
from sipengine.uac.digest import ALGORITHMS, Challenge, Credentials, answer, choose, parse_challenge, response

TESTDATA = Path(os.environ.get("SIP_TESTDATA", Path(__file__).parents[3] / ".." / "shared" / "testdata")) / "digest"
SECRET = Credentials(b"alice", b"s3cret")


def _load(name: str, key: str) -> list[dict[str, Any]]:
    path = TESTDATA / name
    return json.loads(path.read_text())[key] if path.exists() else []


VECTORS = _load("vectors.json", "vectors")
CASES = {case["id"]: case["headers"] for case in _load("challenges.json", "cases")}
needs_data = pytest.mark.skipif(not VECTORS, reason="shared digest vectors missing: set SIP_TESTDATA")


def _challenge(vector: dict[str, Any]) -> Challenge:
    algorithm = vector["algorithm"]
    return Challenge(
        realm=vector["realm"].encode(), nonce=(vector.get("nonce") or "").encode(), opaque=None,
        algorithm=(algorithm or "MD5").upper().removesuffix("-SESS").encode(),
        algorithm_seen=algorithm.encode() if algorithm else None, sess=(algorithm or "").upper().endswith("-SESS"),
        qop=(vector.get("qop") or "").encode(), stale=False,
    )


@needs_data
@pytest.mark.rfc("7616", "3.4.1")
@pytest.mark.parametrize("vector", [v for v in VECTORS if "response" in v], ids=lambda v: v["id"])
def test_response_vectors(vector: dict[str, Any]) -> None:
    credentials = Credentials(vector["username"].encode(), vector["password"].encode())
    got = response(
        _challenge(vector), credentials, vector["method"].encode(), vector["uri"].encode(),
        nc=(vector.get("nc") or "").encode(), cnonce=(vector.get("cnonce") or "").encode(),
        body=(vector.get("body") or "").encode(),
    )
    assert (got.decode() == vector["response"]) is not vector.get("negative", False)


@needs_data
@pytest.mark.parametrize("vector", [v for v in VECTORS if v.get("kind") == "ha1"], ids=lambda v: v["id"])
def test_ha1_vectors(vector: dict[str, Any]) -> None:
    h = ALGORITHMS[vector["algorithm"].encode()]
    assert h(f"{vector['username']}:{vector['realm']}:{vector['password']}".encode()).decode() == vector["ha1_expected"]


@needs_data
@pytest.mark.parametrize("vector", [v for v in VECTORS if "challenge" in v], ids=lambda v: v["id"])
def test_whole_header_from_a_challenge(vector: dict[str, Any]) -> None:
    challenge = parse_challenge(vector["challenge"].encode())
    if vector.get("qop") == "auth-int" and challenge.qop == b"auth":
        pytest.skip("the vector took auth-int where auth was offered too")
    if not vector.get("qop") and challenge.qop:
        pytest.skip("the vector answered without qop though one was offered")
    credentials = Credentials(vector["username"].encode(), vector["password"].encode())
    name, value = answer(
        challenge, credentials, vector["method"].encode(), vector["uri"].encode(),
        nc=int(vector.get("nc") or "1", 16), cnonce=(vector.get("cnonce") or "").encode(),
        body=(vector.get("body") or "").encode(),
    )
    assert name == b"Authorization"
    assert b'response="' + vector["response"].encode() + b'"' in value


@pytest.mark.rfc("7616", "3.4.2")
def test_sess_hashes_nonce_and_cnonce_as_text() -> None:
    challenge = parse_challenge(b'Digest realm="a", nonce="1", qop="auth", algorithm=MD5-sess')
    h = ALGORITHMS[b"MD5"]
    ha1 = h(h(b"alice:a:s3cret") + b":1:c0ffee")
    expected = h(ha1 + b":1:00000001:c0ffee:auth:" + h(b"REGISTER:sip:a"))
    _, value = answer(challenge, SECRET, b"REGISTER", b"sip:a", cnonce=b"c0ffee")
    assert b'response="' + expected + b'"' in value
    assert b"algorithm=MD5-sess" in value


def _answers(case: str, credentials: Credentials = SECRET) -> list[tuple[bytes, bytes]]:
    www = [h.split(": ", 1)[1].encode() for h in CASES[case] if h.startswith("WWW-")]
    proxy = [h.split(": ", 1)[1].encode() for h in CASES[case] if h.startswith("Proxy-")]
    chosen = choose(www, proxy, credentials)
    return [answer(c, credentials, b"REGISTER", b"sip:a", cnonce=b"cn") for c in chosen]


@needs_data
@pytest.mark.rfc("8760", "2.4")
@pytest.mark.parametrize(
    ("case", "wanted", "unwanted"),
    [
        ("rfc7616-two", [b"algorithm=SHA-256", b"qop=auth, nc=00000001"], [b"MD5"]),
        ("pjsip-three-algos", [b"algorithm=SHA-256", b'opaque="+GNywA=="'], []),
        ("rfc3261-20.44", [b'opaque=""', b"qop=auth,"], [b"stale"]),
        ("libre-missing-comma", [b"algorithm=MD5", b'opaque="123"'], [b"qop"]),
        ("libre-simple", [b"qop=auth,"], [b"algorithm", b"opaque"]),
        ("sipgo-lower-alg", [b"algorithm=sha-256"], [b"qop"]),
        ("freeswitch-quoted-alg", [b"algorithm=md5", b"qop=auth,", b'opaque="Nzg5'], []),
        ("rfc5090-unquoted-qop", [b"qop=auth,", b'nonce="3bada1a0"'], []),
        ("auth-int-only", [b"qop=auth-int,"], []),
        ("md5-sess", [b"algorithm=MD5-sess", b"nc=00000001"], []),
        ("escaped-realm", [rb'realm="test \"this\" realm!!"'], []),
    ],
)
def test_one_answer(case: str, wanted: list[bytes], unwanted: list[bytes]) -> None:
    [(_, value)] = _answers(case)
    for text in wanted:
        assert text in value
    for text in unwanted:
        assert text not in value
    if b"SHA-256" in value or b"sha-256" in value:
        assert re.search(rb'response="[0-9a-f]{64}"', value)


@needs_data
@pytest.mark.parametrize("case", ["ms-kerberos-ntlm", "ersip-bad-1", "ersip-bad-2", "basic", "aka"])
def test_no_usable_challenge(case: str) -> None:
    assert _answers(case) == []


@needs_data
@pytest.mark.rfc("3261", "22.3")
def test_both_kinds_are_answered() -> None:
    assert [name for name, _ in _answers("both-401-and-407")] == [b"Authorization", b"Proxy-Authorization"]


@needs_data
def test_ha1_takes_the_md5_challenge_below_a_stronger_one() -> None:
    credentials = Credentials(b"alice", ha1=ALGORITHMS[b"MD5"](b"alice:http-auth@example.org:s3cret"))
    [(_, by_ha1)] = _answers("rfc7616-two", credentials)
    assert b"algorithm=MD5" in by_ha1
    md5 = parse_challenge(CASES["rfc7616-two"][1].split(": ", 1)[1].encode())
    assert answer(md5, SECRET, b"REGISTER", b"sip:a", cnonce=b"cn")[1] == by_ha1


def test_without_means_nothing_is_chosen() -> None:
    assert choose([b'Digest realm="a", nonce="1"'], [], Credentials(b"alice")) == []


def test_stale_is_read_in_any_case() -> None:
    assert parse_challenge(b'Digest realm="a", nonce="1", stale=TRUE').stale
    assert not parse_challenge(b'Digest realm="a", nonce="1", stale=FALSE').stale


def test_secrets_do_not_show() -> None:
    assert "s3cret" not in repr(Credentials(b"alice", b"s3cret", b"0" * 32))


def test_hostile_challenges_are_refused_in_linear_time() -> None:
    for value in (b'a="\\' * 20000, b"," * 60000, b"a" * 60000, b"realm=\xff", b""):
        with pytest.raises(ChallengeUnsupported):
            parse_challenge(b"Digest " + value)


def test_line_breaks_in_a_row_cannot_add_headers() -> None:
    challenge = parse_challenge(b'Digest realm="a", nonce="1"')
    _, value = answer(challenge, Credentials(b"al\r\nX: y", b"p"), b"REGISTER", b"sip:a", cnonce=b"c")
    assert b"\n" not in value and b"\r" not in value
