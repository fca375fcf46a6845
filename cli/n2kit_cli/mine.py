"""n2kit mine-negatives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit.errors import counted
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.output import document, emit, say
from n2kit_cli.progress import progress


@takes_data(pairs="train", known=("val", "test"))
def mine_negatives(
    pairs: Annotated[Path, typer.Option(help="Positive pairs; negatives are found for the first item of each.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The pairs file to write: .csv, .tsv or .jsonl.")],
    index: Annotated[Path | None, typer.Option(help="An index that n2kit index wrote.")] = None,
    vectors: Annotated[Path | None, typer.Option(help="Or a file that n2kit embed wrote: searched exactly.")] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="Further positive pairs, which are no negatives either: of validation, of test. Repeatable."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Negatives of a pair, the nearest in the window.")] = 3,
    ranks: Annotated[
        str, typer.Option(help="Where to look, without known positives; the nearest may belong together unseen.")
    ] = "10:100",
    margin: Annotated[float, typer.Option(help="How far below the pair's own cosine a negative's has to be.")] = 0.05,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    lenient: options.Lenient = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Find hard negatives: items that a model takes for similar and that do not belong together. Writes pairs for n2kit train.

    \b
    Examples:
      n2kit mine-negatives --index catalogue.index --pairs train.csv --known val.csv -o hard.csv --ranks 2:20 --margin 0
      n2kit mine-negatives --vectors vectors.parquet --pairs train.csv -o hard.jsonl --ranks 2:20 --margin 0 --count 5 --json
    """
    from n2kit.data.pair_writing import check_writable, write_pairs
    from n2kit.data.skipped import write_skipped
    from n2kit.errors import BadInput, naming
    from n2kit.index import index_of, load_index
    from n2kit.index.mining import Window, mine
    from n2kit.utils.files import ensure_writable_file
    from n2kit.utils.folders import ensure_outside_bundles
    from n2kit.utils.locks import output_lock

    first, colon, last = ranks.partition(":")
    if not colon or not first.isdecimal() or not last.isdecimal():
        raise BadInput(f"--ranks {ranks} is no window", "from 1, the first no larger: --ranks 10:100")
    window = Window(int(first), int(last), margin, count)
    ensure_writable_file(out, [pairs, vectors, *(known or ())])
    ensure_outside_bundles(out)
    check_writable(out, force=force)
    if (index is None) == (vectors is None):
        raise BadInput("give either --index or --vectors", "n2kit mine-negatives --help")
    stored = load_index(index) if index is not None else index_of(vectors)  # type: ignore[arg-type]
    positives, *others = (
        options.read_pairs(file, stored.position, lenient, graded=True, renames=renames, encoding=encoding)
        for file in (pairs, *(known or ()))
    )
    with output_lock(out), progress("mine") as bar:
        check_writable(out, force=force)  # now that no other process writes it
        with naming(pairs):
            mined = mine(stored, positives, window, bar, known=others)
        write_pairs(mined, out)
        rows = write_skipped(out, {}, [row for read in (positives, *others) for row in read.dropped])
    distinct = dict.fromkeys(positives)
    without = [pair for pair in distinct if pair not in mined.negatives]
    total = sum(map(len, mined.negatives.values()))
    if rows is not None:
        say(f"the dropped rows are in {rows}")
    if json:
        facts = {"out": str(out), "pairs": len(distinct), "negatives": total, "without": len(without)}
        document(facts | {"queries_without": len({query for query, _ in without}), "fingerprint": stored.fingerprint})
    else:
        emit(out)
    say(
        f"wrote {out}: {counted(total, 'negative')} for {counted(len(distinct) - len(without), 'pair')} of model {stored.fingerprint}; "
        f"{counted(len(without), 'pair')} ({counted(len({query for query, _ in without}), 'query')}) without any"
    )
