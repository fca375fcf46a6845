"""Progress with a time that is left from the first batch on, however long a batch takes."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from n2kit_cli import progress as shown
from n2kit_cli.output import count
from n2kit_cli.progress import Pace, duration, progress


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_batch_says_what_is_left_however_long_it_takes() -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now = 50  # the model loads
    pace.update(0, 10)
    assert pace.left is None
    clock.now = 150
    pace.update(1, 10)
    assert pace.left == 900
    clock.now = 190
    assert pace.left == 860
    assert str(pace) == "3:10, 14:20 left"
    clock.now = 5000
    assert pace.left == 0


def test_what_was_finished_before_counts_for_no_speed() -> None:
    clock = Clock()
    pace = Pace(clock)
    for done in (1024, 2048, 2048):  # two parts that are there, and the start of the third
        pace.update(done, 4096)
    clock.now = 10
    pace.update(2048 + 64, 4096)
    assert pace.left == pytest.approx(310)


def test_another_phase_has_a_speed_of_its_own() -> None:
    clock = Clock()
    pace = Pace(clock)
    for clock.now in (10, 20):
        pace.update(clock.now, 20)
    clock.now = 21
    pace.update(5, 20)  # a tenth of the time each
    assert pace.left == pytest.approx(3)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (750, "12:30"), (11100, "3:05:00")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_long_work_is_announced_by_its_first_batch_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(shown, "Pace", lambda: Pace(clock))
    with progress("embed") as bar:
        bar(0, 100)
        clock.now = 40
        bar(1, 100)
        bar(2, 100)
        clock.now = 4000
        bar(100, 100, "end")
    assert capsys.readouterr().err.splitlines() == [
        "embed: 1/100 (0:40, 1:06:00 left)",
        "embed: 100/100 (1:06:40, 0:00 left) end",
    ]


def test_a_terminal_shows_elapsed_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    clock = Clock()
    monkeypatch.setattr(shown, "Pace", lambda: Pace(clock))
    with progress("embed") as bar:
        bar(0, 4)
        clock.now = 60
        bar(1, 4, "a note")
    drawn: Any = sys.stderr
    assert re.search(r"embed .*1/4.*1:00, 3:00 left.*a note", drawn.getvalue())


def test_numbers_that_round_up_change_their_unit() -> None:
    assert [count(n) for n in (999_885_952, 999_400_000, 999_999, 1000, 999)] == ["1B", "999M", "1M", "1k", "999"]
