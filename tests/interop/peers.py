"""SIP peers that nobody here wrote: Kamailio as a registrar, SIPp at both ends of a call, tcpdump between."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Issued
from tests.interop.programs import Program, eventually, free_port, missing, program

HERE = Path(__file__).parent
SCENARIOS = HERE / "scenarios"


@dataclass(frozen=True)
class Binding:
    """A contact as the registrar holds it."""

    contact: str
    expires: int
    call_id: str
    cseq: int


@dataclass(frozen=True)
class Seen:
    """A REGISTER as the registrar logged it."""

    time: float
    user: str
    authenticated: bool
    source: str
    expires: int | None
    call_id: str
    cseq: int


class Registrar:
    """Kamailio from Debian: digest and bindings in memory; passwords are a hash table that the test may change."""

    def __init__(
        self,
        folder: Path,
        host: str,
        *,
        password: str = "secret",
        realm: str = "rheintel.example",
        max_expires: int = 3600,
        min_expires: int = 0,
        port: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host, self.port, self.realm, self.password = host, port or free_port(host), realm, password
        self._control = f"unix:{folder / 'ctl'}"
        self._kamcmd = program("kamcmd")
        self._program = Program(
            [
                program("kamailio"),
                "-DD",
                "-E",
                "-f",
                str(HERE / "conf" / "registrar.cfg"),
                "-Y",
                str(folder),
                "-w",
                str(folder),
                "-m",
                "64",
                "-b",
                "4000000",
                "-A",
                f"LISTEN=udp:{host}:{self.port}",
                "-A",
                f'CONTROL="{self._control}"',
                "-A",
                f'REALM="{realm}"',
                "-A",
                f"MAX_EXPIRES={max_expires}",
                "-A",
                f"MIN_EXPIRES={min_expires}",
            ],
            log=folder / "kamailio.log",
        )
        eventually(lambda: self._ask("core.version") is not None, 10, "Kamailio starts")
        self.set_password("*", password)

    @property
    def uri(self) -> str:
        return f"sip:{self.host}:{self.port}"

    def _ask(self, *command: str) -> str | None:
        done = subprocess.run([self._kamcmd, "-s", self._control, *command], capture_output=True, text=True, timeout=10)
        return None if done.returncode or done.stdout.startswith("error") else done.stdout

    def set_password(self, user: str, password: str) -> None:
        assert self._ask("htable.sets", "password", user, f"s:{password}") is not None

    def bindings(self) -> dict[str, list[Binding]]:
        """Return what `ul.dump` says, by user; contacts whose time is over are left out."""
        dump = self._ask("ul.dump") or ""
        found: dict[str, list[Binding]] = {}
        for aor in re.split(r"\n\s*AoR: ", dump)[1:]:
            user = aor.split("\n", 1)[0].strip()
            for contact in re.split(r"\n\s*Contact: \{", aor)[1:]:
                field = dict(re.findall(r"\n\s*([A-Za-z-]+): (\S.*)", contact))
                if field["Expires"].lstrip("-").isdigit() and int(field["Expires"]) > 0:
                    found.setdefault(user, []).append(
                        Binding(field["Address"], int(field["Expires"]), field["Call-ID"], int(field["CSeq"]))
                    )
        return found

    def binding(self, user: str) -> Binding | None:
        held = self.bindings().get(user, [])
        assert len(held) <= 1, f"The registrar holds several contacts of {user}: {held}"
        return held[0] if held else None

    def seen(self, user: str | None = None) -> list[Seen]:
        """Return every REGISTER that arrived, challenged ones included."""
        found = re.findall(
            r"REGISTER time=(\S+) user=(\S*) auth=(\S*) source=(\S+) expires=(\S*) call=(\S+) cseq=(\d+)",
            self._program.text,
        )
        return [
            Seen(float(t), u, a != "<null>", s, int(e) if e.isdigit() else None, c, int(n))
            for t, u, a, s, e, c, n in found
            if user in (None, u)
        ]

    def stop(self) -> None:
        self._program.stop(5)

    def freeze(self) -> None:
        """Let it fall silent without an ICMP: the sockets stay open, nobody reads."""
        os.killpg(self._program.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._program.pid, signal.SIGCONT)


@dataclass(frozen=True)
class SippResult:
    created: int
    ok: int
    failed: int
    retransmissions: int
    code: int
    errors: str


class Sipp:
    """One SIPp, started in the background; `result()` waits for it."""

    def __init__(
        self,
        folder: Path,
        scenario: str,
        local: tuple[str, int],
        target: tuple[str, int] | None = None,
        *,
        count: int | None = None,
        rate: float = 10,
        keys: Mapping[str, str] | None = None,
        users: list[str] | None = None,
        seconds: float = 30,
        talk: float = 0.5,
        transport: str = "u1",
    ) -> None:
        """`scenario` is one of ours by name, or a file of others; `transport` is SIPp's -t: u1, t1 (one connection for
        all calls), tn (one each).
        """
        self.folder = folder / f"{Path(scenario).stem}-{local[0].replace(':', '.')}-{local[1]}"
        self.folder.mkdir(parents=True)
        control = "127.0.0.1" if ":" in local[0] else local[0]
        self._control = free_port(control)
        argv = [
            program("sipp"),
            *([f"[{target[0]}]:{target[1]}" if ":" in target[0] else f"{target[0]}:{target[1]}"] if target else []),
            "-sf",
            str(Path(scenario) if scenario.endswith(".xml") else SCENARIOS / f"{scenario}.xml"),
            "-i",
            local[0],
            "-p",
            str(local[1]),
            "-t",
            transport,
            "-ci",
            control,
            "-cp",
            str(self._control),
            "-nostdin",
            "-buff_size",
            "4000000",
            "-l",
            "5000",
            "-r",
            str(rate),
            "-d",
            f"{talk * 1000:.0f}",
            "-timeout",
            f"{seconds:g}s",
            "-trace_stat",
            "-stf",
            "stat.csv",
            "-fd",
            "1",
            "-trace_err",
            "-error_file",
            "errors.log",
            "-trace_msg",
            "-message_file",
            "messages.log",
        ]
        if transport == "tn":
            argv += ["-max_socket", "500"]  # more than the limit of open files by default, and then it does not start
        if count is not None:
            argv += ["-m", str(count)]
        for key, value in (keys or {}).items():
            argv += ["-key", key, value]
        if users is not None:
            (self.folder / "users.csv").write_text("SEQUENTIAL\n" + "".join(f"{user}\n" for user in users))
            argv += ["-inf", "users.csv"]
        self._seconds = seconds
        self._program = Program(argv, log=self.folder / "out.log", cwd=self.folder)
        # Over TCP a caller has no socket until its first call.
        if transport == "u1" or target is None:
            eventually(lambda: self._program.code is not None or _bound(local), 5, f"SIPp {scenario} binds its socket")

    @property
    def messages(self) -> str:
        path = self.folder / "messages.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def running(self) -> bool:
        return self._program.code is None

    def result(self) -> SippResult:
        """Wait for its last call and return the counts; a UAS without `count` is asked to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._program.wait(self._seconds + 10)
        return self.stop()

    def stop(self) -> SippResult:
        if self.running():
            self._program.send(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._program.wait(3)
        code = self._program.stop(3)
        with (self.folder / "stat.csv").open() as text:
            rows = list(csv.reader(text, delimiter=";"))
        last = dict(zip(rows[0], rows[-1], strict=False))
        errors = self.folder / "errors.log"
        return SippResult(
            int(last["TotalCallCreated"]),
            int(last["SuccessfulCall(C)"]),
            int(last["FailedCall(C)"]),
            int(last["Retransmissions(C)"]),
            code,
            errors.read_text(errors="replace")[:4000] if errors.exists() else "",
        )


def _bound(local: tuple[str, int]) -> bool:
    packed = socket.inet_pton(socket.AF_INET6 if ":" in local[0] else socket.AF_INET, local[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    wanted = "".join(f"{word:08X}" for word in words) + f":{local[1]:04X} "
    kinds = ("udp6", "tcp6") if ":" in local[0] else ("udp", "tcp")
    return any(wanted in Path(f"/proc/net/{kind}").read_text() for kind in kinds)


@dataclass(frozen=True)
class Packet:
    """One UDP datagram with a SIP message in it."""

    time: float
    source: tuple[str, int]
    destination: tuple[str, int]
    text: str

    @property
    def start_line(self) -> str:
        return self.text.split("\r\n", 1)[0]

    @property
    def method(self) -> str:
        """Of a request; empty for a response."""
        return "" if self.start_line.startswith("SIP/2.0 ") else self.start_line.split(" ", 1)[0]

    @property
    def status(self) -> int:
        """Of a response; 0 for a request."""
        return int(self.start_line.split(" ")[1]) if self.start_line.startswith("SIP/2.0 ") else 0

    def header(self, name: str) -> list[str]:
        head = self.text.split("\r\n\r\n", 1)[0]
        return re.findall(rf"^{name}[ \t]*:[ \t]*(.*?)\r?$", head, re.M | re.I)


class Capture:
    """tcpdump on the loopback, read back as SIP messages."""

    def __init__(self, folder: Path, expression: str = "udp") -> None:
        if os.geteuid() != 0:
            missing("Capturing the loopback needs root: run the tests as root.")
        self._path = folder / f"{time.monotonic_ns()}.pcap"
        self._program = Program(
            [
                program("tcpdump"),
                "-i",
                "lo",
                "-n",
                "-s",
                "0",
                "-B",
                "32768",
                "-U",
                "--immediate-mode",
                "-Z",
                "root",
                "--time-stamp-precision=nano",
                "-w",
                str(self._path),
                f"({expression}) or udp port 9",
            ],
            log=folder / "tcpdump.log",
        )
        eventually(lambda: self._path.exists() and self._path.stat().st_size >= 24, 5, "tcpdump listens")
        # Its header is written before the socket reads; a marker datagram tells that it does.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
            eventually(
                lambda: marker.sendto(b"marker", ("127.0.0.1", 9)) and b"marker" in self._path.read_bytes(),
                5,
                "tcpdump captures",
                0.05,
            )

    def packets(self) -> list[Packet]:
        """Return the SIP messages so far."""
        return [packet for packet in _read(self._path.read_bytes()) if "SIP/2.0" in packet.start_line]

    def stop(self) -> list[Packet]:
        time.sleep(0.2)
        self._program.stop(5)
        return self.packets()


def _read(data: bytes) -> Iterator[Packet]:
    """Yield the UDP payloads of a pcap file (Ethernet link type, as Linux writes for lo)."""
    nano = struct.unpack("<I", data[:4])[0] == 0xA1B23C4D
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, length, _ = struct.unpack("<IIII", data[at : at + 16])
        frame = data[at + 16 : at + 16 + length]
        at += 16 + length
        ip = frame[14:]
        if len(frame) < length or not ip or ip[0] >> 4 != 4 or ip[9] != socket.IPPROTO_UDP:
            continue
        udp = ip[(ip[0] & 15) * 4 :]
        sport, dport = struct.unpack(">HH", udp[:4])
        yield Packet(
            seconds + fraction * (1e-9 if nano else 1e-6),
            (socket.inet_ntoa(ip[12:16]), sport),
            (socket.inet_ntoa(ip[16:20]), dport),
            udp[8:].decode("utf8", "replace"),
        )


def tls_peer(folder: Path, name: str, udp: tuple[str, int], secure: int, issued: Issued, **more: str) -> Program:
    """A Kamailio with TLS at port `secure` of the same address; what `more` may say stands in conf/tls_peer.cfg."""
    given = {
        "LISTEN": f"udp:{udp[0]}:{udp[1]}", "LISTEN_TLS": f"tls:{udp[0]}:{secure}", "SOURCE": udp[0],
        "CONTROL": f'"unix:{folder / name}-ctl"', "CERTIFICATE": f'"{issued.certificate}"', "KEY": f'"{issued.key}"',
        **{key: f'"{value}"' for key, value in more.items()},
    }  # fmt: skip
    return Program(
        [
            program("kamailio"), "-DD", "-E", "-f", str(HERE / "conf" / "tls_peer.cfg"), "-Y", str(folder),
            "-w", str(folder), "-m", "64", *(word for key, value in given.items() for word in ("-A", f"{key}={value}")),
        ],
        log=folder / f"{name}.log",
    )  # fmt: skip


def assert_clean(result: SippResult, calls: int) -> None:
    """Every call of a SIPp ended as its scenario says."""
    if result.failed or result.ok != calls:
        pytest.fail(f"SIPp: {result.ok} of {calls} calls well, {result.failed} failed.\n{result.errors}", pytrace=False)
