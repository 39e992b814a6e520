#!/usr/bin/env python3
"""Run a management command; `manage.py help` lists them."""

from __future__ import annotations

import os
import sys

if sys.version_info < (3, 11):
    sys.exit("trunkmgr needs Python 3.11 or newer. On Debian install the packages python3 and python3-venv.")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trunkmgr.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"trunkmgr cannot start. {error}")


if __name__ == "__main__":
    main()
