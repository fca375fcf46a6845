"""The commands of docs/data.md, in their order, on generated reviews and products."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import readme_commands
from n2kit.data.image_source import fetched_path

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
TINY = {"qwen": "qwen:tiny", "siglip": "siglip:tiny"}
KINDS = ("bath", "toy", "bed", "food", "walk", "read")


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.fixture
def baby_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as Amazon's of 2023, of 300 products and 120 users who each like one kind; the pictures are fetched already."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    meta = []
    for n in range(300):
        url = f"https://images.example/{n}.jpg"
        place = fetched_path(url, Path("data/images"))
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (40 * (n % 6), n % 256, 99)).save(place)
        about = {"title": f"{KINDS[n % 6]} article {n}", "features": [f"for {KINDS[n % 6]}"], "bought_together": None}
        meta.append({"parent_asin": f"B{n:03}", "images": [{"large": url, "hi_res": None}]} | about)
    log = [
        {"user_id": f"u{u}", "parent_asin": f"B{(draw.randrange(50) * 6 + u % 6):03}", "timestamp": 1_600_000_000_000 + draw.randrange(10**9)}
        for u in range(120) for _ in range(8)
    ]  # fmt: skip
    write_lines(tmp_path / "meta_Baby_Products.jsonl.gz", meta)
    write_lines(tmp_path / "Baby_Products.jsonl.gz", log)
    return tmp_path


@pytest.mark.slow
def test_the_whole_way_runs_by_copy_and_paste(baby_products: Path, cli: Any) -> None:
    ran = []
    for commands, _ in readme_commands.blocks(PAGE.read_text("utf8")):
        for program, *arguments in commands:
            assert program == "n2kit"
            done = cli(*(TINY.get(word, word) for word in arguments))
            assert done.code == 0, (arguments, done.err)
            ran.append(" ".join(arguments[:2]))
    assert ran[:3] == ["data import", "data mine", "fit --llm"]
    assert {"data check", "data pack", "data demo", "embed runs/mine", "eval --vectors"} <= set(ran)
    assert (baby_products / "runs" / "mine" / "bundle").is_dir()
    again = cli("fit", "--llm", "qwen:tiny", "--vision", "siglip:tiny", "--data", "data/", "-o", "runs/mine")
    assert (again.code, "which was built before" in again.err) == (0, True)
    failed = cli("fit", "--data", "data/", "-o", "runs/other")
    assert (failed.code, "--llm and --vision" in failed.err) == (2, True)
