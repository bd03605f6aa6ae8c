"""
Clients that nobody here wrote, each as its own manual says to use it, under TLS with the host's certificate checked.

What they send is fetched with poplib, what they fetch was sent with smtplib; so each is tested alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live.host import Account, Host, assert_is

CONTENT = (
    b"From: sender@far.example\r\nTo: ann@example.test\r\nSubject: other clients\r\n"
    b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@far.example>\r\n\r\n"
    b"Hello.\r\n.\r\n..dots\r\n\r\nEnd.\r\n"
)
SENDER = "sender@far.example"


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def perl_module(*names: str) -> str:
    perl = program("perl")
    for name in names:
        if subprocess.run([perl, f"-M{name}", "-e", "1"], capture_output=True).returncode:
            pytest.skip(f"Perl's {name} is not installed")
    return perl


def run(*arguments: str, stdin: bytes = b"", cwd: Path | None = None, home: Path | None = None) -> bytes:
    """@param home: where the program looks for files of its own; nothing of the user's is read."""
    environment = {**os.environ, "LC_ALL": "C", **({"HOME": str(home)} if home else {})}
    done = subprocess.run(arguments, input=stdin, capture_output=True, timeout=60, cwd=cwd, env=environment)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def configuration(path: Path, text: str) -> str:
    """A file only its owner can read, as programs want the ones with passwords."""
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def as_kept(received: bytes) -> bytes:
    """As fetching programs keep mail: with LF."""
    return received.replace(b"\r\n", b"\n")


def make_maildir(path: Path) -> Path:
    for part in "tmp", "new", "cur":
        (path / part).mkdir(parents=True)
    return path


# -- curl


def test_curl_sends(shared_host: Host, account: Account, tmp_path: Path) -> None:
    """curl sends by SMTP with STARTTLS."""
    curl = program("curl")
    message = tmp_path / "message"
    message.write_bytes(CONTENT)
    url = f"smtp://localhost:{shared_host.ports.smtp}/client.example"
    tls = "--ssl-reqd", "--cacert", str(shared_host.certificate)
    envelope = "--mail-from", SENDER, "--mail-rcpt", account.address
    run(curl, "-sS", url, *tls, *envelope, "--upload-file", str(message))
    assert_is(shared_host.fetch(account)[0], CONTENT)


@pytest.mark.parametrize("port", ["submission", "submissions"])
def test_curl_submits(shared_host: Host, account: Account, port: str, tmp_path: Path) -> None:
    """curl logs in and submits, with STARTTLS and with TLS from the start."""
    curl = program("curl")
    message = tmp_path / "message"
    message.write_bytes(CONTENT)
    scheme = "smtps" if port == "submissions" else "smtp"
    url = f"{scheme}://localhost:{getattr(shared_host.ports, port)}/client.example"
    tls = "--ssl-reqd", "--cacert", str(shared_host.certificate)
    envelope = "--mail-from", account.address, "--mail-rcpt", account.address
    run(curl, "-sS", url, *tls, "--user", ":".join(account), *envelope, "--upload-file", str(message))
    assert_is(shared_host.fetch(account)[0], CONTENT)


@pytest.mark.parametrize("port", ["pop3", "pop3s"])
def test_curl_fetches(shared_host: Host, account: Account, port: str) -> None:
    """curl lists and fetches, with STLS and with TLS from the start; what it prints is the message, octet for octet."""
    curl = program("curl")
    shared_host.deliver(account, CONTENT)
    url = f"{port}://localhost:{getattr(shared_host.ports, port)}/"
    options = "-sS", "--ssl-reqd", "--cacert", str(shared_host.certificate), "--user", ":".join(account)
    listing = run(curl, *options, url)
    received = run(curl, *options, url + "1")
    assert_is(received, CONTENT)
    assert listing == b"1 %d\r\n" % len(received)


# -- swaks


def test_swaks(shared_host: Host, account: Account) -> None:
    """swaks submits with STARTTLS and AUTH, pipelining what it can."""
    swaks = program("swaks")
    perl_module("Net::SSLeay")
    server = "--server", "localhost", "--port", str(shared_host.ports.submission), "--ehlo", "client.example"
    tls = "--tls", "--tls-verify", "--tls-ca-path", str(shared_host.certificate)
    auth = "--auth", "PLAIN", "--auth-user", account.address, "--auth-password", account.password
    envelope = "--from", account.address, "--to", account.address
    run(swaks, *server, *tls, *auth, *envelope, "--pipeline", "--body", ".\n..\nHello.", "--header", "Subject: swaks")
    (received,) = shared_host.fetch(account)
    assert b"\r\nSubject: swaks\r\n" in received
    assert b"\r\n\r\n.\r\n..\r\nHello.\r\n" in received


# -- msmtp


def test_msmtp(shared_host: Host, account: Account, tmp_path: Path) -> None:
    """msmtp submits with TLS from the start."""
    msmtp = program("msmtp")
    settings = configuration(
        tmp_path / "msmtprc",
        f"account default\nhost localhost\nport {shared_host.ports.submissions}\ndomain client.example\n"
        f"tls on\ntls_starttls off\ntls_trust_file {shared_host.certificate}\n"
        f"auth on\nuser {account.address}\npassword {account.password}\nfrom {account.address}\n",
    )
    run(msmtp, "-C", settings, account.address, stdin=as_kept(CONTENT), home=tmp_path)
    assert_is(shared_host.fetch(account)[0], CONTENT)


# -- fetchmail


def test_fetchmail(shared_host: Host, account: Account, tmp_path: Path) -> None:
    """fetchmail fetches over STLS, hands the message on, and deletes it."""
    fetchmail = program("fetchmail")
    shared_host.deliver(account, CONTENT)
    kept = tmp_path / "kept"
    settings = configuration(
        tmp_path / "fetchmailrc",
        f"poll localhost protocol pop3 port {shared_host.ports.pop3} uidl\n"
        f"  username '{account.address}' password '{account.password}'\n"
        f"  sslproto 'TLS1.2+' sslcertck sslcertfile '{shared_host.certificate}'\n"
        f"  mda 'cat >>{kept}'\n",
    )
    environment = "--fetchmailrc", settings, "--idfile", str(tmp_path / "ids"), "--pidfile", str(tmp_path / "pid")
    run(fetchmail, *environment, "--invisible", "--nosyslog", home=tmp_path)
    assert kept.read_bytes().endswith(as_kept(CONTENT))
    assert shared_host.fetch(account) == []


# -- mpop


@pytest.mark.parametrize("pipelining", ["on", "off"])
def test_mpop(shared_host: Host, account: Account, pipelining: str, tmp_path: Path) -> None:
    """mpop fetches with TLS from the start into a maildir, pipelined or not, and deletes."""
    mpop = program("mpop")
    shared_host.deliver(account, CONTENT, CONTENT.replace(b"Hello", b"Again"))
    maildir = make_maildir(tmp_path / "kept")
    settings = configuration(
        tmp_path / "mpoprc",
        f"account default\nhost localhost\nport {shared_host.ports.pop3s}\n"
        f"tls on\ntls_starttls off\ntls_trust_file {shared_host.certificate}\n"
        f"user {account.address}\npassword {account.password}\npipelining {pipelining}\n"
        f"received_header off\nuidls_file {tmp_path / 'uidls'}\ndelivery maildir {maildir}\n",
    )
    run(mpop, "-C", settings, home=tmp_path)
    kept = sorted(path.read_bytes() for path in (maildir / "new").iterdir())
    assert len(kept) == 2
    assert any(message.endswith(as_kept(CONTENT)) for message in kept)
    assert shared_host.fetch(account) == []


# -- getmail


def test_getmail(shared_host: Host, account: Account, tmp_path: Path) -> None:
    """getmail fetches with TLS from the start, its certificate checked, and deletes."""
    getmail = program("getmail")
    shared_host.deliver(account, CONTENT)
    kept = tmp_path / "kept"
    configuration(
        tmp_path / "getmailrc",
        "[retriever]\ntype = SimplePOP3SSLRetriever\nserver = localhost\n"
        f"port = {shared_host.ports.pop3s}\nusername = {account.address}\npassword = {account.password}\n"
        f"ca_certs = {shared_host.certificate}\n"
        # Its maildirs refuse root, as whom a container may run these tests.
        f"[destination]\ntype = MDA_external\npath = {program('dd')}\narguments = ('of={kept}', 'status=none')\n"
        "allow_root_commands = true\n"
        "[options]\ndelete = true\ndelivered_to = false\nreceived = false\n",
    )
    run(getmail, "--getmaildir", str(tmp_path), home=tmp_path)
    assert kept.read_bytes().endswith(as_kept(CONTENT))
    assert shared_host.fetch(account) == []


# -- Perl

NET_SMTP = """
use strict; use Net::SMTP;
my ($port, $ca, $user, $password, $to) = @ARGV;
my $smtp = Net::SMTP->new("localhost", Port => $port, Hello => "client.example", Timeout => 30) or die "connect";
$smtp->starttls(SSL_ca_file => $ca, SSL_verify_mode => 1) or die "starttls: " . $smtp->message;
$smtp->auth($user, $password) or die "auth: " . $smtp->message;
$smtp->mail($user) or die; $smtp->to($to) or die; $smtp->data or die;
my $content = do { binmode STDIN; local $/; <STDIN> };
$smtp->datasend($content) or die;
$smtp->dataend or die "data: " . $smtp->message; $smtp->quit or die;
"""

NET_POP3 = """
use strict; use Net::POP3;
my ($port, $ca, $user, $password) = @ARGV;
my $pop = Net::POP3->new("localhost", Port => $port, Timeout => 30) or die "connect";
$pop->starttls(SSL_ca_file => $ca, SSL_verify_mode => 1) or die "stls: " . $pop->message;
my $count = $pop->login($user, $password); die "login" unless defined $count;
for my $number (sort keys %{$pop->list}) { print @{$pop->get($number)}; $pop->delete($number) or die; }
$pop->quit or die;
"""


def test_net_smtp(shared_host: Host, account: Account) -> None:
    """Perl's Net::SMTP submits over STARTTLS, logged in."""
    perl = perl_module("Net::SMTP", "IO::Socket::SSL", "Authen::SASL")
    options = str(shared_host.ports.submission), str(shared_host.certificate), *account
    run(perl, "-e", NET_SMTP, *options, account.address, stdin=as_kept(CONTENT))
    assert_is(shared_host.fetch(account)[0], CONTENT)


def test_net_pop3(shared_host: Host, account: Account) -> None:
    """Perl's Net::POP3 fetches over STLS and deletes."""
    perl = perl_module("Net::POP3", "IO::Socket::SSL")
    shared_host.deliver(account, CONTENT)
    fetched = run(perl, "-e", NET_POP3, str(shared_host.ports.pop3), str(shared_host.certificate), *account)
    assert re.sub(rb"\r?\n", b"\r\n", fetched).endswith(CONTENT)
    assert shared_host.fetch(account) == []
