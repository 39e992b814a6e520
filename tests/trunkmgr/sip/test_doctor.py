"""Pre-flight and preview: a running worker looks at an account, and its registration stays as it is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command

from sipengine.asyncio.resolver import Resolver
from tests.sipengine.asyncio.test_resolver import Dns
from tests.trunkmgr.sip.test_worker import PROVIDER, Peer, Stand, eventually, run  # noqa: F401 - a fixture
from trunkmgr.models import Order, Registration, UacReg, UacRegOptions
from trunkmgr.services import accounts, preflight

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(30)]


class Registrar(Peer):
    """A registrar that keeps bindings by Contact; `refuses` is its answer to REGISTER instead."""

    def __init__(self) -> None:
        super().__init__()
        self.contacts: dict[str, str] = {}
        self.refuses = ""
        self.refuses_contacts = ""
        self.least = 0
        self.keeps_one = False
        self.answers_options = True

    def datagram_received(self, data: bytes, address: Any) -> None:
        text = data.decode()
        self.messages.put_nowait(text)
        if text.startswith("OPTIONS"):
            if self.answers_options:
                self.transport.sendto(reply(text, "200 OK"), address)
            return
        if not text.startswith("REGISTER"):
            return
        asked = re.findall(r"Contact: <([^>]+)>(;expires=0)?", text)
        expires = int((re.search(r"Expires: (\d+)", text) or ["", "0"])[1])
        if self.refuses:
            self.transport.sendto(reply(text, self.refuses), address)
        elif self.refuses_contacts and asked and not self._known(asked):
            self.transport.sendto(reply(text, self.refuses_contacts), address)
        elif self.least > expires > 0:
            self.transport.sendto(reply(text, "423 Interval Too Brief", f"Min-Expires: {self.least}"), address)
        else:
            for uri, removed in asked:
                if removed:
                    self.contacts.pop(uri, None)
                else:
                    if self.keeps_one:
                        self.contacts.clear()
                    self.contacts[uri] = f"Contact: <{uri}>;expires={expires}"
            self.transport.sendto(reply(text, "200 OK", *self.contacts.values()), address)

    def _known(self, asked: list[tuple[str, str]]) -> bool:
        return all(uri in self.contacts for uri, _ in asked)


def reply(request: str, status: str, *more: str) -> bytes:
    lines = request.split("\r\n")
    kept = [line for line in lines if re.match(r"(Via|From|Call-ID|CSeq):", line)]
    to = next(line for line in lines if line.startswith("To:")) + ";tag=r"
    return "\r\n".join([f"SIP/2.0 {status}", *kept, to, *more, "Content-Length: 0", "", ""]).encode()


async def registrar(stand: Stand) -> Registrar:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(Registrar, local_addr=(PROVIDER, 0))
    stand.provider = protocol
    return protocol


async def registered(stand: Stand, l_uuid: str = "alice", gin: bool = False, **columns: Any) -> Registrar:
    """A registrar at which the account is registered, its REGISTERs counted from now on."""
    found = await registrar(stand)
    account = UacReg(
        l_uuid=l_uuid, l_username="100", l_domain="pbx.example", r_username="4930", r_domain="sip.example",
        auth_password="never-shown-77", auth_proxy=f"sip:{PROVIDER}:{found.port}", **columns,
    )
    await sync_to_async(accounts.save)(account, UacRegOptions(gin=gin))
    await eventually(lambda: Registration.objects.filter(account_id=l_uuid, state="registered").exists())
    while not found.messages.empty():
        found.messages.get_nowait()
    return found


async def examine(l_uuid: str = "alice", **options: Any) -> dict[str, Any]:
    order = await sync_to_async(preflight.begin)(l_uuid, "ada", **options)
    return await sync_to_async(preflight.follow)(order, lambda step: None)


def states(result: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in result["steps"]}


def test_a_good_account_is_tried_beside_its_binding(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        before = await sync_to_async(Registration.objects.values().get)(account_id="alice")
        (own,) = provider.contacts
        result = await examine()
        assert result["ok"] and "trial binding was made and removed" in result["message"]
        assert states(result) == dict.fromkeys(("account", "dns", "options", "query", "trial", "removal"), "good")
        assert list(provider.contacts) == [own], "the trial is gone, the account's own binding is what it was"
        sent = [provider.messages.get_nowait() for _ in range(provider.messages.qsize())]
        methods = [message.split(" ")[0] for message in sent]
        assert methods == ["OPTIONS", "REGISTER", "REGISTER", "REGISTER"]
        query, trial, removal = sent[1:]
        assert "Contact:" not in query and "Expires:" not in query
        contact = re.search(r"Contact: <(sip:trial-[0-9a-f]+@[^>]+)>", trial)
        assert contact and f"<{contact[1]}>;expires=0" in removal and "*" not in removal
        call_ids = {re.search(r"Call-ID: (\S+)", message)[1] for message in sent}  # type: ignore[index]
        assert before["call_id"] not in call_ids
        after = await sync_to_async(Registration.objects.values().get)(account_id="alice")
        for column in ("state", "call_id", "cseq", "generation", "contact", "bound_until_time", "next_attempt_time"):
            assert after[column] == before[column], column
        assert "never-shown-77" not in json.dumps(result)

    run(scenario)
    assert "never-shown-77" not in str(list(Order.objects.values()))


def test_where_the_contact_user_is_prescribed_the_line_tells_the_trial_apart(
    run: Callable[..., None],  # noqa: F811
) -> None:
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand, contact_user="493012")
        result = await examine()
        assert result["ok"] and states(result)["removal"] == "good"
        assert [uri.partition(";line=")[2] for uri in provider.contacts] == ["alice"]
        texts = [provider.messages.get_nowait() for _ in range(provider.messages.qsize())]
        assert any("<sip:493012@" in text and ";line=trial-" in text for text in texts)

    run(scenario)


@pytest.mark.checklist("H19")
def test_a_bulk_registration_is_tried_by_another_line(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand, gin=True)
        before = list(provider.contacts)
        result = await examine()
        assert result["ok"] and states(result)["removal"] == "good" and list(provider.contacts) == before
        sent = [provider.messages.get_nowait() for _ in range(provider.messages.qsize())]
        query, trial, removal = [text for text in sent if text.startswith("REGISTER")]
        assert "gin" not in query and all("\r\nRequire: gin\r\n" in text for text in (trial, removal))
        assert ";bnc;line=trial-" in trial
        provider.refuses_contacts = "420 Bad Extension"
        assert (await examine())["cause"] == "no_gin"

    run(scenario)


def test_a_provider_that_keeps_one_binding_gets_the_account_back_at_once(
    run: Callable[..., None],  # noqa: F811
) -> None:
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        (own,) = provider.contacts
        provider.keeps_one = True
        result = await examine()
        removal = result["steps"][-1]
        assert result["ok"] and removal["state"] == "remark" and "keeps one binding" in removal["detail"]
        await eventually(lambda: list(provider.contacts) == [own])
        result = await examine(trial=False)
        assert states(result)["trial"] == "skipped" and list(provider.contacts) == [own]

    run(scenario)


@pytest.mark.parametrize(("answer", "cause"), [
    ("403 Forbidden", "banned_403"), ("404 Not Found", "unknown_user"), ("401 Unauthorized", "auth_unsupported"),
    ("503 Service Unavailable", "busy_503"),
])
def test_a_refusal_is_told_in_words_and_asked_for_once(
    run: Callable[..., None], answer: str, cause: str,  # noqa: F811
) -> None:
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        provider.refuses = answer
        result = await examine()
        assert (result["ok"], result["cause"]) == (False, cause) and result["fix"]
        assert result["steps"][-1]["name"] == "query" and result["steps"][-1]["state"] == "bad"
        sent = [provider.messages.get_nowait() for _ in range(provider.messages.qsize())]
        assert len([text for text in sent if text.startswith("REGISTER")]) == 1, "no more tries than needed"
        row = await sync_to_async(Registration.objects.get)(account_id="alice")
        assert (row.state, row.failures) == ("registered", 0)

    run(scenario)


def test_what_a_provider_says_can_be_stored_and_shown(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        provider.refuses = "499 No\0 \x1b[31m<b>"
        result = await examine()
        assert not result["ok"] and "499 No� " in result["steps"][-1]["detail"] and "\\u0000" not in json.dumps(result)

    run(scenario)


def test_a_contact_that_is_refused_alone_names_the_contact_user(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        provider.refuses_contacts = "403 Contact User und Anrufernummer verschieden"
        result = await examine()
        assert result["cause"] == "contact_number" and '"4930"' in result["fix"]

    run(scenario)


def test_a_longer_registration_is_agreed_to_once(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        provider.least = 300
        result = await examine()
        assert result["ok"] and "The provider wants at least 300 s." in str(result["steps"])
        assert len(provider.contacts) == 1

    run(scenario)


def test_who_does_not_answer_options_is_asked_all_the_same(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    monkeypatch.setattr("trunkmgr.sip.reach.OPTIONS", 0.3)

    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        provider.answers_options = False
        result = await examine()
        assert result["ok"] and states(result)["options"] == "remark"
        assert not stand.worker.endpoint.rests.resting, "silence to OPTIONS keeps no call from this server"

    run(scenario)


def test_who_asked_for_a_pause_is_left_alone(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        now = stand.worker.server.now()
        stand.worker.endpoint.rests.failed("udp", (PROVIDER, provider.port), now, 120.0)
        result = await examine()
        assert result["cause"] == "busy_503" and "Retry-After" in result["steps"][-1]["detail"]
        sent = [provider.messages.get_nowait() for _ in range(provider.messages.qsize())]
        assert not [text for text in sent if text.startswith("REGISTER")]

    run(scenario)


def test_records_are_told_with_their_time_and_the_next_server_serves(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        zone = Dns()
        zone.zone = {
            ("_sip._udp.pool.example.", "SRV"): [
                "10 0 9 dead.pool.example.", f"20 0 {provider.port} live.pool.example.",
            ],
            ("dead.pool.example.", "A"): [PROVIDER], ("live.pool.example.", "A"): [PROVIDER],
        }
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: zone, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        stand.worker.server.resolver = Resolver(nameservers=["127.0.0.1"], port=port, hosts_file=Path("/nonexistent"))
        account = await sync_to_async(UacReg.objects.get)(l_uuid="alice")
        account.auth_proxy = "sip:pool.example"
        await sync_to_async(accounts.save)(account)
        await eventually(lambda: stand.worker.admission.snapshot.trunks["alice"].registrar == "pool.example")
        result = await examine()
        transport.close()
        assert result["ok"], result
        dns = next(step for step in result["steps"] if step["name"] == "dns")
        (line,) = [line for line in dns["lines"] if line.startswith("SRV") and "dead" in line]
        assert re.fullmatch(r"SRV _sip._udp.pool.example: 10 0 9 dead.pool.example. \(counts \d+ s more\)", line)
        assert f"A live.pool.example: {PROVIDER} (counts" in str(dns["lines"])
        assert "NAPTR pool.example: none" in dns["lines"]
        assert dns["detail"] == f"Tried in this order: udp:{PROVIDER}:9, udp:{PROVIDER}:{provider.port}."
        told = {step["title"]: step["state"] for step in result["steps"]}
        assert told[f"OPTIONS to udp:{PROVIDER}:9"] == "remark"
        assert told[f"OPTIONS to udp:{PROVIDER}:{provider.port}"] == "good"

    monkeypatch.setattr("trunkmgr.sip.reach.OPTIONS", 0.5)
    run(scenario)


def test_names_and_rows_that_lead_nowhere(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        def save(l_uuid: str, proxy: str) -> None:
            accounts.save(UacReg(
                l_uuid=l_uuid, l_username=l_uuid, l_domain="pbx.example", r_username="4930", r_domain="sip.example",
                auth_password="x", auth_proxy=proxy,
            ))

        for l_uuid, proxy, cause in (
            ("tcp", f"sip:{PROVIDER}:9;transport=tcp", "no_socket"), ("name", "sip:nothing.invalid", "dns_empty"),
        ):
            await sync_to_async(save)(l_uuid, proxy)
            await eventually(lambda l_uuid=l_uuid: l_uuid in stand.worker.admission.snapshot.trunks)
            result = await examine(l_uuid)
            assert (result["ok"], result["cause"]) == (False, cause), result
            assert result["steps"][-1]["state"] == "bad"
        refused = await stand.worker.orders.run(Order(verb="doctor", payload={"l_uuid": "nobody"}))
        assert not refused["ok"] and "is not at this worker" in refused["message"]

    run(scenario)


def test_the_command_tells_each_step_and_gives_an_exit_code(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str],  # noqa: F811
) -> None:
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        await sync_to_async(call_command)("doctor", "alice")
        out = capsys.readouterr().out
        assert "ok    A trial binding:" in out and "All is well" in out
        provider.refuses = "404 Not Found"
        with pytest.raises(CommandError, match="does not know this user name"):
            await sync_to_async(call_command)("doctor", "alice", "--json")
        assert json.loads(capsys.readouterr().out)["cause"] == "unknown_user"
        with pytest.raises(CommandError, match="Did you mean 'alice'"):
            await sync_to_async(call_command)("doctor", "alic")

    run(scenario)


def test_the_preview_is_what_leaves(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        provider = await registered(stand)
        shown = await sync_to_async(preflight.preview)("alice")
        register, answered, invite = shown["requests"]
        await sync_to_async(call_command)("uacreg", "register", "alice")
        sent = await provider.next("REGISTER")
        drawn = re.compile(r"(branch=z9hG4bK|tag=|Call-ID: |CSeq: )[^;\s]+")
        assert drawn.sub(r"\1", register["text"]) == drawn.sub(r"\1", sent)
        assert register["goes_to"] == f"udp:{PROVIDER}:{provider.port}"
        assert 'username="4930", realm="sip.example"' in answered["text"] and 'response="********"' in answered["text"]
        assert invite["text"].startswith("INVITE sip:+493023125000@") and invite["goes_to"] == register["goes_to"]
        assert "From: <sip:4930@sip.example>" in invite["text"]
        assert "never-shown-77" not in json.dumps(shown) and provider.messages.empty()

    run(scenario)
