"""The configuration: what is taken, and what an operator sees of mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailhost.limits import Limits, Quota, Terms
from mailhost.service.config import (
    Config,
    ConfigError,
    POP3Table,
    QuotaTable,
    SpaceTable,
    default_name,
    from_document,
    load,
)

BAD = sorted((Path(__file__).parent.parent / "configs" / "bad").glob("*.toml"))
SAMPLE = Path(__file__).parent.parent.parent / "etc" / "mailhost" / "mailhost.toml"

SMALLEST = """
hostname = "mx.example.test"
domains = ["example.test"]
[[listen]]
protocol = "smtp"
endpoint = "tcp:2525"
"""


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "mailhost.toml"
    path.write_text(text)
    return load(str(path))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_what_an_operator_sees_of_a_bad_file(path: Path) -> None:
    """Each bad file has the exact lines beside it that name key, value and what would be right."""
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    seen = [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]
    assert seen == path.with_suffix(".txt").read_text().splitlines()


def test_there_are_bad_files() -> None:
    """The test above has something to read."""
    assert len(BAD) >= 8


def test_defaults(tmp_path: Path) -> None:
    """Host name, domains and one listener are enough."""
    config = read(tmp_path, SMALLEST)
    (listen,) = config.listen
    assert (listen.tls, listen.plaintext_login, listen.name, listen.limits) == ("none", False, "smtp:2525", Limits())
    assert config.checkers == ("passwd:passwd",)
    assert config.spool_directory == str(tmp_path / "spool")
    assert config.workers == 1


def test_maildir(tmp_path: Path) -> None:
    """A Maildir spool has a directory, and a pattern if one is given."""
    for spool, pattern in {"maildir:mail": "%d/%n", "maildir:mail:pattern=%u/Maildir": "%u/Maildir"}.items():
        config = read(tmp_path, f'spool = "{spool}"\n' + SMALLEST)
        assert (config.spool_directory, config.maildir_pattern) == (str(tmp_path / "mail"), pattern)
    assert read(tmp_path, SMALLEST).maildir_pattern is None


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the process was started, and for ever after."""
    (tmp_path / "mailhost.toml").write_text(SMALLEST)
    monkeypatch.chdir(tmp_path)
    config = load("mailhost.toml")
    monkeypatch.chdir("/")
    assert config.path("tls/cert.pem") == str(tmp_path / "tls/cert.pem")
    assert config.path("/etc/cert.pem") == "/etc/cert.pem"


def test_a_listener_has_the_limits_of_the_host_under_its_own(tmp_path: Path) -> None:
    """A `limits` table of a listener replaces what it names, and nothing else."""
    config = read(
        tmp_path,
        SMALLEST + "limits = {errors = 3}\n[limits]\nerrors = 7\nmessage_octets = 1000\ncommand_seconds = 5\n",
    )
    limits = config.listen[0].limits
    assert (limits.errors, limits.message_octets, limits.command_seconds) == (3, 1000, 5.0)
    assert config.limits.errors == 7


def test_every_limit_can_be_set(tmp_path: Path) -> None:
    """`[limits]` has exactly the fields of Limits."""
    names = list(Limits.__dataclass_fields__)
    config = read(tmp_path, SMALLEST + "[limits]\n" + "".join(f"{name} = 17\n" for name in names))
    assert config.limits == Limits(**dict.fromkeys(names, 17))


def test_quotas(tmp_path: Path) -> None:
    """None unless they are given; as text, for all, for domains."""
    assert read(tmp_path, SMALLEST).quota == QuotaTable(Quota(), {}, False)
    text = '[quota]\ndefault = "5M"\npermanent = true\ndomains = {"example.test" = "10/-"}\n'
    quota = read(tmp_path, SMALLEST + text).quota
    assert quota == QuotaTable(Quota(None, 5 << 20), {"example.test": Quota(10, None)}, True)


def test_no_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    """A missing file is one line, with a way on."""
    with pytest.raises(ConfigError, match=r"nowhere.toml: No such file or directory; `mailhost init"):
        load(str(tmp_path / "nowhere.toml"))


def test_many_ports_of_the_systems_choice() -> None:
    """Port 0 is another port each time, so two listeners may both ask for it when they are told apart by name."""
    listen = {"protocol": "smtp", "endpoint": "tcp:0"}
    document = {"hostname": "a", "domains": ["a"], "listen": [{**listen, "name": "one"}, {**listen, "name": "two"}]}
    config = from_document(document, source="test", directory="/")
    assert [one.name for one in config.listen] == ["one", "two"]


def test_one_port_on_two_interfaces() -> None:
    """These are two listeners, with two names."""
    listen = [{"protocol": "smtp", "endpoint": f"tcp:25:interface=127.0.0.{number}"} for number in (1, 2)]
    config = from_document({"hostname": "a", "domains": ["a"], "listen": listen}, source="test", directory="/")
    assert [one.name for one in config.listen] == [f"smtp:tcp:25:interface=127.0.0.{number}" for number in (1, 2)]


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("tcp:2525:interface=127.0.0.1", "smtp:2525"),
        ("tcp:port=25", "smtp:25"),
        ("tcp:interface=127.0.0.1:port=25", "smtp:25"),
        ("unix:/run/smtp", "smtp:/run/smtp"),
        ("systemd:domain=INET6:name=mailhost-smtp", "smtp:mailhost-smtp"),
    ],
)
def test_listeners_have_names_that_tell_them_apart(endpoint: str, name: str) -> None:
    """Log lines call a listener by what its endpoint is known by."""
    assert default_name("smtp", endpoint) == name


def test_the_sample_configuration_is_complete() -> None:
    """Every key and every limit stands in the sample, and the sample can be loaded."""
    load(str(SAMPLE))
    text = SAMPLE.read_text()
    missing = [
        name
        for table in (Config, type(load(str(SAMPLE)).listen[0]), Limits, QuotaTable, POP3Table, SpaceTable)
        for name in table.__dataclass_fields__
        if name != "directory" and name not in text
    ]
    assert missing == []


def test_the_documented_keys_are_the_real_ones() -> None:
    """docs/configuration.md explains every key and limit, with the default that counts."""
    text = (SAMPLE.parent.parent.parent / "docs" / "configuration.md").read_text()
    tables = {"directory", "tls", "limits", "listen", "quota", "pop3", "space"}
    keys = {*Config.__dataclass_fields__} - tables
    keys |= {key for table in (QuotaTable, POP3Table, SpaceTable) for key in table.__dataclass_fields__}
    assert [key for key in keys if f"| `{key}` |" not in text] == []
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE))
    documented.pop("workers", None)
    assert {key: float(value) for key, value in documented.items()} == numbers()


def test_the_samples_defaults_are_the_real_ones(tmp_path: Path) -> None:
    """What is commented out in the sample is what counts without it."""
    text = SAMPLE.read_text()
    said = dict(re.findall(r"^# (\w+) = ([\d.]+)$", text, re.MULTILINE))
    said.pop("workers")
    assert {key: float(value) for key, value in said.items()} == numbers()


def numbers() -> dict[str, float]:
    """Every default that is a number."""
    return {
        name: float(value)
        for table in (Limits(), POP3Table(), SpaceTable())
        for name in table.__dataclass_fields__
        if isinstance(value := getattr(table, name), int | float) and not isinstance(value, bool)
    }


def test_terms_of_pop3() -> None:
    """0 days are for ever, for a domain too, and a domain that says nothing of one term keeps the host's."""
    table = {"login_delay_seconds": 60, "expire_days": 9, "domains": {"b.test": {"expire_days": 0}, "c.test": {}}}
    listen = [{"protocol": "pop3", "endpoint": "tcp:2110"}]
    document = {"hostname": "a", "domains": ["a"], "listen": listen, "pop3": table}
    pop3 = from_document(document, source="test", directory="/").pop3
    assert pop3.terms == Terms(60, 9)
    assert {domain: own.own() for domain, own in pop3.domains.items()} == {
        "b.test": {"expire_days": None},
        "c.test": {},
    }
