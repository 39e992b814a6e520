"""Test settings: everything in a folder of its own, on loopback, with fixed keys.

The environment is set before Django reads it, so `pytest` needs no preparation. `DATABASE_URL` and `REDIS_URL` are
left as they are: CI runs the same tests on PostgreSQL.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_folder = tempfile.mkdtemp(prefix="trunkmgr-test-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

for _name in [name for name in os.environ if name.startswith(("TRUNKMGR_", "UAC_"))]:
    if _name != "TRUNKMGR_SCREENSHOTS":  # a wish of whoever runs the tests, no setting
        del os.environ[_name]
os.environ.update({
    "TRUNKMGR_DATA_DIR": _folder,
    "TRUNKMGR_HTTP": "127.0.0.1:0",
    "TRUNKMGR_SIP_LISTEN": "udp:127.0.0.1:0,tcp:127.0.0.1:0",
    "TRUNKMGR_NODE": "test",
    "TRUNKMGR_SECRET_KEY": "only-for-tests-0123456789-0123456789-0123456789-0123456789",
    "TRUNKMGR_FIELD_KEYS": "ZmllbGQta2V5LWZvci10ZXN0cy0wMTIzNDU2Nzg5YWI=",
    "TRUNKMGR_SEAL_KEYS": "c2VhbC1rZXktZm9yLXRlc3RzLTAxMjM0NTY3ODlhYmM=",
    "DJANGO_SETTINGS_MODULE": "trunkmgr.settings",
})

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402

# A quarter of a second a login is good for operators and bad for tests.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
