"""A third benchmark data set, on which nothing was ever chosen: what a game's shops sell, out of Debian's package endless-sky-data.

    apt-get download endless-sky-data && dpkg-deb -x endless-sky-data_*.deb package       # 70 MB; GPL-3+, CC-BY-SA-4.0 and others
    python benchmarks/outfits.py package outfits/ [--seed 0]

An item is a ship or an outfit: its name, the text of its shop, its picture. A positive pair are two of one maker and one category
("hai/Guns"), which test, validation and training have none of in common. Writes items.jsonl, images/, train.csv, val.csv, test.csv,
pool.csv and NOTICE. The same input and options give the same files. What is written is the package's own material under its own
licences: it is no part of n2kit.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from PIL import Image

from n2kit.datasets.stamps import SHARES, Stamp, pairs_of, split_of

GAME, COPYRIGHT = Path("usr/share/games/endless-sky"), Path("usr/share/doc/endless-sky-data/copyright")
# A file's first word names the maker; the goods of all other files are human.
MAKERS = {"coalition", "drak", "hai", "korath", "pug", "quarg", "remnant", "wanderer"}
NO_GOODS = {"variants.txt", "deprecated outfits.txt"}
# What follows a picture's name: which image of an animation, and how it is blended.
SPRITE = re.compile(r"([-+~=]\d+)?\.(png|jpg)")
FEWEST = 3  # of a maker and category
LONGEST = 400  # characters of a description
SIDE, SPACE = 224, (40, 40, 40)


def goods(package: Path) -> Iterator[tuple[Stamp, str]]:
    """Yield what is sold, with its description: blocks of the game's data that have a category and a picture."""
    game, seen = package / GAME, set()
    pictures = sorted((game / "images").rglob("*.*"))
    for file in sorted((game / "data").glob("*.txt")):
        maker = file.stem.split()[0]
        for block in re.split(r"\n(?=\S)", file.read_text(encoding="utf8")) if file.name not in NO_GOODS else []:
            head, category, name = block.split("\n")[0], _value(block, "category"), ""
            if head.startswith(("ship ", "outfit ")) and (found := re.fullmatch(r'\w+ ["`]([^"`]+)["`]', head.strip())):
                name = found[1]
            picture = _picture(pictures, game / "images", _value(block, "thumbnail") or _value(block, "sprite"))
            if name and category and picture and name not in seen:
                seen.add(name)
                path = PurePosixPath(maker if maker in MAKERS else "human") / category / re.sub(r"\W+", "-", name)
                text = " ".join(line.strip() for line in _values(block, "description"))
                yield Stamp(path.with_suffix(".png"), _square(picture), {"en": name}), text[:LONGEST]


def _values(block: str, key: str) -> list[str]:
    """List the values of a key in a block, each in quotes or backticks."""
    return [a or b for a, b in re.findall(rf'^\t"?{key}"? (?:"([^"]+)"|`([^`]+)`)', block, re.MULTILINE)]


def _value(block: str, key: str) -> str:
    """Return the first value of a key in a block; empty where there is none."""
    return next(iter(_values(block, key)), "")


def _picture(pictures: list[Path], folder: Path, name: str) -> Path | None:
    """Find the file of a picture, the first one of an animation."""
    return next(
        (p for p in pictures if name and SPRITE.fullmatch(p.relative_to(folder).as_posix().removeprefix(name))), None
    )


def _square(file: Path) -> bytes:
    """Draw a picture onto a dark square, as the game does."""
    image = Image.open(file).convert("RGBA")
    side = max(image.size)
    square, out = Image.new("RGB", (side, side), SPACE), io.BytesIO()
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2), image)
    square.resize((SIDE, SIDE)).save(out, "PNG")
    return out.getvalue()


def write(package: Path, out: Path, seed: int) -> dict[str, int]:
    """Write the data set; return how many items and pairs there are of each split."""
    found = list(goods(package))
    folders = [stamp.folder for stamp, _ in found]
    found = [(stamp, text) for stamp, text in found if folders.count(stamp.folder) >= FEWEST]
    splits = split_of([stamp for stamp, _ in found], seed)
    (out / "images").mkdir(parents=True)
    rows = []
    for stamp, text in found:
        image = stamp.id.replace("/", "_").replace(" ", "-") + ".png"
        (out / "images" / image).write_bytes(stamp.image)
        rows.append({"id": stamp.id, "image": image, "title": stamp.texts["en"], "content": text})
    (out / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    counts = {"items": len(rows)}
    for split in SHARES:
        pairs = pairs_of([stamp for stamp, _ in found if splits[stamp.folder] == split], seed)
        if split != "test":  # for training, a pair and its mirror image say the same
            pairs = [pair for pair in pairs if pair[0] < pair[1]]
        _lines(out / f"{split}.csv", "query,target", [",".join(pair) for pair in pairs])
        counts[f"{split} pairs"] = len(pairs)
    _lines(out / "pool.csv", "id", [str(row["id"]) for row in rows])
    (out / "NOTICE").write_bytes((package / COPYRIGHT).read_bytes())
    return counts


def _lines(file: Path, head: str, lines: list[str]) -> None:
    file.write_text("\n".join([head, *lines, ""]), encoding="utf8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the folder that the package is unpacked in")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not (options.package / GAME).is_dir():
        parser.error(f"{options.package} holds no {GAME}")
    if options.out.exists():
        parser.error(f"{options.out} is there already")
    print(json.dumps(write(options.package, options.out, options.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
