"""A benchmark data set of photographs with descriptions, out of Debian's package tuxpaint-stamps-default.

    apt-get download tuxpaint-stamps-default                # 161 MB, mostly sounds; GPL-2
    python benchmarks/stamps.py tuxpaint-stamps-default_*.deb stamps/ [--languages en,fr,ja] [--drawings] [--seed 0] [--force]

Takes the .deb, or a folder that it is unpacked in. Writes items.jsonl, images/, train.csv, val.csv, test.csv, pool.csv and NOTICE.
A positive pair are two stamps of one leaf folder ("animals/birds"), which people sorted. Folders of one subject ("food/fruit",
"food/fruit/cartoon") are in the same split, so that no near twin of a test item is trained on. The same input and options give
the same files. What is written is the package's own material under its own licence: it is no part of n2kit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from n2kit.datasets.stamps import COPYRIGHT, read_package, stamps_of, write
from n2kit.errors import BadInput


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the .deb, or a folder that it is unpacked in")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument(
        "--languages", default="en", help="codes of the .txt files; of several, one is drawn for each stamp"
    )
    parser.add_argument("--drawings", action="store_true", help="cartoons and toys too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="replace a data set that this script made")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        if not (options.force and (options.out / "NOTICE").is_file() and (options.out / "pool.csv").is_file()):
            parser.error(f"{options.out} is there already; --force replaces a data set of this script's")
        shutil.rmtree(options.out)
    try:
        files = read_package(options.source)
    except BadInput as problem:
        sys.exit(f"error: {problem.message}\nhint: {problem.hint}")
    stamps = stamps_of(files, drawings=options.drawings)
    if unknown := set(options.languages.split(",")) - {code for stamp in stamps for code in stamp.texts}:
        parser.error(f"no stamp has a description in {', '.join(sorted(unknown))}")
    counts = write(stamps, files[COPYRIGHT], options.out, options.languages.split(","), options.seed)
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
