"""The status pages: who sees them, what they say, and what they never hold."""

from __future__ import annotations

import re
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.trunkmgr.pages import PASSWORD, node, trunk
from trunkmgr import payloads, selectors
from trunkmgr.models import Call, FurtherRegistration, RegistrationEvent, UacReg, UacRegOptions
from trunkmgr.services import orders
from trunkmgr.views.access import CONTENT_SECURITY_POLICY

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parents[2]
PAGES = ["/status/", "/status/calls/", "/status/one/", "/status/one/do/disable/"]


@pytest.fixture
def web(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("op", password="x"))
    return client


def part(page: str, pattern: str) -> str:
    found = re.search(pattern, page, re.S)
    assert found, f"{pattern} is not on the page"
    return found[1]


class TestAccess:
    @pytest.mark.parametrize("path", PAGES)
    def test_strangers_log_in_and_come_back(self, client: Client, path: str) -> None:
        trunk("one", node())
        answer = client.get(path)
        assert answer.status_code == 302
        assert answer["Location"] == f"/admin/login/?next={path}"

    def test_users_without_staff_are_strangers(self, client: Client) -> None:
        client.force_login(User.objects.create_user("customer"))
        assert client.get("/status/").status_code == 302

    @pytest.mark.parametrize("path", PAGES)
    def test_pages_have_a_strict_policy_and_keep_to_it(self, web: Client, path: str) -> None:
        trunk("one", node())
        answer = web.get(path)
        page = answer.content.decode()
        assert answer.status_code == 200
        assert answer["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert "unsafe" not in CONTENT_SECURITY_POLICY
        assert not re.search(r"<script(?![^>]*\bsrc=)", page)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", page)
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
        assert "no-store" in answer["Cache-Control"]

    def test_staff_without_permission_look_and_do_not_touch(self, client: Client) -> None:
        trunk("one", node())
        client.force_login(User.objects.create_user("watcher", is_staff=True))
        page = client.get("/status/one/").content.decode()
        assert "data-verb" not in page
        assert "data-ask" not in page
        answer = client.post("/status/one/do/disable/", headers={"Accept": "application/json"})
        assert answer.status_code == 403
        assert UacReg.objects.get().enabled

    def test_orders_need_a_token(self) -> None:
        trunk("one", node())
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("op"))
        assert client.post("/status/one/do/disable/").status_code == 403
        assert UacReg.objects.get().enabled


class TestBoard:
    def test_first_run(self, web: Client) -> None:
        page = web.get("/status/").content.decode()
        assert "No trunks yet" in page
        assert "/admin/trunkmgr/uacreg/add/" in page
        assert '<section class="card empty" id="first">' in page

    def test_headline_totals_and_order(self, web: Client) -> None:
        edge = node()
        trunk("good", edge)
        trunk("off", edge, "disabled", cause="disabled", flags=1)
        trunk("bad", edge, "refused", cause="wrong_password", code=401, reason="Unauthorized", failures=3)
        trunk("slow", edge, "failing", cause="timeout", failures=1)
        page = web.get("/status/").content.decode()
        assert "2 of 4 trunks need attention" in page
        assert "1 refused by the provider, 1 failing, 0 unknown. 0 calls now." in page
        body = part(page, r'<tbody id="rows"[^>]*>(.*?)</tbody>')
        assert re.findall(r'<span class="a1 trunc">user-(\w+)@', body) == ["bad", "slow", "good", "off"]
        assert re.findall(r"<b>(\d)</b>(\w+)</span></button>", page) == [
            ("1", "Registered"), ("0", "Refreshing"), ("1", "Failing"), ("1", "Refused"), ("1", "Disabled"),
            ("0", "Unknown"),
        ]
        assert "Password refused" in body
        assert "No answer in 32 s" in body

    def test_without_script_the_server_filters_and_turns_pages(self, web: Client) -> None:
        edge = node()
        for number in range(101):
            trunk(f"n{number:03}", edge)
        trunk("bad", edge, "refused", cause="unknown_user", code=404)
        rows = '<tr class="r'
        body = r'<tbody id="rows"[^>]*>(.*?)</tbody>'
        assert part(web.get("/status/").content.decode(), body).count(rows) == 100
        assert part(web.get("/status/?page=2").content.decode(), body).count(rows) == 2
        assert part(web.get("/status/?state=ref").content.decode(), body).count(rows) == 1

    def test_queries_do_not_grow_with_rows(self, web: Client, django_assert_max_num_queries: Any) -> None:
        edge = node()
        for number in range(30):
            trunk(f"n{number}", edge)
        with django_assert_max_num_queries(8):
            web.get("/status/")

    def test_what_comes_from_the_network_is_escaped_and_cut(self, web: Client) -> None:
        evil = "<script>alert(1)</script>" + "x" * 95
        trunk("one", node(), "failing", cause="answer", code=500, reason=evil, realm_seen="<b>", target="udp:<i>:1")
        for path in ("/status/", "/status/one/"):
            page = web.get(path).content.decode()
            assert "<script>alert" not in page
            assert "&lt;script&gt;alert" in page
            assert "<b>\"" not in page

    def test_no_secret_on_any_page(self, web: Client) -> None:
        trunk("one", node())
        for path in PAGES:
            page = web.get(path).content.decode()
            assert PASSWORD not in page
            assert "enc1:" not in page

    def test_odd_ids_have_pages(self, web: Client) -> None:
        odd = "a/b c?d#e%f\"g"
        trunk(odd, node())
        url = part(web.get("/status/").content.decode(), r'<tbody.*?class="acct" href="([^"]+)"')
        page = web.get(url).content.decode()
        assert "a/b c?d#e%f&quot;g" in page


class TestUnknown:
    """Old data is never shown as good."""

    def state(self, l_uuid: str = "one") -> dict[str, Any]:
        registration = selectors.trunk(l_uuid)
        assert registration is not None
        return payloads.seen_row(registration, timezone.now())

    def test_a_watched_trunk_is_what_it_is(self) -> None:
        trunk("one", node(silent=3))
        assert (self.state()["state"], self.state()["late"]) == ("ok", False)

    def test_news_are_late_before_they_are_none(self) -> None:
        trunk("one", node(silent=8))
        assert (self.state()["state"], self.state()["late"]) == ("ok", True)

    @pytest.mark.parametrize("state", ["registered", "refreshing", "failing", "refused", "registering", "unregistered"])
    def test_a_silent_worker_makes_all_unknown(self, state: str) -> None:
        trunk("one", node(silent=14), state)
        row = self.state()
        assert (row["state"], row["label"], row["why"], row["until"]) == ("unk", "Unknown", "Worker silent", None)
        assert row["sentence"] == "edge-1 has sent no beat for 14 s. Calls may still work."

    def test_what_a_person_switched_off_stays_disabled(self) -> None:
        trunk("one", node(silent=60), "disabled", cause="disabled", flags=1)
        assert self.state()["state"] == "off"

    def test_a_stopped_worker_watches_nothing(self) -> None:
        trunk("one", node(stopped_time=timezone.now()))
        assert (self.state()["state"], self.state()["why"]) == ("unk", "Worker stopped")

    def test_a_trunk_that_nobody_took(self) -> None:
        trunk("one", None, "unregistered")
        assert (self.state()["state"], self.state()["why"]) == ("unk", "No worker")

    def test_a_binding_that_ran_out_is_not_good(self) -> None:
        trunk("one", node(), bound_until_time=timezone.now() - timedelta(seconds=6))
        assert (self.state()["state"], self.state()["why"]) == ("unk", "Not renewed")

    def test_a_retry_under_way_does_not_look_like_good_news(self) -> None:
        edge = node()
        trunk("one", edge, "registering", cause="timeout", failures=4)
        trunk("two", edge, "registering", cause="wrong_password", failures=4)
        trunk("new", edge, "registering")
        assert [self.state(name)["state"] for name in ("one", "two", "new")] == ["fail", "ref", "work"]


class TestTrunk:
    def test_a_refused_trunk_says_why_and_what_to_do(self, web: Client) -> None:
        trunk(
            "one", node(), "refused", cause="wrong_password", code=401, reason="Unauthorized", failures=8,
            trigger="beat", cseq=8813, target="udp:198.51.100.17:5060", realm_seen="rheintel.example", round_trip=0.051,
            next_attempt_time=timezone.now() + timedelta(seconds=867),
            state_time=timezone.now() - timedelta(seconds=4860),
        )
        page = web.get("/status/one/").content.decode()
        assert '<h2 class="cause">The provider does not accept the password.</h2>' in page
        assert "Enter the SIP password again. It is not the password of the customer portal." in page
        for text in (
            "401 Unauthorized", "after 51 ms, realm rheintel.example", "CSeq 8813", "Planned by beat", "14 min 2",
            "1 h 21 min", "<dd>8</dd>",
        ):
            assert text in page, text

    def test_a_good_trunk_says_since_when(self, web: Client) -> None:
        trunk("one", node())
        page = web.get("/status/one/").content.decode()
        assert "Working since" in page
        assert "3600 s asked, 3600 s granted" in page
        assert "Calls go by" not in page

    @pytest.mark.parametrize(("state", "seconds", "text"), [
        ("reachable", 30, 'Reachable, 23 ms <span class="muted">(OPTIONS 12 s ago)</span>'),
        ("unreachable", 30, 'Unreachable <span class="muted">(OPTIONS 12 s ago)</span>'), ("reachable", 0, ""),
    ])
    def test_what_options_told_of_the_server(self, web: Client, state: str, seconds: int, text: str) -> None:
        answered = timezone.now() - timedelta(seconds=12)
        trunk("one", node(), qualify_state=state, qualify_round_trip=0.0234, qualify_time=answered)
        UacRegOptions.objects.update(qualify=seconds)
        page = web.get("/status/one/").content.decode()
        assert text in page and ("OPTIONS" in page) == bool(text)

    def test_a_bulk_registration_is_told_and_named_by_its_address(self, web: Client) -> None:
        trunk("one", node(), "refused", cause="banned_403", contact="sip:192.0.2.5:5060;bnc;line=one")
        UacRegOptions.objects.update(gin=True)
        page = web.get("/status/one/").content.decode()
        assert "all numbers of the PBX" in page and "ask for 192.0.2.5:5060 to be unblocked" in page

    def test_what_the_provider_named_is_shown(self, web: Client) -> None:
        told = {"service_route": "<sip:edge.example;lr>", "path": "<sip:p.example;lr>", "associated_uris": "<tel:+49>"}
        trunk("one", node(), **told)
        page = web.get("/status/one/").content.decode()
        for text in ("&lt;sip:edge.example;lr&gt;", "&lt;sip:p.example;lr&gt;", "&lt;tel:+49&gt;"):
            assert text in page

    @pytest.mark.parametrize(("values", "texts"), [
        ({"state": "registered", "code": None, "reason": "", "trigger": "recovery"}, ["Kept over a restart"]),
        ({"state": "failing", "cause": "timeout", "trigger": "guard"}, ["REGISTER", "No answer"]),
        ({"state": "failing", "cause": "dns_empty", "reason": "No such host", "trigger": "guard"}, ["No such host"]),
        ({"state": "refreshing", "code": 200, "reason": "OK", "trigger": "beat"}, ["200 OK", "REGISTER"]),
        ({"state": "unregistered"}, []),
    ])
    def test_evidence_is_what_happened(self, web: Client, values: dict[str, Any], texts: list[str]) -> None:
        trunk("one", node(), **values)
        page = web.get("/status/one/").content.decode()
        assert re.findall(r"<li[^>]*><span class=\"tm\">.*?<b>(.*?)</b>", page) == texts

    @pytest.mark.parametrize(("cause", "steps"), [("wrong_password", 2), ("busy_503", 1)])
    def test_nobody_is_told_to_press_on_who_shall_wait(self, web: Client, cause: str, steps: int) -> None:
        trunk("one", node(), "failing", cause=cause, code=503, failures=1)
        assert part(web.get("/status/one/").content.decode(), r'<ol class="fix">(.*?)</ol>').count("<li>") == steps

    @pytest.mark.parametrize(("values", "text"), [
        ({"auth_password": "x"}, "set"), ({"auth_password": ""}, "not set"), ({"auth_ha1": "0" * 32}, "HA1 set"),
    ])
    def test_password_is_told_as_set_or_not(self, web: Client, values: dict[str, str], text: str) -> None:
        account = trunk("one", node()).account
        for name, value in values.items():
            setattr(account, name, value)
        account.save()
        assert f"<dt>Password</dt><dd>{text}</dd>" in web.get("/status/one/").content.decode()

    def test_a_secret_that_no_key_opens_takes_no_page_down(self, web: Client, settings: Any) -> None:
        trunk("one", node())
        settings.FIELD_KEYS = ["b3RoZXIta2V5LWZvci10ZXN0cy0wMTIzNDU2Nzg5YWI="]
        assert web.get("/status/one/").status_code == 200
        assert web.get("/status/").status_code == 200

    def test_history_and_calls(self, web: Client) -> None:
        trunk("one", node())
        now = timezone.now()
        RegistrationEvent.objects.create(
            l_uuid="one", time=now - timedelta(hours=3), state="refused", cause="wrong_password", code=401,
            reason="Unauthorized",
        )
        RegistrationEvent.objects.create(l_uuid="one", time=now - timedelta(minutes=30), state="registered", code=200,
                                         reason="OK", granted=3600, trigger="operator", who="op")
        Call.objects.create(key="k", call_id="c", l_uuid="one", direction="in", caller="+4930", callee="4989",
                            started_time=now - timedelta(seconds=70), answered_time=now - timedelta(seconds=64))
        page = web.get("/status/one/").content.decode()
        assert "1 outage, 2 h 30 min in all" in page
        assert re.findall(r'<rect class="k-(\w+)"', page) == ["ok", "ref"]
        assert "Registered, 3600 s granted" in page
        assert "Ordered by an operator · by op" in page
        assert "1 call now" in page
        assert "Talking" in page

    def test_bindings_at_further_registrars(self, web: Client) -> None:
        trunk("one", node())
        for registrar, state, cause in (("sip:b.example", "registered", ""), ("sip:c.example", "failing", "timeout")):
            FurtherRegistration.objects.create(account_id="one", registrar=registrar, state=state, cause=cause)
        page = web.get("/status/one/").content.decode()
        assert "sip:b.example: Registered; sip:c.example: No answer" in page

    def test_a_trunk_that_is_gone(self, web: Client) -> None:
        answer = web.get("/status/nothing/")
        assert answer.status_code == 404
        assert "There is no trunk nothing" in answer.content.decode()


class TestOrders:
    @pytest.fixture
    def placed(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, str]]:
        """Orders that were placed; each is answered at once, as by a worker."""
        seen: list[tuple[str, Any, str]] = []
        place = orders.place

        def place_and_answer(verb: str, payload: Any, who: str = "", timeout: float = 5.0) -> list[Any]:
            seen.append((verb, payload, who))
            made = place(verb, payload, who, timeout)
            account = {"ok": False, "cause": "wrong_password", "code": 401, "reason": "Unauthorized"}
            orders.finish(made[0].pk, {"ok": False, "message": "one: 401", "accounts": {"one": account}})
            return made

        monkeypatch.setattr(orders, "place", place_and_answer)
        return seen

    def test_register_now_waits_for_the_worker(self, web: Client, placed: list[tuple[str, Any, str]]) -> None:
        trunk("one", node())
        answer = web.post("/status/one/do/register/", headers={"Accept": "application/json"})
        assert placed == [("register", {"l_uuids": ["one"]}, "op")]
        assert answer.json() == {"ok": False, "message": "Password refused: 401 Unauthorized"}

    def test_without_script_the_result_stands_on_the_page(self, web: Client, placed: list[Any]) -> None:
        trunk("one", node())
        page = web.post("/status/one/do/register/", headers={"Accept": "text/html"}, follow=True).content.decode()
        assert '<p class="note bad error">Password refused: 401 Unauthorized</p>' in page

    def test_no_worker_is_said(self, web: Client) -> None:
        trunk("one", None)
        answer = web.post("/status/one/do/register/", headers={"Accept": "application/json"}).json()
        assert not answer["ok"]
        assert "No SIP worker owns one" in answer["message"]

    def test_disable_asks_once_and_names_the_calls(self, web: Client) -> None:
        trunk("one", node())
        Call.objects.create(key="k", call_id="c", l_uuid="one", direction="in", started_time=timezone.now())
        page = web.get("/status/one/do/disable/").content.decode()
        assert "1 call in progress" in page
        assert UacReg.objects.get().enabled
        assert web.post("/status/one/do/disable/", headers={"Accept": "application/json"}).json()["ok"]
        assert not UacReg.objects.get().enabled
        assert web.post("/status/one/do/enable/", headers={"Accept": "application/json"}).json()["ok"]
        assert UacReg.objects.get().enabled

    @pytest.mark.parametrize(("verb", "status"), [("register", 405), ("enable", 405), ("reboot", 404)])
    def test_looking_does_nothing(self, web: Client, verb: str, status: int) -> None:
        trunk("one", node())
        assert web.get(f"/status/one/do/{verb}/").status_code == status


def test_calls_going_on(web: Client) -> None:
    trunk("one", node())
    now = timezone.now()
    Call.objects.create(
        key="a", call_id="a", l_uuid="one", direction="in", caller="+4930<b>", callee="4989", started_time=now,
    )
    Call.objects.create(
        key="b", call_id="b", l_uuid="one", direction="out", caller="sip:100@pbx.example", callee="+49301",
        anonymous=True, started_time=now, answered_time=now,
    )
    Call.objects.create(key="c", call_id="c", l_uuid="one", direction="in", started_time=now, ended_time=now)
    page = web.get("/status/calls/").content.decode()
    assert "2 calls going on" in page
    assert "+4930&lt;b&gt;" in page
    assert "user-one@pbx.example" in page
    assert sorted(cells(page)[:2]) == [
        ["Ringing", "↙ In", "+4930&lt;b&gt; → to 4989"],
        ["Talking", "↗ Out", "100@pbx.example hidden from the provider → to +49301"],
    ]


def cells(page: str) -> list[list[str]]:
    """Text of the first three cells of each row."""
    rows = re.findall(r"<tr role=\"row\">(<td.*?)</tr>", page, re.DOTALL)
    texts = [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row.split("</td>")] for row in rows]
    return [row[:3] for row in texts]


@pytest.mark.parametrize(("direction", "code", "reason", "words"), [
    ("out", 407, "Proxy Authentication Required",
     "The provider asked for a password that we do not have <code class=\"muted\">407 Proxy Authentication"),
    ("out", 403, "Provider refused the credentials", "The provider refused the password for this call <code"),
    ("out", 403, "Forbidden", "The provider refused the call <code"),
    ("out", 503, "Service Unavailable", "The provider is overloaded or not reachable"),
    ("in", 486, "Busy Here", "Busy <code class=\"muted\">486 Busy Here</code>"),
    ("in", 404, "Not Found", "Number unknown at the PBX"),
    ("out", 499, "Odd <i>", ">499 Odd &lt;i&gt;</td>"),
    ("out", None, "The worker was restarted", ">The worker was restarted</td>"),
])
def test_why_a_call_failed(web: Client, direction: str, code: int | None, reason: str, words: str) -> None:
    trunk("one", node())
    now = timezone.now()
    Call.objects.create(
        key="k", call_id="k", l_uuid="one", direction=direction, caller="100", callee="+49301", started_time=now,
        ended_time=now, code=code, reason=reason,
    )
    for page in ("/status/calls/", "/status/one/"):
        assert words in web.get(page).content.decode()


def test_snapshot_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "ROWS_PER_MESSAGE", 2)
    edge = node()
    for number in range(3):
        trunk(f"n{number}", edge)
    rows = [payloads.registration_row(each) for each in selectors.board_rows()]
    first, last = payloads.snapshot(rows, [], {"n0": 2})
    assert (first["part"], first["last"], last["part"], last["last"]) == (0, False, 1, True)
    assert first["fields"] == payloads.FIELDS
    assert dict(zip(first["fields"], first["rows"][0], strict=True))["l_uuid"] == "n0"
    assert first["calls"] == {"n0": 2}
    assert set(payloads.FIELDS) | {"sentence", "fix"} == set(rows[0])
    assert len(list(payloads.snapshot([], [], {}))) == 1


def test_weight_of_a_snapshot() -> None:
    """60 bytes a trunk on the wire, as the design's budget says."""
    edge = node()
    for number in range(200):
        trunk(f"{number * 2654435761 % 2**32:08x}", edge, generation=number)
    rows = [payloads.registration_row(each) for each in selectors.board_rows()]
    text = "".join(payloads.dumps(part) for part in payloads.snapshot(rows, [], {}))
    assert len(zlib.compress(text.encode(), 6)) / 200 < 60


@pytest.mark.parametrize(("names", "limit"), [
    (("tokens.css", "pages.css"), 8192), (("theme.js", "live.js", "rows.js", "board.js"), 14336),
])
def test_weight_of_files(names: tuple[str, ...], limit: int) -> None:
    static = ROOT / "trunkmgr/static/trunkmgr"
    assert len(zlib.compress(b"".join((static / name).read_bytes() for name in names), 6)) < limit

