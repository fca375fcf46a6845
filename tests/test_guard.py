"""Plug-ins that import well and fail afterwards: each is named with its component, its place and its author, and harms nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import n2kit
from installed import install, on_path
from n2kit.errors import Unavailable
from n2kit.scaffold import write_package

AUTHOR = "Author-email: Jane Doe <jane@example.org>\nProject-URL: Issues, https://example.org/issues\n"
SPEC = """
from n2kit.contract import ComponentSpec, ConnectorCard, FusionCard, Preset, VisionCard, hookimpl
from pydantic import BaseModel, Field, field_validator

N2KIT_PLUGIN_API = (2, 1)

class Options(BaseModel):
    how: str = "not"

class Strict(BaseModel):
    how: str = "not"
    @field_validator("how", mode="after")
    @classmethod
    def _odd(cls, value):
        raise KeyError("how")

class Sized(BaseModel):
    width: int = 8

def card(config, locate):
    return VisionCard(tokens=4, token_width=8, pooled_width=8, image_size=16, parameters=0)

def card_exits(config, locate):
    raise SystemExit(0)

def card_lies(config, locate):
    return VisionCard(tokens="four", token_width=8, pooled_width=8, image_size=16, parameters=0)

def joint(config, vision, llm):
    return FusionCard(0)

def wrong_joint(config, vision, llm):
    return {"parameters": 0}

def connector(config, vision, llm):
    return ConnectorCard(4, 0)

def _vision(name, target="Eye", card="card"):
    return ComponentSpec(kind="vision", name=name, summary="s", target=f"late_parts:{target}", config="late:Options",
                         card=f"late:{card}", presets={"tiny": Preset()})

def _other(kind, name, target, card=None, config="Options"):
    return ComponentSpec(kind=kind, name=name, summary="s", target=f"late_parts:{target}", config=f"late:{config}",
                         card=card and f"late:{card}", shorthand="how")

@hookimpl
def n2kit_register_components():
    return [
        _vision("card-exits", card="card_exits"), _vision("card-lies", card="card_lies"), _vision("creation-exits", "Unborn"),
        _vision("transform-fails", "Blinded"), _vision("transform-odd", "Listing"), _vision("forward-exits", "Exiting"),
        _vision("forward-none", "Empty"), _vision("forward-narrow", "Narrow"), _vision("no-vision", "Nothing"),
        _other("loss", "late", "Late"), _other("loss", "no-loss", "Nothing"), _other("loss", "odd-config", "Other", config="Strict"),
        _other("fusion", "odd-card", "Plain", card="wrong_joint"), _other("fusion", "odd-width", "Sum", card="joint"),
        _other("connector", "few", "Few", card="connector"),
        _other("index", "drops", "Drops"), _other("index", "no-index", "Nothing"),
    ]

@hookimpl
def n2kit_run_started(run):
    raise SystemExit(0)
"""
PARTS = """
import torch
from torch import nn
from n2kit.contract import Connector, Fusion, Index, Loss, LossOut, VisionEncoder, VisionOut
from late import Options, card

calls = 0

class Nothing:
    def __init__(self, *args, **kwargs):
        pass
    @classmethod
    def create(cls, spec):
        return cls()
    @classmethod
    def build(cls, vectors, config):
        return cls()

class Eye(VisionEncoder):
    transform_id = "eye"
    def __init__(self, config):
        super().__init__()
        self.config, self.card = config, card(config, None)
    @classmethod
    def create(cls, spec):
        return cls(spec.config)
    def transform(self, image):
        return torch.zeros(3, 16, 16)
    def forward(self, pixels):
        return VisionOut(torch.ones(len(pixels), 4, 8), torch.ones(len(pixels), 8))
    def save(self, folder):
        (folder / "x.json").write_text("{}")
    @classmethod
    def load(cls, folder):
        return cls(Options())

class Unborn(Eye):
    def __init__(self, config):
        raise SystemExit(0)

class Blinded(Eye):
    def transform(self, image):
        raise ValueError("no eyes")

class Listing(Eye):
    def transform(self, image):
        return [1, 2, 3]

class Exiting(Eye):
    def forward(self, pixels):
        raise SystemExit

class Empty(Eye):
    def forward(self, pixels):
        return None

class Narrow(Eye):
    def forward(self, pixels):
        return VisionOut(torch.ones(len(pixels), 4, 7), torch.ones(len(pixels), 8))

class Late(Loss):
    config_class = Options
    def __init__(self, config):
        super().__init__(config)
        self.scale = nn.Parameter(torch.ones(()))
    def forward(self, views, present=None, exclude=None):
        global calls
        calls += 1
        how = self.config.how
        print("a step prints")
        loss = views["multimodal"].square().mean() * self.scale
        if calls > 1 and how == "divides":
            1 / 0
        if calls > 1 and how == "exits":
            import sys
            sys.exit(0)
        if calls > 1 and how == "own":
            class Odd(BaseException):
                pass
            raise Odd("mine")
        if how == "float":
            return 1.0
        if how == "vector":
            return LossOut(views["multimodal"].square().mean(1), {})
        if how == "constant":
            return LossOut(loss.detach(), {})
        if how == "backward":
            loss.register_hook(lambda gradient: gradient / int(0 * 1) if False else 1 / 0)
        return LossOut(loss, {"multimodal": loss.detach()})

class Other(Late):
    pass

class Sum(Fusion):
    config_class = Options
    def forward(self, hidden, pooled):
        return hidden[:, :3]

class Plain(Sum):
    pass

class Few(Connector):
    config_class = Options
    tokens = 4
    def forward(self, tokens, mask=None):
        return torch.zeros(len(tokens), 3, self.cards["llm"].input_width)

class Drops(Index):
    @classmethod
    def build(cls, vectors, config):
        raise MemoryError if config.how == "memory" else LookupError("dropped")
    def search(self, queries, k): ...
    def vector(self, row): ...
    def save(self, folder): ...
    @classmethod
    def load(cls, folder): ...
"""
COMMAND = """
import typer
app = typer.Typer()

@app.command()
def fails():
    print("data of its own")
    raise RuntimeError("no luck")

@app.command()
def ends():
    raise SystemExit(0)
"""


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which `late-dist`, all of whose components fail after import, is installed."""
    site = tmp_path / "site"
    site.mkdir()
    files = {"late.py": SPEC, "late_parts.py": PARTS, "late_cli.py": COMMAND}
    install(site, "late-dist", files, commands={"late": "late_cli:app"}, metadata=AUTHOR)
    monkeypatch.chdir(tmp_path)
    with on_path(site, monkeypatch):
        yield tmp_path


HINT = "hint: n2kit plugins check late-dist; its author: https://example.org/issues"


def named(done: Any, component: str, reason: str) -> None:
    """Assert that a command ended with exit 3 and two lines, which name the component, the reason and the author."""
    assert done.code == 3, done.err
    lines = [line for line in done.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert lines[0].startswith(f"error: {component} of late-dist 1.0: {reason}"), done.err
    assert lines[1:] == [HINT]


BUILD = ("build", "--llm", "qwen:tiny", "--connector", "mlp:2", "-o", "b")


@pytest.mark.parametrize(
    ("flags", "component", "reason"),
    [
        (("--vision", "card-exits:tiny"), "vision card-exits:tiny", "SystemExit: 0 (site/late.py:"),
        (("--vision", "card-lies:tiny"), "vision card-lies:tiny", "its card: tokens is 'four', not a whole number"),
        (("--vision", "creation-exits:tiny"), "vision creation-exits:tiny", "SystemExit: 0 (site/late_parts.py:"),
        (("--vision", "no-vision:tiny"), "vision no-vision:tiny", "its class Nothing is no VisionEncoder"),
        (("--vision", "forward-exits:tiny"), "vision 'forward-exits'", "SystemExit (site/late_parts.py:"),
        (("--vision", "forward-none:tiny"), "vision 'forward-none'", "its forward gives None, not VisionOut"),
        (("--vision", "forward-narrow:tiny"), "vision 'forward-narrow'", "its tokens has shape [4, 4, 7], not [4, 4, 8]"),
        (("--vision", "clip:tiny", "--loss", "no-loss"), "loss no-loss:not", "its class Nothing is no Loss of n2kit.contract"),
        (("--vision", "clip:tiny", "--loss", "odd-config", "--set", "loss.how=x"), "loss odd-config", "KeyError: 'how'"),
        (("--vision", "clip:tiny", "--fusion", "odd-card"), "fusion odd-card:not", "its card is {'parameters': 0}, not FusionCard"),
        (("--vision", "clip:tiny", "--connector", "few"), "connector 'few'", "its forward has shape [4, 3, "),
    ],
)  # fmt: skip
def test_what_fails_in_a_build_is_named(
    late: Path, cli: Any, flags: tuple[str, ...], component: str, reason: str
) -> None:
    named(cli(*BUILD, *flags), component, reason)
    assert not (late / "b").exists()


def train(cli: Any, workspace: Path, bundle: str | Path, *more: str) -> Any:
    data = ("--items", workspace / "items.jsonl", "--images", workspace / "images", "--pairs", workspace / "train.csv")
    steps = ("--max-steps", "3", "--batch-size", "4", "--set", "train.feature_cache_gb=0")
    return cli("train", bundle, *data, "-o", "run", *steps, *more)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("divides", "ZeroDivisionError: division by zero (site/late_parts.py:"),
        ("exits", "SystemExit: 0 (site/late_parts.py:"),
        ("own", "Odd: mine (site/late_parts.py:"),
        ("float", "its forward gives float, not LossOut"),
        ("vector", "its loss has shape [8], not that of one number"),
        ("constant", "its loss has no gradient"),
        ("backward", "ZeroDivisionError: division by zero (site/late_parts.py:"),
    ],
)
def test_a_loss_that_fails_in_training_is_named(late: Path, workspace: Path, cli: Any, how: str, reason: str) -> None:
    bundle("--loss", f"late:{how}", cli=cli)
    done = train(cli, workspace, "b", "--json")
    named(done, "loss 'late'", reason)
    events = [json.loads(line) for line in done.out.splitlines()]  # what it prints is no data
    assert [(e["plugin"], e["error"]) for e in events if e["event"] == "warning"] == [
        ("late-dist/late", "SystemExit: 0")
    ]
    assert "a step prints" in done.err


def bundle(*flags: str, cli: Any) -> None:
    done = cli("build", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--connector", "mlp:2", *flags, "-o", "b")
    assert done.code == 0, done.err


def test_a_fusion_of_another_width_is_named(late: Path, workspace: Path, cli: Any) -> None:
    bundle("--fusion", "odd-width", cli=cli)
    named(train(cli, workspace, "b"), "fusion 'odd-width'", "its forward has shape [")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("transform-fails", "ValueError: no eyes (site/late_parts.py:"),
        ("transform-odd", "its transform gives list, not float pixels [3, H, W]"),
    ],
)
def test_a_transform_that_fails_is_no_bad_image(late: Path, workspace: Path, cli: Any, name: str, reason: str) -> None:
    bundle("--vision", f"{name}:tiny", cli=cli)
    items = ("--items", workspace / "items.jsonl", "--images", workspace / "images", "--on-bad-image", "skip")
    named(cli("embed", "b", *items, "-o", "v.parquet"), f"vision '{name}'", reason)
    assert not (late / "v.parquet").exists()


def test_an_index_that_fails_is_named(late: Path, workspace: Path, tiny_bundle: Path, cli: Any) -> None:
    items = ("--items", workspace / "items.jsonl", "--images", workspace / "images")
    assert cli("embed", tiny_bundle, *items, "-o", "v.parquet").code == 0
    named(cli("index", "v.parquet", "-o", "i", "--type", "drops"), "index drops", "LookupError: dropped")
    named(
        cli("index", "v.parquet", "-o", "i", "--type", "no-index"),
        "index no-index",
        "its class Nothing is no Index and no Store of n2kit.contract",
    )
    short = cli("index", "v.parquet", "-o", "i", "--type", "drops:memory")
    assert short.code == 3
    assert short.err.startswith("error: not enough memory\n")  # which is nobody's fault
    assert not (late / "i").exists()


def test_in_python_too(late: Path) -> None:
    with pytest.raises(Unavailable, match="vision creation-exits:tiny of late-dist 1.0: SystemExit: 0"):
        n2kit.build("qwen:tiny", "creation-exits:tiny", connector="mlp:2")


def test_a_command_that_fails_is_named(late: Path, cli: Any) -> None:
    done = cli("late", "fails")
    assert done.out == "data of its own\n"
    named(done, "plug-in 'late'", "RuntimeError: no luck (site/late_cli.py:8)")
    named(cli("late", "ends"), "plug-in 'late'", "SystemExit: 0 (site/late_cli.py:12)")


def test_the_others_are_unharmed(late: Path, cli: Any) -> None:
    assert cli("plan", "--llm", "qwen:tiny", "--vision", "clip:tiny", "--json").code == 0
    (found,) = [p for p in json.loads(cli("plugins", "list", "--json").out) if p["distribution"] == "late-dist"]
    assert found["problem"] is None


@pytest.mark.parametrize("honest", [True, False], ids=["honest", "lying"])
def test_a_card_that_claims_causal_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: bool) -> None:
    name = f"peek-{'not' if honest else 'ahead'}"
    module = "n2kit_" + name.replace("-", "_")
    write_package(name, "llm", tmp_path / "package")
    model = tmp_path / "package" / module / "model.py"
    if not honest:
        model.write_text(model.read_text().replace("return states\n", "return states + states.mean(1, keepdim=True)\n"))
    monkeypatch.syspath_prepend(tmp_path / "package")
    entry = f"from {module} import *\nfrom {module} import N2KIT_PLUGIN_API\n"
    install(tmp_path, f"n2kit-{name}", {f"entry_{module}.py": entry})
    with on_path(tmp_path, monkeypatch):
        parts = {"vision": "clip:tiny", "connector": "mlp:2", "settings": {"prompt.body_tokens": 400}}
        if honest:
            n2kit.build(f"{name}:tiny", **parts)
            return
        with pytest.raises(Unavailable, match="its card says causal, and a later token changes an earlier state"):
            n2kit.build(f"{name}:tiny", **parts)
