"""Who stands where on the loopback, and where results go; README.md has the table."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUN = Path(os.environ.setdefault("BENCH_RUN", str(Path(tempfile.gettempdir()) / "trunk-bench")))

IP = os.environ.setdefault("BENCH_IP", "127.0.0.1")
"""Everybody's address; another one of 127.0.0.0/8 lets two benchmarks run on one machine."""
SUT = 5060
REGISTRAR, REGISTRAR_CONTROL = 5070, 5970
PROVIDER_UAS, PROVIDER_UAC = 5071, 5072
PHONE_UAS, PBX_UAC = 5080, 5081
NAMES = {
    SUT: "SUT", REGISTRAR: "REGISTRAR", PROVIDER_UAS: "PROVIDER-UAS", PROVIDER_UAC: "PROVIDER-UAC",
    PHONE_UAS: "PHONE-UAS", PBX_UAC: "PBX-UAC",
}
