"""n2kit eval."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2kit.errors import counted, naming
from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.output import document, emit, say, table
from n2kit_cli.pages import check_page, write_page

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.data.pairs import Pairs
    from n2kit.embed.vectors_file import Vectors
    from n2kit.evaluate import Figure, RankingReport

CATEGORIES = 10  # shown in the table; --json has all


class Protocol(StrEnum):
    """The protocol of evaluation; `auto` goes by the pairs: `standard` where they share items.

    `notellm2` is the paper's, pairs one to one. `standard` has several targets a query, and everything else in the pool.
    """

    auto = "auto"
    notellm2 = "notellm2"
    standard = "standard"


@takes_data(pairs="test", pool="pool", train_pairs="train", unless="compare")
def evaluate(
    pairs: Annotated[Path, typer.Option(help="Test pairs: query id, target id.")],
    vectors: Annotated[Path | None, typer.Option(help="A Parquet file that n2kit embed wrote.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two such files, of two models on the same items: B against A.")
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="auto: standard where pairs share items, else notellm2. "
            "notellm2, the paper's: pairs one to one, the pool is every item that is no query. "
            "standard: several targets a query, the pool is every item but the query itself."
        ),
    ] = Protocol.auto,
    k: Annotated[str, typer.Option("--k", help="Cut-offs, separated by commas.")] = "1,10,100",
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A plug-in's metric beside these; n2kit plugins list names them. Repeatable."),
    ] = None,
    pool: Annotated[
        Path | None, typer.Option(help="Ids that may be found; default: all items of the vectors file.")
    ] = None,
    bootstrap: options.Bootstrap = 1000,
    seed: options.BootstrapSeed = 0,
    items: Annotated[Path | None, typer.Option("--items", help="Items, for figures by text length, category …")] = None,
    train_pairs: Annotated[
        Path | None, typer.Option(help="Pairs of the training, for figures on cold and on popular items; with --items.")
    ] = None,
    per_query: Annotated[Path | None, typer.Option(help="Write every pair's ranks to this Parquet file.")] = None,
    mteb: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file in MTEB's shape.")] = None,
    images: options.Images = None,
    html: options.Html = None,
    item_format: options.Format = options.AUTO,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    lenient: options.Lenient = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Measure recall@k, MRR, NDCG@k and mean rank of vectors on test pairs, with 95 % intervals; or compare two models.

    \b
    Examples:
      n2kit eval --vectors vectors.parquet --pairs test.csv
      n2kit eval --vectors vectors.parquet --pairs test.csv --k 10 --pool pool.csv --json
      n2kit eval --vectors vectors.parquet --pairs test.csv --protocol standard --items items.jsonl --train-pairs train.csv
      n2kit eval --vectors vectors.parquet --pairs test.csv --items items.jsonl --images images --html test.html
      n2kit eval --compare vectors.parquet both.parquet --pairs test.csv
    """
    extras = {"--items": items, "--train-pairs": train_pairs, "--per-query": per_query, "--mteb": mteb, "--html": html}
    _check(vectors, compare, bootstrap, extras)
    ks = cutoffs(k)
    check_page(html, pairs, vectors, pool, items, train_pairs)
    _check_targets(per_query, mteb, ks, force, given=(pairs, vectors, pool, items, train_pairs))
    read = _Reading(pairs, ks, metric or [], pool, protocol, lenient, renames, encoding)
    if compare is not None:
        _compare(read, compare, bootstrap, seed, json)
        return
    from n2kit.embed import read_vectors
    from n2kit.evaluate import recall_sentence

    assert vectors is not None
    stored = read_vectors(vectors)
    start = time.perf_counter()
    report = read.evaluate(stored)
    figures = report.figures(resamples=bootstrap, seed=seed)
    seconds = time.perf_counter() - start
    sentence = recall_sentence(report, figures)
    groups: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    if items is not None:
        catalogue = options.read(items, item_format, renames, lenient, encoding)
        facts = {"read": catalogue.facts()}
        train = read.other(train_pairs, catalogue)
        with naming(items):
            groups = _buckets(report, catalogue, train, bootstrap, seed)
        if html is not None:
            among = f"On this page, neighbours and ranks are among all {counted(len(stored.ids), 'item')} but the query itself."
            write_page(html, stored, report.pairs, catalogue, images, [sentence, among], seed)
    if per_query is not None:
        from n2kit.evaluate.export import write_ranks

        write_ranks(report, per_query)
    if mteb is not None:
        from n2kit.evaluate.export import write_mteb

        write_mteb(report, figures, mteb, task=f"n2kit-{pairs.stem}", revision=read.digest, seconds=seconds)
    if json:
        document({"sentence": sentence} | _document(report, figures, bootstrap, seed) | {"buckets": groups} | facts)
        return
    _tables(report, figures, groups, protocol)
    for written in (per_query, mteb, html):
        if written is not None:
            say(f"wrote {written}")
    say(sentence)


def cutoffs(text: str) -> list[int]:
    """Parse `1,10,100` into [1, 10, 100].

    Raises:
        BadInput: anything but positive whole numbers.
    """
    from n2kit.errors import BadInput
    from n2kit.recipe.limits import MOST_K

    try:
        ks = sorted({int(part) for part in text.split(",")})
    except ValueError:
        ks = []
    if not ks or ks[0] < 1 or ks[-1] > MOST_K:
        raise BadInput(f"--k {text!r}: expected positive whole numbers, at most {MOST_K:,}", "for example --k 1,10,100")
    return ks


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} – {high:.4f}"


def _check(
    vectors: Path | None, compare: tuple[Path, Path] | None, bootstrap: int, extras: Mapping[str, Path | None]
) -> None:
    """Refuse options that contradict each other.

    Raises:
        BadInput: with the two options.
    """
    from n2kit.errors import BadInput

    given = [name for name, value in extras.items() if value is not None]
    if (vectors is None) == (compare is None):
        raise BadInput("give either --vectors or --compare", "--vectors FILE, or --compare A.parquet B.parquet")
    if compare is not None and given:
        raise BadInput(f"{given[0]} is about one model, and --compare about two", f"leave out {given[0]}")
    if compare is not None and not bootstrap:
        raise BadInput("--compare needs a bootstrap for its p-value", "--bootstrap 1000")
    if extras["--html"] is not None and extras["--items"] is None:
        raise BadInput("--html shows the items", "give --items too, and --images for their pictures")
    if extras["--train-pairs"] is not None and extras["--items"] is None:
        raise BadInput("--train-pairs is for the figures that --items asks for", "give --items too")


def _check_targets(
    per_query: Path | None, mteb: Path | None, ks: list[int], force: bool, given: Collection[Path | None]
) -> None:
    """Check before the work that the files to write can be written.

    Raises:
        BadInput: a file that exists already, is read as well, or is named twice.
    """
    from n2kit.data.tables import ensure_parquet_name
    from n2kit.errors import BadInput
    from n2kit.evaluate.export import check_mteb
    from n2kit.utils.files import ensure_writable_file, real_path

    if mteb is not None:
        check_mteb(ks)
    if per_query is not None and mteb is not None and real_path(per_query) == real_path(mteb):
        raise BadInput(f"{mteb} is for --per-query and for --mteb", "give two files")
    if per_query is not None:
        ensure_parquet_name(per_query)
    for file in filter(None, (per_query, mteb)):
        ensure_writable_file(file, given)
        if file.exists() and not force:
            raise BadInput(f"{file} exists", "give another file, or --force to replace it")


class _Reading:
    """The files and options that both an evaluation and a comparison read."""

    def __init__(
        self, pairs: Path, ks: list[int], further: list[str], pool: Path | None, protocol: Protocol, lenient: bool,
        renames: list[str] | None, encoding: str | None,
    ) -> None:  # fmt: skip
        self.pairs, self.ks, self.pool, self.protocol, self.lenient = pairs, ks, pool, protocol, lenient
        self.further = further
        self.how: dict[str, Any] = {"renames": renames, "encoding": encoding}
        self.digest = ""  # of the pairs, once they are read

    def evaluate(self, stored: Vectors) -> RankingReport:
        from n2kit.data.pairs import read_ids
        from n2kit.evaluate import evaluate as run

        known = set(stored.ids)
        positives = options.read_pairs(self.pairs, known, self.lenient, **self.how)
        self.digest = positives.digest()
        allowed = read_ids(self.pool, known, lenient=self.lenient, encoding=self.how["encoding"]) if self.pool else None
        how: dict[str, Any] = {"ks": self.ks, "protocol": self.protocol.value, "further": self.further}
        return run(stored.ids, stored.vectors, positives, pool=allowed, **how)

    def other(self, file: Path | None, items: Items) -> Pairs | None:
        """Read another file of pairs as training reads it, None if there is none."""
        return options.read_pairs(file, items, self.lenient, graded=True, **self.how) if file is not None else None


def _buckets(
    report: RankingReport, items: Items, train: Pairs | None, resamples: int, seed: int
) -> list[dict[str, Any]]:
    from n2kit.evaluate import buckets

    found = []
    for bucket in buckets(report.pairs, items, train):
        figures = report.figures(bucket.rows, resamples=resamples, seed=seed)
        counts = {"pairs": len(bucket.rows), "queries": len(set(report.owner[bucket.rows].tolist()))}
        metrics = {name: asdict(figure) for name, figure in figures.items()}
        found.append({"name": bucket.name, "rule": bucket.rule} | counts | {"metrics": metrics})
    return found


def _document(report: RankingReport, figures: dict[str, Figure], resamples: int, seed: int) -> dict[str, Any]:
    from n2kit.evaluate.bootstrap import LEVEL

    return report.facts() | {
        "recall": {str(k): v for k, v in report.recall.items()},
        "metrics": {name: asdict(figure) for name, figure in figures.items()},
        "bootstrap": {"resamples": resamples, "seed": seed, "level": LEVEL, "over": "queries"},
    }


def _tables(
    report: RankingReport, figures: dict[str, Figure], groups: list[dict[str, Any]], protocol: Protocol
) -> None:
    table(("metric", "value", "95 %"), [(n, f"{f.value:.4f}", interval(f.low, f.high)) for n, f in figures.items()])
    if groups:
        shown = [f"recall@{k}" for k in report.ks]
        categories = [g for g in groups if g["name"].startswith("query category ")]
        hidden = categories[CATEGORIES:]
        rows = [
            (g["name"], g["rule"], g["queries"], *(_cell(g["metrics"][name]) for name in shown))
            for g in groups
            if g not in hidden
        ]
        emit()
        table(("bucket", "which", "queries", *shown), rows)
        if hidden:
            say(f"{counted(len(hidden), 'smaller category')} more in --json")
    asked = f"{counted(report.queries, 'query')}, {counted(len(report.pairs), 'pair')}, pool of {report.pool:,}"
    why = {"standard": " (some pairs share items)", "notellm2": " (pairs one to one)"}[report.protocol]
    say(f"{asked}, protocol {report.protocol}{why if protocol is Protocol.auto else ''}; ties count as lost")
    if beyond := [str(k) for k in report.ks if k >= report.pool]:
        say(f"at {', '.join(beyond)} every model finds everything: the pool is no larger")
    if report.left_out:
        from n2kit.evaluate import WHY_LEFT_OUT

        say(f"{counted(report.left_out, 'more pair')} left out: {WHY_LEFT_OUT[report.protocol]}")


def _cell(figure: dict[str, Any]) -> str:
    bounds = interval(figure["low"], figure["high"])
    return f"{figure['value']:.4f}" + (f" ({bounds})" if bounds else "")


def _compare(read: _Reading, files: tuple[Path, Path], resamples: int, seed: int, json: bool) -> None:
    from n2kit.embed import read_vectors
    from n2kit.evaluate import check_same_items
    from n2kit.evaluate import compare as run

    stored = [read_vectors(file) for file in files]
    names = (str(files[0]), str(files[1]))
    check_same_items(stored[0], stored[1], names)
    a, b = (read.evaluate(one) for one in stored)
    changes = run(a, b, resamples=resamples, seed=seed)
    if json:
        sides = {s: {"file": n, "fingerprint": v.fingerprint} for s, n, v in zip("ab", names, stored, strict=True)}
        figures = {name: asdict(change) for name, change in changes.items()}
        document(a.facts() | sides | {"metrics": figures, "bootstrap": {"resamples": resamples, "seed": seed}})
        return
    rows = [
        (name, f"{c.a:.4f}", f"{c.b:.4f}", f"{c.difference:+.4f}", f"{c.low:+.4f} – {c.high:+.4f}", f"{c.p:.3g}")
        for name, c in changes.items()
    ]
    table(("metric", "A", "B", "B − A", "95 %", "p"), rows)
    asked = f"{counted(a.queries, 'query')}, pool of {a.pool:,}, protocol {a.protocol}"
    say(f"A {names[0]}, B {names[1]}: {asked}, paired bootstrap of {resamples:,}")
