"""What all tests share: the `--long` option, and a place where tests leave nothing in the checkout."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Shared tests are no test modules by name; without this their assertions would fail without saying what they saw.
pytest.register_assert_rewrite("tests.spool.contract", "tests.live.host")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run also the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="takes minutes; run with --long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Twisted's own `TestCase.mktemp` makes its folders where the process stands."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)
