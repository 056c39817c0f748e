"""The default pool takes its options from the environment, and wrong ones name their variable."""

from __future__ import annotations

import pytest

import rtpool
from rtpool import _core
from rtpool._pool.default import options_from_environment

MEMORY = _core.physical_memory()


def test_without_variables() -> None:
    options = options_from_environment({"PATH": "/bin", "RTPOOL_SIZE": ""}, MEMORY)
    assert options == {"size": 0, "name": "default", "when_full": "fallback", "limit": MEMORY, "idle": 10.0}


def test_all_variables() -> None:
    environment = {
        "RTPOOL_SIZE": "64 MiB",
        "RTPOOL_LIMIT": "25%",
        "RTPOOL_NAME": "mine",
        "RTPOOL_PREFAULT": "0",
        "RTPOOL_LOCK": "Yes",
        "RTPOOL_HUGE_PAGES": "2mib",
        "RTPOOL_WHEN_FULL": "Raise",
        "RTPOOL_ZERO_ON_FREE": "on",
        "RTPOOL_STRICT": "false",
        "RTPOOL_IDLE": "500 ms",
    }
    assert options_from_environment(environment, MEMORY) == {
        "size": 64 << 20,
        "limit": MEMORY // 4,
        "name": "mine",
        "prefault": False,
        "lock": True,
        "huge_pages": "2MiB",
        "when_full": "raise",
        "zero_on_free": True,
        "strict": False,
        "idle": 0.5,
    }
    assert options_from_environment({"RTPOOL_IDLE": "none"}, MEMORY)["idle"] is None
    assert options_from_environment({"RTPOOL_HUGE_PAGES": "off"}, MEMORY)["huge_pages"] is False


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RTPOOL_SIZE", "lots"),
        ("RTPOOL_SIZE", "-1"),
        ("RTPOOL_LIMIT", "1e9"),
        ("RTPOOL_PREFAULT", "2"),
        ("RTPOOL_LOCK", "maybe"),
        ("RTPOOL_HUGE_PAGES", "4MiB"),
        ("RTPOOL_WHEN_FULL", "wait"),
        ("RTPOOL_ZERO_ON_FREE", "x"),
        ("RTPOOL_STRICT", "x"),
        ("RTPOOL_IDLE", "soon"),
    ],
)
def test_wrong_values_name_their_variable(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{variable}={value!r}"):
        options_from_environment({variable: value}, MEMORY)


def test_there_is_one() -> None:
    assert rtpool.default_pool() is rtpool.default_pool()


def test_in_a_process(run_python) -> None:
    run_python(
        """
        import rtpool, numpy as np
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as workers:
            pools = {w.result() for w in [workers.submit(rtpool.default_pool) for _ in range(64)]}
        (pool,) = pools
        assert pool.name == "mine" and pool.stats().capacity_bytes >= 8 << 20
        assert pool.effective.asked["when_full"] == "fallback"
        """,
        RTPOOL_SIZE="8 MiB",
        RTPOOL_NAME="mine",
    )


def test_variables_that_do_not_fit_together(run_python) -> None:
    run_python(
        """
        import rtpool
        try:
            rtpool.default_pool()
        except ValueError as error:
            assert "RTPOOL_" in str(error) and "limit of 1 MiB" in str(error), error
        else:
            raise SystemExit("no error")
        """,
        RTPOOL_SIZE="8 MiB",
        RTPOOL_LIMIT="1 MiB",
    )
