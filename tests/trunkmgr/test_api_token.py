"""Tokens of the API by command and in the admin: shown once, named, taken back."""

from __future__ import annotations

import io
import json
import re

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client

from trunkmgr.models import ApiToken
from trunkmgr.services import api_tokens

pytestmark = pytest.mark.django_db


def run(*words: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("api_token", *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_add_writes_the_token_and_nothing_else() -> None:
    out, err = run("add", "nightly", "--may", "uac_req_send", "--may", "view_orders")
    token = out.strip()
    found = api_tokens.find(token)
    assert found is not None and found.name == "nightly" and found.permissions == ["uac_req_send", "view_orders"]
    assert found.created_by.endswith("(command)")
    assert "not shown again" in err and token not in err


def test_list_shows_no_token() -> None:
    token = run("add", "nightly", "--may", "uac_req_send")[0].strip()
    assert run("list")[0].splitlines()[1].split()[:2] == ["nightly", "uac_req_send"]
    told = run("list", "--json")[0]
    assert json.loads(told)[0]["permissions"] == ["uac_req_send"]
    assert token not in told and ApiToken.objects.get().digest not in told


def test_remove() -> None:
    token = run("add", "nightly", "--may", "uac_req_send")[0].strip()
    assert "nightly is taken back." in run("remove", "nightly", "--yes")[0]
    assert api_tokens.find(token) is None
    with pytest.raises(CommandError, match="No token is called 'nightly'"):
        run("remove", "nightly", "--yes")
    assert run("list")[0].startswith("No tokens yet.")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("nightly", "--may", "uac_req_send"), "--name: API token with this Name already exists."),
        (("", "--may", "uac_req_send"), "--name: This field cannot be blank."),
        (("a\nb", "--may", "uac_req_send"), "line break"),
        (("x" * 65, "--may", "uac_req_send"), "at most 64 characters"),
    ],
)
def test_names_are_checked(words: tuple[str, ...], problem: str) -> None:
    run("add", "nightly", "--may", "uac_req_send")
    with pytest.raises(CommandError, match=problem):
        run("add", *words)
    assert ApiToken.objects.count() == 1


def test_the_admin_shows_it_once(client: Client) -> None:
    client.force_login(User.objects.create_superuser("anna", password="x"))
    add = "/admin/trunkmgr/apitoken/add/"
    assert 'value="uac_req_send"' in client.get(add).content.decode()
    response = client.post(add, {"name": "board", "permissions": ["uac_req_send"]})
    page = response.content.decode()
    token = re.search(r"trunkmgr_[\w-]{40,}", page)
    assert token is not None and "no-store" in response["Cache-Control"]
    row = ApiToken.objects.get()
    assert api_tokens.find(token[0]) == row and row.created_by == "anna"
    assert token[0] not in str([session.get_decoded() for session in Session.objects.all()]) + str(client.cookies)
    for path in ("", f"{row.pk}/change/"):
        page = client.get(f"/admin/trunkmgr/apitoken/{path}").content.decode()
        assert "board" in page and token[0] not in page and row.digest not in page
    client.post(f"/admin/trunkmgr/apitoken/{row.pk}/delete/", {"post": "yes"})
    assert api_tokens.find(token[0]) is None


def test_the_admin_refuses_what_the_service_refuses(client: Client) -> None:
    client.force_login(User.objects.create_superuser("anna", password="x"))
    page = client.post("/admin/trunkmgr/apitoken/add/", {"name": "board"}).content.decode()
    assert "This field is required." in page and not ApiToken.objects.exists()
