"""Thumbs up and down, written to a pairs file that `n2kit train` reads."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from n2kit.data.pair_writing import write_pairs
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput
from n2kit.utils.files import ensure_writable_file, parse_json

LOG_ENDING = ".votes.jsonl"


class Votes:
    """The votes of people on pairs of items: the last one on a pair counts, in either direction.

    `FILE.votes.jsonl` gets a line for each vote; FILE is made of them: a pair for each thumb up, with the items that got a thumb down
    for the same query as its hard negatives. Thumbs down of a query without any thumb up wait in the log.

    Raises:
        BadInput: FILE is there without its log: it is somebody else's.
    """

    def __init__(self, file: Path) -> None:
        if file.suffix.lower() not in (".csv", ".jsonl"):
            raise BadInput(f"--feedback {file}: pairs are written as .csv or .jsonl", "--feedback votes.csv")
        self.file, self.log = file, file.with_name(file.name + LOG_ENDING)
        if file.exists() and not self.log.exists():
            raise BadInput(
                f"{file} exists, and its votes are not beside it ({self.log.name})", "give another --feedback"
            )
        ensure_writable_file(file)
        self._lock = threading.Lock()
        self._votes: dict[frozenset[str], tuple[str, str, int]] = {}
        if self.log.exists():
            for number, line in enumerate(self.log.read_text("utf8").splitlines(), 1):
                if not line.strip():
                    continue
                row = parse_json(line, f"{self.log}:{number}", hint="move it away, or mend the line")
                try:
                    self._count(str(row["query"]), str(row["target"]), int(row["vote"]))
                except (KeyError, TypeError, ValueError):
                    raise BadInput(f"{self.log}:{number}: no vote", "move it away, or mend the line") from None

    def vote(self, query: str, target: str, vote: int) -> None:
        """Take a vote: 1, -1, or 0, which takes an earlier one back."""
        row = {"query": query, "target": target, "vote": vote, "time": round(time.time(), 3)}
        with self._lock:
            with self.log.open("a", encoding="utf8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._count(query, target, vote)
            pairs = self.pairs()
            if len(pairs):
                write_pairs(pairs, self.file)
            else:
                self.file.unlink(missing_ok=True)

    def of(self, query: str) -> dict[str, int]:
        """Return the votes on a query's pairs: other item → 1 or -1."""
        return {t if q == query else q: v for q, t, v in list(self._votes.values()) if query in (q, t)}

    def counts(self) -> dict[str, int]:
        """Count thumbs up, thumbs down, and those down that are in no pair yet."""
        pairs = self.pairs()
        down = sum(v < 0 for *_, v in self._votes.values())
        used = {(q, n) for (q, _), ns in pairs.negatives.items() for n in ns}
        return {"up": len(pairs), "down": down, "waiting": down - len(used)}

    def pairs(self) -> Pairs:
        """Make pairs of the votes, with hard negatives."""
        up = [(q, t) for q, t, v in self._votes.values() if v > 0]
        down: dict[str, list[str]] = {}
        for query, target, vote in self._votes.values():
            if vote < 0:
                down.setdefault(query, []).append(target)
        return Pairs(up, negatives={pair: tuple(down[pair[0]]) for pair in up if pair[0] in down})

    def _count(self, query: str, target: str, vote: int) -> None:
        key = frozenset((query, target))
        self._votes.pop(key, None)
        if vote:
            self._votes[key] = (query, target, vote)
