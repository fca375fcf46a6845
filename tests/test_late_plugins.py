"""Twelve distributions, installed together, each of which fails in another place after import: each is named, and harms nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from installed import install, on_path
from n2kit.embed import read_vectors

PARTS = {
    "card": "vision",
    "creation": "vision",
    "transform": "vision",
    "forward": "vision",
    "leaves": "vision",
    "tokenizer": "llm",
    "embed": "llm",
    "config": "fusion",
    "step": "loss",
    "search": "index",
}
SPEC = """
from n2kit.contract import ComponentSpec, FusionCard, LLMCard, Preset, VisionCard, hookimpl
from pydantic import BaseModel, field_validator

N2KIT_PLUGIN_API = (2, 1)

class Options(BaseModel):
    how: str = "not"
    config: dict = {}

class Config(Options):
    @field_validator("how")
    @classmethod
    def _odd(cls, value):
        raise KeyError("how")

def card(config, *others):
    if "WHERE" == "card":
        raise SystemExit(0)
    if "KIND" == "vision":
        return VisionCard(tokens=4, token_width=8, pooled_width=8, image_size=16, parameters=0)
    if "KIND" == "llm":
        return LLMCard(input_width=8, output_width=8, layers=1, vocab=512, context=2048, parameters=4096)
    return FusionCard(0)

@hookimpl
def n2kit_register_components():
    return [ComponentSpec(
        kind="KIND", name="WHERE", summary="s", target="WHERE_parts:Part", config="bad_WHERE:" + ("Config" if "WHERE" == "config" else "Options"),
        card=None if "KIND" in ("loss", "index") else "bad_WHERE:card", shorthand="how",
        presets={"tiny": Preset()} if "KIND" in ("llm", "vision") else {},
    )]
"""
BACKBONE = """
import os, threading, torch
from torch import nn
from bad_WHERE import Options, card
from n2kit.contract import LLM, VisionEncoder, VisionOut

class Part(VisionEncoder if "KIND" == "vision" else LLM):
    transform_id = "grey"
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.card = card(config)
        self.table = nn.Embedding(512, 8)
    @classmethod
    def create(cls, spec):
        if "WHERE" == "creation":
            raise SystemExit("no")
        return cls(spec.config)
    def save(self, folder):
        (folder / "config.json").write_text("{}")
    @classmethod
    def load(cls, folder):
        return cls(Options())
    def transform(self, image):
        if "WHERE" == "transform":
            raise ZeroDivisionError("half a pixel")
        return torch.zeros(3, 16, 16)
    @property
    def tokenizer(self):
        if "WHERE" == "tokenizer":
            raise UnicodeDecodeError("utf8", b"x", 0, 1, "odd")
        from n2kit_hf.tiny import byte_tokenizer
        from transformers import AutoConfig
        return byte_tokenizer(AutoConfig.for_model("llama", vocab_size=512, bos_token_id=0, eos_token_id=0))
    def embed(self, ids):
        if "WHERE" == "embed":
            raise GeneratorExit
        return self.table(ids)
    def forward(self, x):
        if "WHERE" == "leaves":
            os._exit(0)
        if "WHERE" == "forward":
            raise IndexError("dimension 7")
        return VisionOut(torch.ones(len(x), 4, 8), torch.ones(len(x), 8)) if "KIND" == "vision" else x
"""
OTHERS = {
    "loss": """
from bad_step import Options
from n2kit.contract import Loss, LossOut
calls = []
class Part(Loss):
    config_class = Options
    def forward(self, views, present=None, exclude=None):
        calls.append(1)
        if len(calls) > 1:
            import sys
            sys.exit(0)
        return LossOut(views["multimodal"].square().mean(), {})
""",
    "index": """
import numpy as np
from n2kit.contract import Index
class Part(Index):
    @classmethod
    def build(cls, vectors, config):
        return cls()
    def search(self, queries, k):
        if k > 15:
            raise KeyError("lost")
        return np.zeros((len(queries), k)), None
    def vector(self, row):
        return None if row == 19 else np.zeros(16, np.float32)
    def save(self, folder): ...
    @classmethod
    def load(cls, folder):
        return cls()
""",
    "fusion": "from n2kit.contract import Fusion\nclass Part(Fusion): ...\n",
}
HOOKS = """
import threading
from n2kit.contract import hookimpl
N2KIT_PLUGIN_API = (2, 1)

def fails():
    raise LookupError("in a thread")

@hookimpl
def n2kit_run_started(run):
    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    raise SystemExit(0)
"""
COMMAND = "import typer\napp = typer.Typer()\n\n@app.command()\ndef go():\n    raise SystemExit(0)\n"


def author(where: str) -> str:
    return f"https://example.org/{where}/issues"


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which all twelve are installed, each with an author of its own."""
    site = tmp_path / "site"
    site.mkdir()
    for where, kind in PARTS.items():
        files = {f"bad_{where}.py": SPEC, f"{where}_parts.py": OTHERS.get(kind, BACKBONE)}
        filled = {name: text.replace("WHERE", where).replace("KIND", kind) for name, text in files.items()}
        install(site, f"bad-{where}", filled, metadata=f"Project-URL: Issues, {author(where)}\n")
    install(site, "bad-hook", {"bad_hook.py": HOOKS}, metadata=f"Project-URL: Issues, {author('hook')}\n")
    files = {
        "bad_command.py": HOOKS.partition("def")[0] + "n2kit_doctor_checks = hookimpl(lambda: [])\n",
        "bad_cli.py": COMMAND,
    }
    install(
        site, "bad-command", files, commands={"bad": "bad_cli:app"}, metadata=f"Author-email: {author('command')}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("N2KIT_PLUGINS", "")  # --disable-plugin sets it for child processes
    with on_path(site, monkeypatch):
        yield tmp_path


def named(done: Any, where: str, reason: str) -> None:
    """Assert exit 3, one error that names the distribution and the reason, and a hint with its author."""
    assert done.code == 3, done.err
    lines = [line for line in done.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(lines) == 2, done.err
    assert f" of bad-{where} 1.0: {reason}" in lines[0]
    assert lines[1] == f"hint: n2kit plugins check bad-{where}; its author: {author(where)}"


def test_they_are_sound_as_far_as_an_import_tells(bad: Path, cli: Any) -> None:
    found = {p["distribution"]: p for p in json.loads(cli("plugins", "list", "--json").out)}
    mine = {name: p["problem"] for name, p in found.items() if name.startswith("bad-")}
    assert mine == dict.fromkeys([f"bad-{where}" for where in (*PARTS, "hook", "command")])


@pytest.mark.parametrize(
    ("where", "flags", "reason"),
    [
        ("card", ("--vision", "card:tiny"), "SystemExit: 0 (site/bad_card.py:"),
        ("creation", ("--vision", "creation:tiny"), "SystemExit: no (site/creation_parts.py:"),
        ("forward", ("--vision", "forward:tiny"), "IndexError: dimension 7 (site/forward_parts.py:"),
        ("leaves", ("--vision", "leaves:tiny"), "SystemExit: os._exit(0) (site/leaves_parts.py:"),
        ("tokenizer", ("--llm", "tokenizer:tiny", "--vision", "clip:tiny"), "UnicodeDecodeError: "),
        ("embed", ("--llm", "embed:tiny", "--vision", "clip:tiny"), "GeneratorExit (site/embed_parts.py:"),
        ("config", ("--vision", "clip:tiny", "--fusion", "config:odd"), "KeyError: 'how' (site/bad_config.py:"),
    ],
)
def test_a_build_names_the_one_that_fails(bad: Path, cli: Any, where: str, flags: tuple[str, ...], reason: str) -> None:
    named(cli("build", "--llm", "qwen:tiny", "--connector", "mlp:2", *flags, "-o", "b"), where, reason)
    assert not (bad / "b").exists()


def test_a_good_command_gives_what_it_gives_without_them_and_a_bad_one_is_named(
    bad: Path, cli: Any, workspace: Path, tiny_bundle: Path
) -> None:
    data = ("--items", workspace / "items.jsonl", "--images", workspace / "images")
    assert cli("embed", tiny_bundle, *data, "-o", "v.parquet").code == 0
    built = cli("build", "--llm", "qwen:tiny", "--vision", "transform:tiny", "--connector", "mlp:2", "-o", "b")
    assert built.code == 0, built.err
    named(cli("embed", "b", *data, "-o", "x.parquet"), "transform", "ZeroDivisionError: half a pixel (site/")
    assert cli("index", "v.parquet", "--type", "search", "-o", "i").code == 0
    named(
        cli("recommend", "--index", "i", "--id", "twemoji:0", "-k", "20"),
        "search",
        "KeyError: 'lost' (site/search_parts.py:",
    )
    named(
        cli("recommend", "--index", "i", "--id", "twemoji:0", "-k", "2"),
        "search",
        "its search gives rows: None, not an array",
    )
    named(
        cli("recommend", "--index", "i", "--id", "twemoji:9", "-k", "2"),
        "search",
        "its vector gives a vector: None, not an array",
    )

    alone = cli(
        "--disable-plugin",
        ",".join(f"bad-{w}" for w in (*PARTS, "hook", "command")),
        "embed",
        tiny_bundle,
        *data,
        "-o",
        "w.parquet",
    )
    assert alone.code == 0, alone.err
    with_them, without = (read_vectors(Path(f"{name}.parquet")) for name in "vw")
    np.testing.assert_array_equal(with_them.vectors, without.vectors)


def test_a_training_goes_on_past_a_hook_and_ends_with_a_loss_that_exits(
    bad: Path, cli: Any, workspace: Path, tiny_bundle: Path
) -> None:
    data = ("--items", workspace / "items.jsonl", "--images", workspace / "images", "--pairs", workspace / "train.csv")
    steps = ("--max-steps", "2", "--batch-size", "4", "--set", "train.log_steps=1")
    done = cli("train", tiny_bundle, *data, *steps, "-o", "run")
    assert done.code == 0, done.err
    assert f"plug-in bad-hook/bad_hook: SystemExit: 0; its author: {author('hook')}" in done.err
    assert (
        "warning: in a thread: plug-in 'bad_hook' of bad-hook 1.0: LookupError: in a thread (site/bad_hook.py:"
        in done.err
    )
    assert (
        cli(
            "build", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--connector", "mlp:2", "--loss", "step", "-o", "b"
        ).code
        == 0
    )
    named(cli("train", "b", *data, *steps, "-o", "run2"), "step", "SystemExit: 0 (site/step_parts.py:")
    named(cli("bad", "go"), "command", "SystemExit: 0 (site/bad_cli.py:")
