"""The settings of a mining: which events make a pair, how users' pairs are weighed, and which pairs are kept."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from n2kit.errors import BadInput, suggest

Score = Literal["paper", "count", "jaccard", "lift", "pmi", "swing"]
SCORES: tuple[str, ...] = get_args(Score)
ALIKE = ("jaccard", "swing")  # scores that are the same in both directions
OF_USERS = ("jaccard", "lift", "pmi", "swing")  # scores that count users, and know no weight of a user's pair
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MICRO = 1_000_000  # a second, in the unit of the log's times
LEAST = 300_000_000  # bytes, with Python and DuckDB themselves


@dataclass(frozen=True)
class MineSettings:
    """The choices of a mining.

    Args:
        score: `paper` sums 1/(size of the user's click set) over users who viewed the one and then clicked the other.
        symmetric: either order counts, and each pair is written in both directions.
        view, click: types of event that are a view, a click; none: every event is both.
        window: most seconds between the two events. gap: most places between them in the user's history.
        half_life: seconds in which a user's pair loses half of its weight; it is the time between the two events.
        lower, upper: scores below and above are dropped. min_users: pairs of fewer users are dropped. top: most targets of an item.
        max_events: of a user with more, the latest are used. max_users: of an item with more, so many make swing's pairs of users.
        power: k of PMI^k; above 1 the score is its exponential, since the logarithm itself is then never above 0.
        alink: swing with the published defaults of Alink, whose weight of a user grows with his activity.
    """

    score: Score = "paper"
    symmetric: bool = False
    view: tuple[str, ...] = ()
    click: tuple[str, ...] = ()
    window: float | None = None
    gap: int | None = None
    half_life: float | None = None
    lower: float | None = None
    upper: float | None = None
    min_users: int = 1
    top: int = 20
    max_events: int = 1000
    max_users: int = 1000
    power: float = 1.0
    alink: bool = False

    def check(self) -> None:
        """Check that the settings fit each other.

        Raises:
            BadInput: with the one that does not fit.
        """
        if self.score not in SCORES:
            raise BadInput(f"--score {self.score}: no such score", suggest(self.score, SCORES) or ", ".join(SCORES))
        if self.half_life is not None and self.score in OF_USERS:
            raise BadInput(f"--half-life weighs a user's pair, and {self.score} counts users", "--score paper or count")
        if self.score == "swing" and (self.window is not None or self.gap is not None or self.view or self.click):
            what = "--window and --gap" if not (self.view or self.click) else "--view and --click"
            raise BadInput(f"swing knows no order of events, and no {what}", "leave them out, or another --score")
        if self.alink and self.score != "swing":
            raise BadInput(f"--swing alink is for --score swing, not {self.score}", "--score swing --swing alink")
        if self.power != 1 and self.score != "pmi":
            raise BadInput(f"--power is k of PMI^k, and --score is {self.score}", "--score pmi")
        if self.lower is not None and self.lower < 0:
            raise BadInput("--lower below 0: items of such a score do not belong together", "0, or above")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise BadInput(f"--lower {self.lower:g} is above --upper {self.upper:g}", "exchange them")

    @property
    def undirected(self) -> bool:
        """Tell whether either order of the two events counts."""
        return self.symmetric or self.score in ALIKE

    @property
    def by_event(self) -> bool:
        """Tell whether every two events are looked at, and not only a user's first view and last click of an item."""
        return self.window is not None or self.gap is not None or self.half_life is not None

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def seconds_of(text: str, flag: str) -> float:
    """Parse a time: `30m`, `12h`, `7d`, `2w`, or seconds.

    Raises:
        BadInput: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise BadInput(f"{flag} {text!r} is no time", "for example 30m, 12h, 7d, 2w, or a number of seconds")
    return float(found[1]) * UNITS[found[2] or "s"]


def bytes_of(text: str, flag: str = "--memory") -> int:
    """Parse an amount of memory: `1GB`, `800MB`.

    Raises:
        BadInput: it is none, or less than is needed at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.I)
    if found is None:
        raise BadInput(f"{flag} {text!r} is no amount of memory", "for example 1GB, 800MB")
    amount = int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))
    if amount < LEAST:
        raise BadInput(f"{flag} {text}: too little", f"at least {LEAST // 1_000_000}MB")
    return amount
