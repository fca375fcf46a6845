"""Whole commands: any flags, and damaged files of every kind that a command reads."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import forks
from fuzz import law
from fuzz.mutations import mutated
from n2kit.embed.encode import Encoded
from n2kit.embed.vectors_file import write_vectors
from n2kit.index import build_index
from n2kit_cli.main import make_app

IDS = [f"i:{n}" for n in range(8)]
FILES = {
    "items.csv": "id,title,topics\n" + "".join(f"{i},thing,a|b\n" for i in IDS),
    "pairs.csv": "query,target\n" + "".join(f"{a},{b}\n" for a, b in zip(IDS[::2], IDS[1::2], strict=True)),
    "pool.csv": "id\n" + "".join(f"{i}\n" for i in IDS),
    "recipe.yaml": "llm: qwen:tiny\nvision: siglip:tiny\ntrain: {lr: 1e-4}\n",
    "events.csv": "user,item,time\n" + "".join(f"u{n % 3},{IDS[n % 8]},{1_700_000_000 + n}\n" for n in range(24)),
    "shop.item": "item_id:token\ttitle:token_seq\n" + "".join(f"{i}\ta thing\n" for i in IDS),
    "shop.inter": "user_id:token\titem_id:token\ttimestamp:float\nu\ti:1\t1\nu\ti:2\t2\n",
    "gone.txt": "i:1\ni:2\n",
    "set/items.csv": "id,title,image\n" + "".join(f"{i},a thing of number {n},{n}.png\n" for n, i in enumerate(IDS)),
    "set/pairs.csv": "query,target,time\n"
    + "".join(f"{a},{b},{n}\n" for n, (a, b) in enumerate(itertools.combinations(IDS, 2))),
    "matrix.yaml": "llm: [qwen:tiny]\nvision: [siglip:tiny]\nitems: items.csv\npairs: pairs.csv\ntest_pairs: pairs.csv\nallow_no_images: true\n",
}
# Each works as it stands, in little time; a case changes it.
COMMANDS = (
    "config show --recipe recipe.yaml --set train.lr=1e-3 --origin --json",
    "config schema --json",
    "plan --recipe recipe.yaml --llm qwen:tiny --connector mlp:4 --fusion gate --memory 80 --tune llm=lora:4 --json",
    "plan qwen:tiny+siglip:tiny+qformer:8+gate --set train.batch_size=64 --variant micl",
    "ls llm --json",
    "build --recipe recipe.yaml --dry-run -o out --json",
    "index vectors.parquet -o out --type flat --force --json",
    "recommend --index catalogue --id i:0 -k 3 --json",
    "eval --vectors vectors.parquet --pairs pairs.csv --k 1,10 --pool pool.csv --items items.csv --bootstrap 10 --seed 1 --json",
    "eval --vectors vectors.parquet --pairs pairs.csv --per-query out.parquet --mteb out.json --bootstrap 10 --protocol standard",
    "eval --compare vectors.parquet vectors.parquet --pairs pairs.csv --bootstrap 10",
    "mine-negatives --vectors vectors.parquet --pairs pairs.csv --known pairs.csv -o out.csv --ranks 1:5 --margin 0 --count 2 --json",
    "mine-negatives --index catalogue --pairs pairs.csv -o out.tsv --ranks 1:5 --lenient",
    "embed nothing --items items.csv -o out.parquet --without image --on-bad-image skip --map title=title",
    "train nothing --items items.csv --pairs pairs.csv -o out --max-steps 1 --tune llm=last:1 --lr llm=1e-4",
    "bench report out-bench",
    "data mine --events events.csv --items items.csv -o out --score paper --top 5 --window 7d --half-life 1d --json",
    "data mine --events events.csv --items items.csv -o out --score swing --split time --min-users 1 --memory 400MB",
    "data mine --from-vectors vectors.parquet -o out --top 3 --lower 0 --json",
    "data mine --print-sql spark --map user=user",
    "data split set --by item --val 0.3 --test 0.3 --allow --force --seed 4 --json",
    "data split set --by time --val 0.3 --test 0.3 --map time=time --events events.csv --force",
    "data check set --html out.html --template en --seed 1 --json",
    "data pack set -o out --form webdataset --shard-items 3 --on-bad-image skip --json",
    "data import recbole --items shop.item --events shop.inter -o out --json",
    "data import images --images set/images --table set/items.csv -o out",
    "serve --index catalogue --items items.csv --port 0 --feedback out.csv --max-inputs 4 --json",
    "neighbours catalogue -k 3 -o out.parquet --mutual --json",
    "semantic-ids vectors.parquet --levels 2 --codes 2 -o out.parquet --json",
    "export catalogue --to parquet out.parquet --json",
    "export nothing --to sentence-transformers out",
    "hub push nothing a/b --private --json",
    "hub pull a/b -o out --json",
    "index vectors.parquet -o catalogue --upsert --items items.csv --json",
    "index -o catalogue --delete gone.txt --json",
)  # fmt: skip
# What a shell can hand to a program. None leads out of the folder: a command that is told to write there would.
WORDS = (
    "", " ", "-", "--", "-1", "0", "1", "1e999", "nan", "-inf", "1_0", "١", "9" * 400, "a", "é", "😀", "\udcff", "\x1b[31m", "a\nb", "a" * 5000,
    "*", "%s", "{}", "=", ":", ",", "+", "@", "1:2", "5:1", "x=y", "a.b=c", "head.width=4", "train.lr=[", "train.lr=nan", "llm", "qwen", "qwen:tiny",
    "qwen@file:nothing", "siglip:tiny", "llm=lora:0", "llm=lora:4:x", "true", "null", "items.csv", "vectors.parquet", "catalogue", ".", "nothing/a",
    "items.csv/a", "folder", "--json", "--help", "-h", "--force", "--lenient", "--set", "-o", "--nonsense",
)  # fmt: skip
OUTPUTS = ("-o", "--out", "--per-query", "--mteb", "--html", "--feedback")


@pytest.fixture(scope="module")
def valid(ground: Path) -> Iterator[Path]:
    """The files that the commands read, as they should be."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(IDS), 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = ground.parent / f"{ground.name}-valid"
    store.mkdir()
    (store / "folder").mkdir()
    (store / "set" / "images").mkdir(parents=True)
    for n in range(len(IDS)):
        Image.new("RGB", (40, 40), (30 * n, 0, 0)).save(store / "set" / "images" / f"{n}.png")
    for name, text in FILES.items():
        (store / name).write_text(text)
    write_vectors(Encoded(IDS, vectors.astype(np.float32), None), "f" * 12, store / "vectors.parquet")
    build_index(store / "vectors.parquet", store / "catalogue")
    restored(ground, store)
    yield store
    shutil.rmtree(store)


@pytest.fixture(scope="module", autouse=True)
def _no_port() -> Iterator[None]:
    """A server that starts ends at once, and opens no port: what it is started with is what is drawn here."""
    run = importlib.import_module("n2kit.serve.run")

    async def ended(*_: Any) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_serve", ended)
        patch.setattr(run, "_listening", lambda *_: contextlib.nullcontext())
        patch.setattr(run, "_log_lines", lambda: None)
        yield


def restored(ground: Path, store: Path) -> None:
    """Put the folder back as it was."""
    for entry in ground.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    shutil.copytree(store, ground, dirs_exist_ok=True)


def options_of(command: str) -> list[str]:
    """List the flags that a command has."""
    found: Any = typer.main.get_command(make_app())
    for word in command.split():
        if word not in getattr(found, "commands", {}):
            break
        found = found.commands[word]
    return [flag for parameter in found.params for flag in parameter.opts if flag.startswith("-")] or ["--help"]


FLAGS = {command: options_of(command) for command in COMMANDS}


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    """Draw a command with words replaced, dropped, doubled, or put in."""
    command = draw(st.sampled_from(COMMANDS))
    words = command.split()
    for _ in range(draw(st.integers(0, 3))):
        how, at = draw(st.integers(0, 4)), draw(st.integers(1, len(words)))
        if how == 0:
            words[at : at + 1] = [draw(st.sampled_from(WORDS))]
        elif how == 1:
            del words[at : at + 1]
        elif how == 2:
            words[at:at] = [draw(st.sampled_from(FLAGS[command])), draw(st.sampled_from(WORDS))]
        elif how == 3:
            words[at:at] = [draw(st.sampled_from(WORDS))]
        else:
            words[at:at] = words[at : at + 2]
    return words


def outputs_of(words: list[str]) -> tuple[str, ...]:
    """Return what the words name as a place to write to."""
    named = [after for word, after in itertools.pairwise(words) if word in OUTPUTS]
    named += [word.partition("=")[2] for word in words if word.startswith(tuple(f"{flag}=" for flag in OUTPUTS))]
    return (
        *(Path(name).parts[0] for name in named if Path(name).parts),
        *(word for word in words[2:] if words[0] == "export"),  # its output is named by no flag
        *(("set",) if words[:2] == ["data", "split"] else ("data",) if words[:2] == ["data", "mine"] else ()),
        "out",
        "runs",
        "models",
    )  # the last two where no -o is given


@given(words=arguments())
def test_any_flags_end_in_a_result_or_one_clear_error(words: list[str], valid: Path, ground: Path) -> None:
    before = law.snapshot(ground)
    try:
        law.command(words, outputs=outputs_of(words))
    finally:
        if law.snapshot(ground) != before:
            restored(ground, valid)


@law.cases(0.6)
@given(
    data=st.data(),
    name=st.sampled_from(
        [*FILES, "vectors.parquet", "catalogue/manifest.json", "catalogue/ids.json", "catalogue/flat.faiss"]
    ),
)
def test_a_damaged_file_ends_in_a_result_or_is_named(data: st.DataObject, name: str, valid: Path, ground: Path) -> None:
    readers = [c for c in COMMANDS if name.partition("/")[0] in c.split() and "nothing" not in c.split()]
    words = data.draw(st.sampled_from(readers or ["bench matrix.yaml -o out --only nothing* --dry-run"])).split()
    content = data.draw(mutated([(valid / name).read_bytes()]))
    try:
        (ground / name).write_bytes(content)
        outputs = ("out", "out.csv", "out.tsv", "out.parquet", "out.json", "out.html", "runs", *outputs_of(words))
        # A name of a component that a YAML file holds is reported by itself; an id of pairs that is none of the items, so too.
        names = () if name.endswith(".yaml") else (*name.split("/"), "pairs.csv", "among the items", "in the index")
        done = law.command(words, names=names, outputs=outputs)
        if done.code in (2, 3):  # a check that found something has a page all the same
            left = [p for out in ground.glob("out*") for p in (out, *out.rglob("*")) if p.is_file()]
            shown = [p for p in left if not any(part.startswith(".") for part in p.relative_to(ground).parts)]
            assert not shown, f"an output of a command that failed: {shown}: {done}"
    finally:
        restored(ground, valid)


PIPES = ("items.csv", "vectors.parquet", "recipe.yaml", "catalogue/flat.faiss")


@pytest.mark.parametrize("name", PIPES)
def test_no_command_waits_for_a_pipe_in_place_of_a_file(name: str, valid: Path, ground: Path) -> None:
    """In a process of its own: what waits in another language's code hears no signal."""
    (ground / name).unlink()
    os.mkfifo(ground / name)
    words = next(c for c in COMMANDS if name.partition("/")[0] in c.split() and "--origin" not in c).split()
    pipe = forks.subprocess.PIPE
    with forks.Popen(
        ["-m", "n2kit_cli.main", *words], cwd=ground, stdout=forks.subprocess.DEVNULL, stderr=pipe, text=True
    ) as running:
        try:
            assert running.wait(timeout=30) == 2
            assert any(part in running.stderr.read() for part in name.split("/"))
        finally:
            running.kill()
            restored(ground, valid)


def test_a_name_in_a_message_moves_no_cursor(valid: Path, ground: Path) -> None:
    done = law.command(["recommend", "--index", "catalogue", "--id", "\x1b[2J\u202e\r\x07"])
    assert done.code == 2
    assert done.err.isascii()
    assert "[2J" in done.err
