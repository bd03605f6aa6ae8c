"""What is installed: the plugins that twistd finds, and nothing that would hide Twisted's own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TWISTD = Path(sysconfig.get_path("scripts")) / "twistd"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from a copy of what the project holds."""
    pytest.importorskip("setuptools", minversion="70.1", reason="the first that builds wheels by itself")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for folder in ("mailhost", "twisted"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".typed", ".toml"):
                copy = source / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(source)]
    built = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_plugins_are_in_the_wheel(wheel: set[str]) -> None:
    """Both files, where twistd looks."""
    assert {"twisted/plugins/mailhost_plugin.py", "twisted/plugins/mailhost_checkers.py"} <= wheel


def test_nothing_hides_twisted(wheel: set[str]) -> None:
    """An __init__.py in either folder would be found instead of Twisted's own."""
    assert {"twisted/__init__.py", "twisted/plugins/__init__.py"} & wheel == set()
    assert not list((ROOT / "twisted").rglob("__init__.py"))


def test_every_module_is_in_the_wheel(wheel: set[str]) -> None:
    """A package that was forgotten is found out here, not by who installs it."""
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "mailhost").rglob("*.py")}
    assert modules <= wheel
    assert "mailhost/py.typed" in wheel
    assert "mailhost/pop3/languages/de.toml" in wheel


def test_nothing_else_is_in_the_wheel(wheel: set[str]) -> None:
    """No tests, no configuration."""
    others = {name for name in wheel if not name.startswith(("mailhost/", "twisted/plugins/mailhost_"))}
    assert all(".dist-info/" in name for name in others), others


def test_twistd_names_the_three_plugins() -> None:
    """From a folder that is not the project's, as it is installed."""
    said = subprocess.run(
        [str(TWISTD), "--help"], cwd="/", capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for name in ("mailhost", "mailhost-smtp", "mailhost-pop3"):
        assert f"\n    {name} " in said


def test_the_plugins_explain_themselves() -> None:
    """Options and checkers, without a traceback."""
    for plugin in ("mailhost", "mailhost-smtp", "mailhost-pop3"):
        said = subprocess.run(
            [str(TWISTD), plugin, "--help"], cwd="/", capture_output=True, text=True, timeout=60, check=True
        ).stdout
        assert "--config" in said
        assert "--auth" in said


def test_the_plugin_file_imports_next_to_nothing() -> None:
    """twistd reads every plugin for any of its commands: a missing dependency of ours must not break them all."""
    script = (
        "import sys, runpy; "
        f"runpy.run_path({str(ROOT / 'twisted' / 'plugins' / 'mailhost_plugin.py')!r}); "
        "print([name for name in sys.modules if name.startswith('mailhost')])"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd="/", capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
