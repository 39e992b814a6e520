"""Digest from the server's side: challenges, counts, age, and what proves nothing."""

from __future__ import annotations

import dataclasses

import pytest

from sipengine.registrar.authentication import LIFETIME, WINDOW, Authenticator, Verdict
from sipengine.registrar.registrar import Device
from sipengine.uac.digest import Credentials, parse_challenge
from tests.sipengine.registrar.phone import ALICE, MD5_ONLY, Office, Phone

CONTACT = b"<sip:alice@203.0.113.7:5062>"


@pytest.mark.rfc("7616", "3.9.1")
@pytest.mark.parametrize(
    ("algorithm", "proof"),
    [
        (b"SHA-256", b"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        (b"MD5", b"8ca523f5e9506fed4657c9700eebdbec"),
    ],
)
def test_the_examples_of_rfc_7616_prove_their_password(algorithm: bytes, proof: bytes) -> None:
    """Their nonce is not ours, so the right password is told from the wrong one by STALE."""
    realm = b"http-auth@example.org"
    value = (
        b'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=%b, '
        b'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
        b'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="%b", '
        b'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    ) % (algorithm, proof)
    checker = Authenticator(b"k" * 32, lambda: b"0123456789abcdef")
    answer = checker.answer_of([b'Digest realm="other", response="x"', value], realm)
    assert answer is not None and answer.username == b"Mufasa"
    right, wrong = Credentials(b"Mufasa", b"Circle of Life"), Credentials(b"Mufasa", b"Circle of life")
    assert checker.check(answer, right, b"GET", b"/dir/index.html", 0.0) is Verdict.STALE
    assert checker.check(answer, wrong, b"GET", b"/dir/index.html", 0.0) is Verdict.WRONG
    assert checker.check(answer, right, b"GET", b"/dir/other.html", 0.0) is Verdict.WRONG
    assert checker.check(answer, None, b"GET", b"/dir/index.html", 0.0) is Verdict.WRONG


@pytest.mark.rfc("8760", "2.3")
@pytest.mark.checklist("G15")
def test_sha_256_is_asked_for_first_and_both_prove() -> None:
    office = Office()
    reply = office.save(Phone(office).request(CONTACT))
    assert reply.status == 401
    first, second = (parse_challenge(line.partition(b": ")[2]) for line in reply.lines)
    assert (first.algorithm, second.algorithm) == (b"SHA-256", b"MD5")
    assert first.realm == b"pbx.example" and first.qop == b"auth" and first.opaque and not first.stale
    for which in (0, 1):
        phone = Phone(office, call_id=b"c%d" % which)
        phone.take(office.save(phone.request(CONTACT)), which)
        assert office.save(phone.prove(phone.request(CONTACT))).status == 200


@pytest.mark.parametrize("device", [MD5_ONLY, dataclasses.replace(ALICE, md5_only=True)])
def test_a_stored_md5_ha1_or_a_simple_device_is_asked_for_md5_alone(device: Device) -> None:
    office = Office()
    office.registrar.device_of = {device.aor: device}.get
    reply = office.save(Phone(office, device).request(CONTACT))
    assert [parse_challenge(line.partition(b": ")[2]).algorithm for line in reply.lines] == [b"MD5"]


def _challenged() -> tuple[Office, Phone]:
    office = Office()
    phone = Phone(office)
    phone.take(office.save(phone.request(CONTACT)))
    return office, phone


@pytest.mark.rfc("7616", "3.3")
def test_an_old_nonce_is_stale_and_no_wrong_password() -> None:
    office, phone = _challenged()
    office.now += LIFETIME + 1
    reply = office.save(phone.prove(phone.request(CONTACT)))
    assert reply.status == 401 and parse_challenge(reply.lines[0].partition(b": ")[2]).stale
    assert office.counters.unauthorized == 0
    phone.take(reply)
    assert office.save(phone.prove(phone.request(CONTACT))).status == 200


def test_a_nonce_of_another_key_is_stale() -> None:
    """After a restart phones try again by themselves."""
    office, phone = _challenged()
    office.registrar.authenticator._key = b"other"
    reply = office.save(phone.prove(phone.request(CONTACT)))
    assert reply.status == 401 and parse_challenge(reply.lines[0].partition(b": ")[2]).stale


@pytest.mark.rfc("7616", "5.5")
def test_a_count_serves_once_within_its_window() -> None:
    office, phone = _challenged()

    def status(nc: int) -> int:
        return office.save(phone.prove(phone.request(CONTACT), nc)).status

    assert status(3) == 200
    assert status(3) == 401  # a replay
    assert status(1) == 200  # it was overtaken
    assert status(1) == 401
    assert status(WINDOW + 10) == 200
    assert status(9) == 401  # below the window: nobody knows
    assert status(11) == 200


@pytest.mark.checklist("G15")
def test_what_proves_nothing() -> None:
    office, phone = _challenged()
    for change in (
        lambda value: value.replace(b'response="', b'response="0'),
        lambda value: value.replace(b"qop=auth", b"qop=auth-int"),
        lambda value: value.replace(b", qop=auth", b""),
        lambda value: value.replace(b"nc=", b"nc=x"),
        lambda value: value.replace(b'uri="sip:pbx.example"', b'uri="sip:other.example"'),
        lambda value: value.replace(b"SHA-256", b"SHA-512-256"),
        lambda value: value.replace(b'cnonce="c0ffee"', b'cnonce=""'),
        lambda value: value.replace(b"Digest ", b"Basic "),
        lambda value: value.replace(b'realm="pbx.example"', b'realm="other.example"'),
        lambda value: value.replace(b'username="alice"', b'username="bob"'),
        lambda value: value.replace(b'username="alice"', b'username="nobody"'),
    ):
        reply = office.save(phone.prove(phone.request(CONTACT), 1, change=change))
        assert reply.status == 401 and not parse_challenge(reply.lines[0].partition(b": ")[2]).stale
    assert not office.contacts() and office.counters.unauthorized == 9
    wrong = office.save(phone.prove(phone.request(CONTACT), 1, credentials=Credentials(b"alice", b"Wonder")))
    assert wrong.status == 401 and not office.contacts()


@pytest.mark.checklist("M5")
def test_nobody_learns_who_there_is() -> None:
    """A user that is none is answered as one whose password is wrong, asked or unasked."""
    office = Office()
    nobody = Device("nobody@pbx.example", Credentials(b"nobody", b"x"))
    shapes = []
    for device in (nobody, Device("alice@pbx.example", Credentials(b"alice", b"x"))):
        phone = Phone(office, device)
        first = office.save(phone.request(CONTACT))
        phone.take(first)
        second = office.save(phone.prove(phone.request(CONTACT)))
        shapes.append([(r.status, r.reason, [len(line) for line in r.lines]) for r in (first, second)])
    assert shapes[0] == shapes[1]


def test_not_even_the_decoys_password_proves_a_user_who_is_none() -> None:
    office, phone = _challenged()
    office.registrar.device_of = {}.get
    decoy = Credentials(b"alice", office.registrar.authenticator._decoy.password)
    request = phone.prove(phone.request(CONTACT), credentials=decoy)
    checker = office.registrar.authenticator
    found = checker.answer_of(request.get_all(b"Authorization"), b"pbx.example")
    assert found is not None
    found.fields[b"username"] = b""
    assert checker.check(found, None, b"REGISTER", request.ruri, office.now) is Verdict.WRONG
    assert office.save(request).status == 401


def test_counts_are_bounded_and_what_lost_them_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipengine.registrar.authentication.NONCES", 2)
    office = Office()
    phones = []
    for number in range(3):
        phone = Phone(office, call_id=b"n%d" % number)
        phone.take(office.save(phone.request(CONTACT)))
        assert office.save(phone.prove(phone.request(CONTACT))).status == 200
        phones.append(phone)
        office.now += 2
    assert len(office.registrar.authenticator._counts) == 2
    assert office.save(phones[0].prove(phones[0].request(CONTACT), 1)).status == 401
    assert office.save(phones[2].prove(phones[2].request(CONTACT))).status == 200
