"""The systemd units, checked by systemd's own tools and against the configuration they run with."""

from __future__ import annotations

import configparser
import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mailhost.limits import Limits
from mailhost.service.certificates import make_self_signed

ROOT = Path(__file__).parent.parent.parent
_PR_SET_MDWE = 65
_PR_GET_MDWE = 66
UNITS = ROOT / "etc" / "systemd" / "system"
SOCKETS = sorted(UNITS.glob("*.socket"))


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with programs that exist here, since that is checked too."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    version = re.search(r"systemd (\d+)", analyze("--version").stdout)
    if version is None or int(version[1]) < 250:
        pytest.skip("systemd-analyze checks units of a system that is not running from systemd 250 on")
    for path in UNITS.iterdir():
        text = path.read_text().replace("/opt/mailhost/bin/mailhost", "/bin/true")
        (tmp_path / path.name).write_text(text.replace("/bin/kill", "/bin/true"))
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_understands_every_line(units: Path) -> None:
    """No unknown key, no bad value."""
    checked = analyze("verify", "--man=no", "--recursive-errors=no", *map(str, sorted(units.iterdir())))
    assert checked.stdout + checked.stderr == ""
    assert checked.returncode == 0


def test_a_mistake_would_be_seen(units: Path) -> None:
    """The test above can fail."""
    unit = units / "mailhost.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=60", "WatchdogSecs=60"))
    assert "WatchdogSecs" in analyze("verify", "--man=no", str(unit)).stderr


def test_the_unit_is_hardened(units: Path) -> None:
    """By systemd's own measure, from 0 for safe to 10 for exposed; most services are above 9."""
    checked = analyze("security", "--offline=yes", "--threshold=20", str(units / "mailhost.service"))
    assert checked.returncode == 0, checked.stdout


def test_no_memory_is_both_writable_and_executable(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute= stands in the unit: TLS works under the kernel's own form of it."""
    if ctypes.CDLL(None).prctl(_PR_GET_MDWE, 0, 0, 0, 0) != 0:
        pytest.skip("this kernel has no PR_SET_MDWE")
    certificate, key = make_self_signed(["localhost"])
    (tmp_path / "both.pem").write_bytes(certificate + key)
    script = f"""
import ctypes
assert ctypes.CDLL(None).prctl({_PR_SET_MDWE}, 1, 0, 0, 0) == 0
from mailhost.service.certificates import ServerCertificate
import mailhost.tools.run
ServerCertificate({str(tmp_path / "both.pem")!r}, {str(tmp_path / "both.pem")!r}, print).serverConnectionForTLS(None)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def read(path: Path) -> configparser.ConfigParser:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    return unit


@pytest.mark.parametrize("path", SOCKETS, ids=lambda path: path.stem)
def test_sockets_have_names(path: Path) -> None:
    """Without FileDescriptorName= Twisted finds no socket; and Twisted keeps one socket for each name."""
    socket = read(path)["Socket"]
    assert socket["FileDescriptorName"] == path.stem
    assert socket["Service"] == "mailhost.service"
    assert len(re.findall("^ListenStream=", path.read_text(), re.MULTILINE)) == 1
    assert f'"systemd:domain=INET6:name={path.stem}"' in path.read_text()


def test_sockets_are_the_samples_ports() -> None:
    """One for each listener of the sample configuration."""
    ports = {read(path)["Socket"]["ListenStream"].rpartition(":")[2] for path in SOCKETS}
    sample = (ROOT / "etc" / "mailhost" / "mailhost.toml").read_text()
    assert ports == set(re.findall(r'^endpoint = "tcp6:(\d+)"', sample, re.MULTILINE))


def test_a_stop_leaves_time_to_drain() -> None:
    """systemd must not kill what is still ending its sessions."""
    service = read(UNITS / "mailhost.service")["Service"]
    assert int(service["TimeoutStopSec"]) > Limits().drain_seconds + Limits().close_seconds
    assert service["KillMode"] == "mixed"
    assert service["Type"] == "notify"


def test_descriptors_for_every_connection() -> None:
    """The limit on connections is reached before the one on descriptors."""
    assert int(read(UNITS / "mailhost.service")["Service"]["LimitNOFILE"]) > 2 * Limits().connections
