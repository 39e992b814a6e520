"""A JavaScript library for pages of tests: fetched once from the npm registry, checked, kept in a cache folder.

`python -m tests.interop.npm` fetches it (CI does, before it runs the tests).  Nothing of it is part of this project.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

REGISTRY = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org/")
SIP_JS = REGISTRY.rstrip("/") + "/sip.js/-/sip.js-0.21.2.tgz"
SHA256 = "abbf374bccf50fdd0f659e24dd70a83a0bad09553bd16fa4b6c94021053f66cb"


class Unavailable(Exception):
    """The library cannot be had; the text says why."""


def sip_js() -> dict[str, bytes]:
    """Return its files by path below the package; raises Unavailable."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trunkmgr-tests" / Path(SIP_JS).name
    data = cache.read_bytes() if cache.exists() else b""
    if hashlib.sha256(data).hexdigest() != SHA256:
        try:
            with urllib.request.urlopen(SIP_JS, timeout=20) as answer:
                data = answer.read()
        except (OSError, urllib.error.URLError) as error:
            raise Unavailable(f"{SIP_JS} cannot be fetched: {error}") from error
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise Unavailable(f"{SIP_JS} is not the file that it was")
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_bytes(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name.partition("/")[2]: taken.read()
            for member in archive if (taken := archive.extractfile(member)) is not None
        }  # fmt: skip


if __name__ == "__main__":
    try:
        sip_js()
    except Unavailable as unavailable:
        sys.exit(str(unavailable))
