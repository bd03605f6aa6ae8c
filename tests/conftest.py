"""What all tests share: the `--long` option."""

from __future__ import annotations

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
