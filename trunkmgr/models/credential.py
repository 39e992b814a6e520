"""Secrets at rest, and the credentials that challenges of calls are answered with.

The column holds ``enc1:`` and a Fernet token (newest of `settings.FIELD_KEYS`); what has no prefix is clear text,
as Kamailio stores it. In Python the value is a `Secret`, which shows nothing until `reveal()` is called. Loading a
row decrypts nothing, so one token that no key opens takes down neither a list nor the other accounts, and saving such
a row writes the token back as it was. See docs/decisions/0001-secrets.md.  Which credentials go first is decided by
`trunkmgr.sip.snapshot`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.signals import setting_changed
from django.db import connections, models, router
from django.db.models.lookups import Exact, IsNull

from trunkmgr.exceptions import UndecryptableSecret
from trunkmgr.models import validators

PREFIX = "enc1:"


@lru_cache(maxsize=1)
def _ring() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.FIELD_KEYS])


def _forget_ring(setting: str, **kwargs: Any) -> None:
    if setting == "FIELD_KEYS":
        _ring.cache_clear()


setting_changed.connect(_forget_ring)


class Secret:
    """A password or HA1: set or not, and revealed only on demand."""

    __slots__ = ("_clear", "_stored")

    def __init__(self, clear: str = "", *, stored: str | None = None) -> None:
        """Take clear text, or what a column holds (`stored`: a token or clear text)."""
        self._stored = stored if stored is not None and stored.startswith(PREFIX) else None
        self._clear = clear if stored is None else "" if self._stored else stored

    def reveal(self) -> str:
        """Return the clear text; raise UndecryptableSecret when no key opens the token."""
        if self._stored is None:
            return self._clear
        try:
            return _ring().decrypt(self._stored[len(PREFIX):].encode()).decode()
        except InvalidToken:
            raise UndecryptableSecret(
                "No key in TRUNKMGR_FIELD_KEYS opens this stored secret: it was written under another key. "
                "Add that key to the end of TRUNKMGR_FIELD_KEYS (embedded: to keys/field in the data folder), "
                "or enter the password again."
            ) from None

    def sealed(self) -> str:
        """Return what the column shall hold: a token, unchanged when it was one; empty stays empty."""
        if self._stored is not None:
            return self._stored
        return PREFIX + _ring().encrypt(self._clear.encode()).decode() if self._clear else ""

    def __bool__(self) -> bool:
        return bool(self._stored or self._clear)

    def __repr__(self) -> str:
        return "<secret: set>" if self else "<secret: not set>"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling (cache, process pools, tracebacks) carries the token, never clear text.
        return _unpickle, (self.sealed(),)


def _unpickle(stored: str) -> Secret:
    return Secret(stored=stored)


class _EmptyOnly(Exact):
    """Compares with the empty string only: two tokens of one password differ, so no other answer would be true."""

    def __init__(self, lhs: Any, rhs: Any) -> None:
        if rhs != "":
            raise TypeError("A SecretField can only be compared with the empty string.")
        super().__init__(lhs, rhs)

    def get_prep_lookup(self) -> Any:
        return ""


class _Attribute:
    """Holds a Secret on the instance, whatever was assigned; a plain string counts as clear text."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        if self.name not in instance.__dict__:
            instance.refresh_from_db(fields=[self.name])
        return instance.__dict__[self.name]

    def __set__(self, instance: Any, value: Any) -> None:
        if not isinstance(value, Secret) and not hasattr(value, "resolve_expression"):
            value = Secret("" if value is None else str(value))
        instance.__dict__[self.name] = value


class SecretField(models.TextField):  # type: ignore[type-arg]
    """Text, encrypted at rest.  Lookups: `isnull`, and `exact` with the empty string."""

    if TYPE_CHECKING:
        def __get__(self, instance: Any, owner: Any) -> Any: ...
        def __set__(self, instance: Any, value: str | Secret) -> None: ...

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        super().contribute_to_class(cls, name, private_only)
        setattr(cls, self.attname, _Attribute(self.attname))

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Secret:
        return Secret(stored=value or "")

    def to_python(self, value: Any) -> Any:
        # Called for serialized data (loaddata), which holds tokens.
        return value if isinstance(value, Secret) else Secret(stored="" if value is None else str(value))

    def get_prep_value(self, value: Any) -> Any:
        if value is None or hasattr(value, "resolve_expression"):
            return value
        return (value if isinstance(value, Secret) else Secret(str(value))).sealed()

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name == "isnull":
            return IsNull
        if lookup_name == "exact":
            return _EmptyOnly
        raise TypeError(f"A SecretField cannot be looked up by {lookup_name!r}.")

    def get_transform(self, lookup_name: str) -> Any:
        raise TypeError(f"A SecretField cannot be looked up by {lookup_name!r}.")

    def value_to_string(self, obj: models.Model) -> str:
        # dumpdata emits the token.
        return str(self.get_prep_value(self.value_from_object(obj)))


def check_secrets(row: models.Model, password: str, ha1: str) -> None:
    """Refuse a password or HA1 that cannot be sent; a stored one that no key opens is left as it is."""
    for name, check in ((password, validators.plain_text), (ha1, validators.ha1)):
        try:
            clear = getattr(row, name).reveal()
        except UndecryptableSecret:
            continue
        try:
            if clear:
                check(clear)
        except ValidationError as error:
            raise ValidationError({name: error}) from error


class Credential(models.Model):
    """A user and a secret for one realm, of one account, of all accounts of a provider, or of every account."""

    realm = models.CharField(
        max_length=128, default="", blank=True, validators=[validators.plain_text],
        help_text="The realm of the challenge, letter by letter; empty answers every realm of the account or provider.",
    )
    username = models.CharField("user", max_length=128, validators=[validators.plain_text])
    password = SecretField(default="", blank=True)
    ha1 = SecretField("HA1", default="", blank=True)
    provider = models.ForeignKey(
        "trunkmgr.Provider", on_delete=models.CASCADE, null=True, blank=True, related_name="credentials",
        help_text="Only calls of this provider's accounts.",
    )
    # `services.accounts` takes them along. An account that only vanished from Kamailio's table may come back to them.
    account = models.ForeignKey(
        "trunkmgr.UacReg", to_field="l_uuid", on_delete=models.DO_NOTHING, db_constraint=False, db_column="l_uuid",
        null=True, blank=True, related_name="credentials", help_text="Only calls of this account.",
    )
    note = models.CharField(max_length=200, default="", blank=True, validators=[validators.plain_text])

    class Meta:
        ordering = ["realm", "username", "pk"]

    def __str__(self) -> str:
        return f"{self.username} in {self.realm or 'any realm'}"

    @property
    def scope(self) -> str:
        """Whose calls it answers for."""
        if self.account_id:
            return f"account {self.account_id}"
        return f"provider {self.provider}" if self.provider_id else "every account"

    def clean(self) -> None:
        """Check what no column can say alone."""
        if self.account_id and self.provider_id:
            raise ValidationError({"account": "Choose the account or the provider, not both."})
        if bool(self.password) == bool(self.ha1):
            many = "both a password and an HA1; keep" if self.password else "neither password nor HA1; enter"
            raise ValidationError({"password": f"The credential has {many} one of them."})
        if not self.realm and self.ha1:
            raise ValidationError({"realm": "An HA1 is made for one realm: enter it, or take the password."})
        if not self.realm and not self.account_id and not self.provider_id:
            raise ValidationError({
                "realm": "Without realm, account and provider it would answer whoever asks; enter one of them.",
            })
        check_secrets(self, "password", "ha1")
        others = Credential.objects.filter(realm=self.realm, username=self.username).exclude(pk=self.pk)
        if (self.account_id, self.provider_id) in others.values_list("account_id", "provider_id"):
            raise ValidationError({"username": f"There is one for {self} of {self.scope} already; change that one."})


def rotate_secrets(chunk: int = 500) -> tuple[int, int]:
    """Re-encrypt every stored secret under the newest key, clear text included; return (rewritten, unopened).

    Compare-and-set: a concurrent save wins. What no key opens stays as it is. Safe to repeat and to interrupt.
    """
    from django.apps import apps

    rewritten = unopened = 0
    for model in apps.get_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, SecretField):
                done, left = _rotate(model, field, chunk)
                rewritten, unopened = rewritten + done, unopened + left
    return rewritten, unopened


def _rotate(model: type[models.Model], field: SecretField, chunk: int) -> tuple[int, int]:
    connection = connections[router.db_for_write(model)]
    quote = connection.ops.quote_name
    pk = model._meta.pk
    assert pk is not None
    table, column, key = quote(model._meta.db_table), quote(str(field.column)), quote(str(pk.column))
    newest = Fernet(settings.FIELD_KEYS[0])
    rewritten = unopened = 0
    last: Any = None
    with connection.cursor() as cursor:
        while True:
            # Names are quoted identifiers of our own models; values travel as parameters.
            where = f"{column} <> ''" + ("" if last is None else f" AND {key} > %s")
            cursor.execute(
                f"SELECT {key}, {column} FROM {table} WHERE {where} ORDER BY {key} LIMIT {int(chunk)}",  # noqa: S608
                [] if last is None else [last],
            )
            rows = cursor.fetchall()
            if not rows:
                return rewritten, unopened
            for row_key, stored in rows:
                try:
                    if stored.startswith(PREFIX):
                        newest.decrypt(stored[len(PREFIX):].encode())
                        continue
                except InvalidToken:
                    pass
                try:
                    fresh = Secret(Secret(stored=stored).reveal()).sealed()
                except UndecryptableSecret:
                    unopened += 1
                    continue
                cursor.execute(
                    f"UPDATE {table} SET {column} = %s WHERE {key} = %s AND {column} = %s",  # noqa: S608
                    [fresh, row_key, stored],
                )
                rewritten += cursor.rowcount
            last = rows[-1][0]
