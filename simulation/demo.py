"""`make demo`: trunkmgr with pretend providers and a pretend PBX, and a call every few seconds.

Runs `manage.py up` as a child, in a data folder that is made for the demo and removed after it; accounts are entered by
the commands that operators use. SIP stays on 127.0.0.1. Real data is never opened.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from simulation.cast import Cast

ROOT = Path(__file__).resolve().parent.parent
PBX_DOMAIN = "pbx.demo"


def environment(folder: str) -> dict[str, str]:
    """Return the environment of the demo: nothing of a real installation's but the address of the web server."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRUNKMGR_", "UAC_")) and name not in ("DATABASE_URL", "REDIS_URL")
    }
    kept["TRUNKMGR_HTTP"] = os.environ.get("TRUNKMGR_HTTP", "127.0.0.1:8000")
    kept["TRUNKMGR_DATA_DIR"] = folder
    kept["TRUNKMGR_NODE"] = "demo"
    kept["TRUNKMGR_SIP_LISTEN"] = "udp:127.0.0.1:0,tcp:127.0.0.1:0"
    return kept


def account_file(cast: Cast) -> str:
    """Return the accounts as `uacreg import` takes them."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((
        "l_uuid", "l_username", "l_domain", "r_username", "r_domain", "auth_username", "auth_password", "expires",
        "flags", "provider", "inbound_identity", "note",
    ))
    for trunk in cast.trunks:
        writer.writerow((
            trunk.l_uuid, trunk.local_user, PBX_DOMAIN, trunk.user, cast.providers[trunk.provider].domain, trunk.user,
            trunk.password, 3600, 0 if trunk.enabled else 1, trunk.provider, "anonymous" if trunk.anonymous else "keep",
            trunk.note,
        ))
    return text.getvalue()


async def manage(env: dict[str, str], *words: str, stdin: str = "") -> None:
    """Run one command to its end; one that fails ends the demo with what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", *words, cwd=ROOT, env=env, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(stdin.encode())
    if process.returncode:
        raise SystemExit(f"manage.py {' '.join(words)} failed:\n{said.decode(errors='replace')}")


async def enter(env: dict[str, str], cast: Cast) -> None:
    """Enter providers, the PBX and the accounts."""
    await manage(env, "migrate", "--noinput")
    for name, provider in cast.providers.items():
        await manage(
            env, "provider", "set", name, "--domain", provider.domain, "--proxy", provider.uri,
            "--address", provider.host,
        )
    await manage(env, "domain", "set", PBX_DOMAIN, "--next-hop", cast.pbx.uri)
    await manage(env, "uacreg", "import", "-", stdin=account_file(cast))


async def main() -> int:
    """Run until `manage.py up` ends; SIGTERM and Ctrl-C are its to answer."""
    folder = tempfile.mkdtemp(prefix="trunkmgr-demo-")
    cast, env = Cast(), environment(folder)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await cast.start()
        sys.stderr.write(f"Demo: pretend providers and a PBX on the loopback, data in {folder} until it ends.\n")
        await enter(env, cast)
        # A session of its own: Ctrl-C reaches it once, through us.
        up = await asyncio.create_subprocess_exec(
            sys.executable, "manage.py", "up", cwd=ROOT, env=env, stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        ended, stopped = asyncio.create_task(up.wait()), asyncio.create_task(stop.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ended.done():
            up.terminate()
        return await ended
    finally:
        await cast.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
