"""`mailhost run` and `twistd mailhost`: start, signals, exit statuses."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.conftest import CONFIGURATION, PROGRAM, TWISTD, Finished, Running, deliver, messages

Command = Callable[..., Finished]
Start = Callable[..., Running]


def test_mail_in_and_out_over_a_restart(config: Path, start: Start) -> None:
    """What was accepted before SIGTERM is there after the next start; both starts log one line for each message."""
    host = start(PROGRAM, "run", "--config", str(config))
    deliver(host)
    host.wait_for(r"Z accepted session=\w+ id=(\S+) from=<bob@far.example> to=<ann@example.test> octets=21 ")
    assert host.end() == -signal.SIGTERM
    assert host.log.splitlines()[-1].endswith("notice what=stopped")
    again = start(PROGRAM, "run", "--config", str(config))
    assert messages(again) == 1


def test_a_port_in_use(config: Path, mailhost: Command) -> None:
    """Exit status 1 and one line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(CONFIGURATION.replace("tcp:0", f"tcp:{port}", 1))
        ended = mailhost("run", "--config", str(config))
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (f"mailhost: cannot listen on tcp:{port}:interface=127.0.0.1 (in): Address already in use\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("hostname", "hostnam"), 'unknown key "hostnam"; "hostname" perhaps?'),
        (
            lambda text: text + '[tls]\ncertificate = "c.pem"\nprivate_key = "k.pem"\n',
            "c.pem: No such file or directory",
        ),
        (lambda text: 'checkers = ["passwd:nobody"]\n' + text, "/nobody: No such file or directory"),
        (lambda text: 'checkers = ["nonsense:x"]\n' + text, 'checkers: "nonsense:x": no plugin has that type'),
        (lambda text: 'checkers = ["unix"]\n' + text, "no checker can say which addresses exist"),
        (lambda text: text + '[aliases]\n"x@example.test" = ["x@other.test"]\n', "other.test"),
    ],
    ids=["key", "certificate", "passwd", "checker", "no-accounts", "alias"],
)
def test_what_ends_a_start(config: Path, mailhost: Command, change: Callable[[str], str], said: str) -> None:
    """`run` and `check` say the same: exit status 1, lines that name what is wrong, no traceback."""
    config.write_text(change(CONFIGURATION))
    for verb in ("run", "check"):
        ended = mailhost(verb, "--config", str(config))
        assert ended.status == 1
        assert said in ended.err
        assert "Traceback" not in ended.err
        assert all(line.startswith(f"mailhost: {config}: ") for line in ended.err.splitlines())


def test_a_failure_after_the_reactor_runs(config: Path, mailhost: Command) -> None:
    """A spool of another version is found out late, and ends the program with status 1 all the same."""
    (config.parent / "spool").mkdir()
    (config.parent / "spool" / "VERSION").write_text("mailhost spool 99\n")
    ended = mailhost("run", "--config", str(config))
    assert ended.status == 1
    assert "VERSION" in ended.err or "version" in ended.err
    assert "Traceback" not in ended.out + ended.err


def test_check_says_what_would_be_done(config: Path, mailhost: Command) -> None:
    """And makes nothing."""
    before = sorted(config.parent.iterdir())
    ended = mailhost("check", "--config", str(config))
    assert (ended.status, ended.err) == (0, "")
    assert "domains    example.test\n" in ended.out
    assert "smtp at tcp:0:interface=127.0.0.1, tls none" in ended.out
    assert "plaintext logins allowed" in ended.out
    assert sorted(config.parent.iterdir()) == before


def test_hangup_reloads_all_or_nothing(config: Path, start: Start) -> None:
    """Accounts and domains change under open ports; a mistake changes nothing, and is named in the log."""
    host = start(PROGRAM, "run", "--config", str(config))
    port = host.port("in")

    def takes(address: str) -> bool:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.helo("client.example")
            client.mail("bob@far.example")
            return client.rcpt(address)[0] == 250

    with smtplib.SMTP("127.0.0.1", port, timeout=10) as connected:
        connected.helo("client.example")
        assert not takes("bob@other.test")
        good = CONFIGURATION.replace('["example.test"]', '["example.test", "other.test"]')
        (config.parent / "passwd").write_text("ann@example.test:{PLAIN}secret\nbob@other.test:{PLAIN}x\n")
        config.write_text(good)
        host.hang_up()
        host.wait_for("notice what=reloaded")
        assert takes("bob@other.test")
        config.write_text(good.replace("other.test", "third.test") + "nonsense = 1\n")
        host.hang_up()
        host.wait_for(r'trouble what="reload refused; everything stays as it was" cause=.*nonsense')
        assert takes("bob@other.test")
        # A session that was there before goes on as it began.
        connected.mail("bob@far.example")
        assert connected.rcpt("bob@other.test")[0] == 550


def test_termination_waits_for_a_transaction(config: Path, start: Start) -> None:
    """SIGTERM between DATA and its end: the message is taken, answered, and there after the next start."""
    host = start(PROGRAM, "run", "--config", str(config))
    port = host.port("in")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        reader = client.makefile("rb")
        reader.readline()
        for line in (b"HELO c", b"MAIL FROM:<b@far.example>", b"RCPT TO:<ann@example.test>", b"DATA"):
            client.sendall(line + b"\r\n")
            reply = reader.readline()
        assert reply.startswith(b"354")
        client.sendall(b"Subject: x\r\n\r\nhalf")
        host.process.send_signal(signal.SIGTERM)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                break
        client.sendall(b" and half\r\n.\r\n")
        assert reader.readline().startswith(b"250")
        assert reader.readline().startswith(b"421")
        assert reader.readline() == b""
    assert host.finish() == -signal.SIGTERM
    assert messages(start(PROGRAM, "run", "--config", str(config))) == 1


def test_json_lines(config: Path, start: Start) -> None:
    """`log = "json"` is one object a line, from the first to the last."""
    config.write_text('log = "json"\n' + CONFIGURATION)
    host = start(PROGRAM, "run", "--config", str(config))
    ready = host.wait_for(r"\{.*ready.*\}")
    host.ready = json.loads(ready[0])["what"]
    deliver(host)
    host.end()
    lines = [json.loads(line) for line in host.log.splitlines() if line]
    (accepted,) = [line for line in lines if line["event"] == "accepted"]
    assert accepted["to"] == "<ann@example.test>"
    assert lines[-1]["what"] == "stopped"


def test_twistd_with_a_configuration(config: Path, start: Start) -> None:
    """The plugin logs through twistd, and twistd's own options work."""
    host = start(TWISTD, "--nodaemon", "--pidfile=", "mailhost", "--config", str(config))
    deliver(host)
    host.wait_for("accepted session=")
    assert messages(host) == 1
    host.end()
    assert "notice what=stopped" in host.log


def test_two_processes_over_one_spool(config: Path, start: Start) -> None:
    """`twistd mailhost-smtp` takes in what `twistd mailhost-pop3` gives out at once."""
    mail_in = start(TWISTD, "--nodaemon", "--pidfile=", "mailhost-smtp", "--config", str(config))
    mail_out = start(TWISTD, "--nodaemon", "--pidfile=", "mailhost-pop3", "--config", str(config))
    deliver(mail_in)
    assert messages(mail_out) == 1
    assert "out at" not in mail_in.ready
    assert "in at" not in mail_out.ready


def test_auth_replaces_the_checkers_of_a_file(tmp_path: Path, config: Path, start: Start) -> None:
    """The file's own cannot even be made here."""
    config.write_text('checkers = ["passwd:nobody"]\n' + CONFIGURATION)
    host = start(PROGRAM, "run", "--config", str(config), "--auth", f"passwd:{tmp_path}/passwd")
    deliver(host)
    assert messages(host) == 1


def test_options_alone_are_enough(tmp_path: Path, config: Path, start: Start) -> None:
    """Without a file: domain, spool, endpoints and a checker."""
    host = start(
        *(TWISTD, "--nodaemon", "--pidfile=", "mailhost", "--domain", "example.test", "--spool", "log:spool"),
        *("--auth", f"passwd:{tmp_path}/passwd", "--plaintext-login"),
        *("--smtp", "tcp:0:interface=127.0.0.1", "--pop3", "tcp:0:interface=127.0.0.1"),
    )
    ready = host.wait_for("ready: .*")[0]
    host.ready = ready.replace("smtp:0", "in").replace("pop3:0", "out")
    deliver(host)
    assert messages(host) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "x", "--domain", "y"], "it cannot stand with --domain"),
        (["--domain", "y"], "no --config; without it these are needed: --spool, --smtp or --pop3, --auth"),
        (["--nonsense"], "option --nonsense not recognized"),
    ],
)
def test_options_that_do_not_fit(mailhost: Command, arguments: list[str], said: str) -> None:
    """Each is one line."""
    ended = mailhost("run", *arguments)
    assert ended.status == 1
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_ready_and_stopping_are_told(config: Path, start: Start, tmp_path: Path) -> None:
    """With a notify socket like systemd's: ready once it listens, alive, reloading, stopping."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(20)
        host = start(
            *(PROGRAM, "run", "--config", str(config)),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            WATCHDOG_USEC="400000",
        )
        assert ear.recv(1000) == b"READY=1"
        deliver(host)
        assert ear.recv(1000) == b"WATCHDOG=1"
        host.hang_up()
        said: list[bytes] = []
        while b"READY=1" not in said:
            said.append(ear.recv(1000))
        assert any(message.startswith(b"RELOADING=1\nMONOTONIC_USEC=") for message in said)
        host.end()
        while said[-1] != b"STOPPING=1":
            said.append(ear.recv(1000))


def test_socket_activation(tmp_path: Path, config: Path) -> None:
    """A socket that systemd would pass, by the name its .socket unit gives it."""
    config.write_text(CONFIGURATION.replace("tcp:0:interface=127.0.0.1", "systemd:domain=INET:name=mailhost-smtp", 1))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        # What systemd does between fork and exec: the socket becomes descriptor 3, and LISTEN_PID is the program's.
        script = f"import os; os.dup2({listening.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
        script += f"os.execv({PROGRAM!r}, ['mailhost', 'run', '--config', {str(config)!r}])"
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "mailhost-smtp"},
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                assert client.ehlo()[0] == 250
        finally:
            process.terminate()
            log, _ = process.communicate(timeout=20)
    assert b"ready: in at 127.0.0.1" in log


def test_root_gives_itself_up(config: Path, start: Start, tmp_path: Path) -> None:
    """Started as root, the host binds its ports and goes on as the user to whom the spool belongs."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    spool = tmp_path / "spool"
    spool.mkdir()
    os.chown(spool, 65534, 65534)
    tmp_path.chmod(0o755)
    for path in tmp_path.parents:
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    (tmp_path / "passwd").chmod(0o644)
    host = start(PROGRAM, "run", "--config", str(config))
    deliver(host)
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert {path.stat().st_uid for path in spool.rglob("*")} == {65534}
    assert {path.stat().st_mode & 0o007 for path in spool.rglob("*")} == {0}
