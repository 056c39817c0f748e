"""The garbage collector in sections: off, with what is alive set aside, and nobody else's `gc.freeze` undone."""

from __future__ import annotations

import gc

import pytest

import rtpool
from rtpool._realtime.collector import frozen_by_program

# More objects than Python has set aside by itself: 375 in 3.12, where what is immortal counts as frozen.
MANY = 2000


def frozen() -> int:
    """How many objects are frozen once a collection has put those aside that it always does."""
    gc.collect()
    return gc.get_freeze_count()


@pytest.mark.parametrize("mode", ["freeze", "disable", "keep"])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector(mode: str, enabled: bool) -> None:
    was = gc.isenabled()
    before = frozen()
    (gc.enable if enabled else gc.disable)()
    try:
        with rtpool.realtime(gc=mode, pool=rtpool.Pool()) as rt:  # type: ignore[arg-type]
            assert gc.isenabled() == (enabled and mode == "keep")
            assert (gc.get_freeze_count() > before + MANY) == (mode == "freeze")
            gc.collect()
            assert rt.report.collections == 1
        assert gc.isenabled() == enabled and frozen() == before
    finally:
        (gc.enable if was else gc.disable)()


def test_nested_sections_freeze_once_and_the_last_one_thaws() -> None:
    before = frozen()
    with rtpool.realtime(pool=rtpool.Pool()):
        held = gc.get_freeze_count()
        made = [[] for _ in range(MANY)]  # type: ignore[var-annotated]
        with rtpool.realtime(pool=rtpool.Pool(), gc="freeze"):
            assert gc.get_freeze_count() <= held + 20
        assert before + MANY < gc.get_freeze_count() <= held + 20
        assert made
    assert frozen() == before


def test_a_section_freezes_after_the_program_has_thawed(run_python) -> None:
    run_python(
        f"""
        import gc, rtpool
        from rtpool._realtime.collector import frozen_by_program
        assert not frozen_by_program()
        gc.freeze()
        assert frozen_by_program()
        gc.unfreeze()
        assert not frozen_by_program()
        gc.collect()
        before = gc.get_freeze_count()
        assert not frozen_by_program()
        with rtpool.realtime():
            assert gc.get_freeze_count() > before + {MANY} and not gc.isenabled()
        gc.collect()
        assert gc.get_freeze_count() == before and gc.isenabled()
        """
    )


def test_what_the_program_froze_stays_frozen(run_python) -> None:
    run_python(
        """
        import gc, rtpool
        gc.freeze()
        count = gc.get_freeze_count()
        with rtpool.realtime(gc="freeze"):
            with rtpool.realtime(gc="freeze", pool=rtpool.Pool()):
                assert not gc.isenabled()
            assert not gc.isenabled()
        assert gc.isenabled() and abs(gc.get_freeze_count() - count) <= 20, (gc.get_freeze_count(), count)
        """
    )


def test_what_the_program_freezes_inside_stays_frozen(run_python) -> None:
    """It has asked for all that was alive then, the section's share included; a child is left with it as well."""
    run_python(
        f"""
        import gc, os, rtpool
        with rtpool.realtime() as rt:
            held = gc.get_freeze_count()
            made = [[] for _ in range({MANY})]
            gc.freeze()
            count = gc.get_freeze_count()
            assert count >= held + {MANY}
            if (child := os.fork()) == 0:
                os._exit(abs(gc.get_freeze_count() - count) > 200)
            assert os.waitpid(child, 0)[1] == 0
        assert abs(gc.get_freeze_count() - count) <= 200 and gc.isenabled(), (gc.get_freeze_count(), count)
        with rtpool.realtime():  # and no section takes it back
            pass
        assert abs(gc.get_freeze_count() - count) <= 200
        gc.unfreeze()
        with rtpool.realtime() as rt:
            gc.unfreeze()  # the program's business as well
        gc.collect()
        assert gc.get_freeze_count() < {MANY}
        """
    )


def test_what_dies_while_it_is_frozen_is_no_sign_of_the_program() -> None:
    before = frozen()
    kept = [[] for _ in range(MANY)]  # type: ignore[var-annotated]
    with rtpool.realtime(pool=rtpool.Pool()):
        kept.clear()
        made = [[] for _ in range(10 * MANY)]  # type: ignore[var-annotated]
        assert made and not kept
    assert frozen() == before and not frozen_by_program()


def test_a_forked_child_collects_and_has_nothing_frozen(run_python) -> None:
    run_python(
        """
        import gc, os, rtpool
        gc.collect()
        before = gc.get_freeze_count()
        with rtpool.realtime():
            if (child := os.fork()) == 0:
                gc.collect()
                os._exit(not (gc.isenabled() and gc.get_freeze_count() == before))
            assert os.waitpid(child, 0)[1] == 0
        """
    )


def test_a_collection_is_counted_where_it_falls() -> None:
    with rtpool.realtime(gc="keep", malloc="keep", pool=rtpool.Pool(), iterations=5) as rt:
        for tick in rt:
            if tick.index == 3:
                gc.collect()
    assert rt.report.collections == 1
    assert {one.index: one.collections for one in rt.report.slowest}[3] == 1
