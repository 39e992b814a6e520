"""Template filters of the status pages: durations and times as people read them, exact values for the script."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from trunkmgr import selectors
from trunkmgr.payloads import duration

register = template.Library()

NONE = SafeString("–")


@register.simple_tag
def notices() -> list[str]:
    """What an operator must not forget; every page says it."""
    return selectors.notices()


@register.filter
def left(moment: float | None, now: float, prefix: str = "") -> SafeString:
    """A countdown to `moment`, which the page goes on counting."""
    if not moment:
        return NONE
    seconds = moment - now
    text = prefix + duration(seconds) if seconds >= 1 else "now"
    return format_html('<span data-until="{}" data-prefix="{}">{}</span>', moment, prefix, text)


@register.filter
def upcoming(moment: float | None, now: float) -> SafeString:
    return left(moment, now, "in ")


@register.filter
def span(seconds: float) -> str:
    return duration(seconds)


@register.filter
def clock(moment: datetime | None, form: str = "H:i:s") -> SafeString:
    """A time of day; the zone and the date stand in the title, and a script shows it in the reader's own zone."""
    if moment is None:
        return NONE
    local = timezone.localtime(moment)
    shapes = {"H:i": "%H:%M", "H:i:s": "%H:%M:%S", "full": "%-d %b %Y, %H:%M:%S", "short": "%-d %b %H:%M"}
    return format_html(
        '<time datetime="{}" data-form="{}" title="{}">{}</time>',
        moment.isoformat(), form, local.strftime("%-d %b %Y, %H:%M:%S %Z"), local.strftime(shapes[form]),
    )
