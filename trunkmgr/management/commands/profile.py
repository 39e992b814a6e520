"""`manage.py profile`: what is known of providers, and carrying it over."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from trunkmgr.management import trunks
from trunkmgr.management.output import OperatorCommand, add_yes, clean, operator
from trunkmgr.models import Profile, ProfileField, Provider


class Command(OperatorCommand):
    help = "Show provider profiles, copy and edit them, and take their values over to a provider and its accounts."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        listing = self.verb(verbs, "list", self.list, "show all profiles", "manage.py profile list")
        showing = self.verb(verbs, "show", self.show, "show one with its sources", "manage.py profile show telekom-de")
        copying = self.verb(
            verbs, "copy", self.copy, "make a copy of one that can be edited", "manage.py profile copy ims our-ims",
        )
        setting = self.verb(
            verbs, "set", self.set, "set or remove fields of a copy",
            "manage.py profile set our-ims expires=900 --source 'their data sheet, 2026'\n"
            "manage.py profile set our-ims realm=",
        )
        comparing = self.verb(
            verbs, "diff", self.diff, "say what a provider and its accounts have otherwise",
            "manage.py profile diff RheinTel\nmanage.py profile diff RheinTel --profile ims",
        )
        taking = self.verb(
            verbs, "take", self.take, "give its values to a provider and its accounts; what changes registers anew",
            "manage.py profile take RheinTel --profile ims\n"
            "manage.py profile take RheinTel --only expires@berlin --yes",
        )
        for each in (listing, showing, comparing):
            each.add_argument("--json", action="store_true", help="write JSON")
        for each in (showing, copying, setting):
            each.add_argument("slug", metavar="PROFILE")
        copying.add_argument("copy", metavar="COPY", help="what commands call the copy: letters, digits, hyphens")
        setting.add_argument("fields", metavar="FIELD=VALUE", nargs="+", help=", ".join(ProfileField.Name.values))
        setting.add_argument("--source", default="", help="where this is known from; empty: general knowledge")
        for each in (comparing, taking):
            each.add_argument("provider", metavar="PROVIDER")
            each.add_argument("--profile", metavar="PROFILE", help="another than the one that the provider has")
        taking.add_argument(
            "--only", action="append", metavar="FIELD[@L_UUID]", help="this value alone, as diff names it (repeatable)",
        )
        add_yes(taking)

    def list(self, options: dict[str, Any]) -> None:
        rows = list(Profile.objects.prefetch_related("fields"))
        if options["json"]:
            self.json([_plain(row) for row in rows])
            return
        self.table(
            ("Profile", "Name", "Version", "Comes with trunkmgr", "Fields", "General knowledge"),
            (
                (row.slug, row.name, row.version, "yes" if row.shipped else f"no, from {row.origin or 'nothing'}",
                 len(fields := row.fields.all()), sum(field.general_knowledge for field in fields))
                for row in rows
            ),
            empty="No profiles. Run: manage.py migrate",
        )

    def show(self, options: dict[str, Any]) -> None:
        row = trunks.profile(options["slug"])
        if options["json"]:
            self.json(_plain(row))
            return
        self.stdout.write(f"{row.name}, version {row.version}\n{row.about}\n")
        self.table(
            ("Field", "Value", "Known from"),
            (
                (field.name, field.value, f"{field.source}{' (not checked)' if field.general_knowledge else ''}")
                for field in row.fields.all()
            ),
            empty="It says nothing.",
        )

    def copy(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import profiles

        made = profiles.copy(trunks.profile(options["slug"]), options["copy"], who=operator())
        self.stdout.write(f"{made.slug} is a copy of {made.origin}.")

    def set(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import profiles

        row = trunks.profile(options["slug"])
        fields = {field.name: field for field in row.fields.all()}
        for text in options["fields"]:
            name, equals, value = text.partition("=")
            if not equals or name not in ProfileField.Name.values:
                known = ", ".join(ProfileField.Name.values)
                raise CommandError(f"{text!r} sets nothing. Write FIELD=VALUE with one of: {known}.")
            fields.pop(name, None)
            if value:
                fields[name] = ProfileField(
                    name=name, value=value, source=options["source"], general_knowledge=not options["source"],
                )
        for remark in profiles.save(row, fields.values(), operator()):
            self.stdout.write(f"Note: {remark}")
        self.stdout.write(f"{row.slug} is now version {row.version}.")

    def diff(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import profiles

        provider, profile = _both(options)
        found = profiles.differences(provider, profile)
        if options["json"]:
            self.json([{
                "key": each.key, "l_uuid": each.l_uuid, "field": each.field, "now": each.now, "then": each.then,
                "source": each.source, "general_knowledge": each.general_knowledge,
            } for each in found])
            return
        self.table(
            ("Value", "Now", "Profile says", "Known from"),
            (
                (each.key, each.now, each.then, f"{each.source}{' (not checked)' if each.general_knowledge else ''}")
                for each in found
            ),
            empty=f"{provider.name} and its accounts are as {profile.name} says.",
        )

    def take(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import profiles

        provider, profile = _both(options)
        found = profiles.differences(provider, profile)
        only = options["only"]
        if unknown := set(only or ()) - {each.key for each in found}:
            named = ", ".join(sorted(unknown))
            raise CommandError(f"Nothing to take: {named}. See: manage.py profile diff {provider.name}")
        wanted = [each for each in found if only is None or each.key in only]
        if wanted:
            told = "\n".join(clean(f"  {each.key}: {each.now or '–'} → {each.then or '–'}") for each in wanted)
            self.confirm(f"{told}\nTake these {len(wanted)} values over? What they change registers anew.", options)
        taken = profiles.take(provider, profile, operator(), only)
        values = f"{len(taken)} values taken over"
        self.stdout.write(f"{provider.name} has {profile.name} version {profile.version}: {values}.")


def _both(options: dict[str, Any]) -> tuple[Provider, Profile]:
    provider = trunks.provider(options["provider"])
    if provider is None:
        raise CommandError("Name the provider.")
    profile = trunks.profile(options["profile"]) if options["profile"] else provider.profile
    if profile is None:
        raise CommandError(f"{provider.name} has no profile yet: say which with --profile.")
    return provider, profile


def _plain(row: Profile) -> dict[str, Any]:
    return {
        "slug": row.slug, "name": row.name, "version": row.version, "shipped": row.shipped, "origin": row.origin,
        "about": row.about, "fields": {
            field.name: {"value": field.value, "source": field.source, "general_knowledge": field.general_knowledge}
            for field in row.fields.all()
        },
    }
