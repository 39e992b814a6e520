"""baresip as a phone: a user agent that nobody here wrote, steered over its control socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.interop.programs import Program, eventually, free_port, missing, program

MODULES = ("g711.so", "aubridge.so", "account.so", "menu.so", "ctrl_tcp.so")
CONFIG = """\
sip_listen {host}:{port}
net_interface {host}
audio_player aubridge,nil
audio_source aubridge,nil
audio_alert aubridge,nil
module_path {modules}
ctrl_tcp_listen {host}:{control}
"""


class Phone:
    """Answers each call by itself; its own calls go straight to the host of the URI that it dials.

    With `registrar` (a URI) it registers there, proves itself by `password`, and calls through it.
    """

    def __init__(
        self, folder: Path, aor: str, local: tuple[str, int], *, registrar: str = "", password: str = "",
        transport: str = "udp",
    ) -> None:
        folder.mkdir(parents=True)
        modules = next(iter(Path("/usr/lib").glob("**/baresip/modules")), None)
        if modules is None:
            missing("baresip's modules are missing: apt-get install baresip-core")
        host, port = local
        self._control = host, free_port(host)
        config = CONFIG.format(host=host, port=port, modules=modules, control=self._control[1])
        (folder / "config").write_text(config + "".join(f"module {name}\n" for name in MODULES))
        registers = f';auth_pass={password};outbound="{registrar};transport={transport}";regint=60'
        account = f"<{aor};transport={transport}>{registers}" if registrar else f"<{aor}>;regint=0"
        (folder / "accounts").write_text(f"{account};answermode=auto\n")
        (folder / "contacts").touch()
        self._program = Program([program("baresip"), "-4", "-f", str(folder)], log=folder / "baresip.log")
        eventually(lambda: "baresip is ready" in self._program.text, 10, "baresip starts")

    @property
    def text(self) -> str:
        """What it has printed."""
        return self._program.text

    def dial(self, uri: str) -> None:
        self._order("dial", uri)

    def hang_up(self) -> None:
        self._order("hangup")

    def talks_to(self) -> list[str]:
        """Return whom the calls that are up are with."""
        lines = self._order("listcalls").splitlines()
        return [line.split()[-1] for line in lines if "ESTABLISHED" in line]

    def _order(self, command: str, params: str = "") -> str:
        """Send a command as a netstring of JSON; events that come first are passed over."""
        text = json.dumps({"command": command, "params": params, "token": "order"})
        with socket.create_connection(self._control, timeout=5) as control:
            control.sendall(f"{len(text)}:{text},".encode())
            received = b""
            while True:
                length, colon, rest = received.partition(b":")
                if colon and len(rest) > int(length):
                    received = rest[int(length) + 1 :]
                    answer = json.loads(rest[: int(length)])
                    if answer.get("response"):
                        assert answer["ok"], answer
                        return str(answer["data"])
                    continue
                more = control.recv(65536)
                assert more, f"baresip closed its control socket:\n{self._program.text}"
                received += more

    def stop(self) -> None:
        self._program.stop(5)
