"""A small catalogue and a tiny bundle that the tests share."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import forks
from stand_ins import quick_fork_servers

pytest_plugins = ["pytester"]
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may look for a hub


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests first, what shares a fixture in one process, and every combination of parts only where it is asked for."""
    if "full" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if not item.get_closest_marker("slow"):
            component = getattr(item, "callspec", None) and item.callspec.params.get("component")  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.xdist_group("/".join(component) if component else item.path.stem))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    """Slow ones with a fixture of their own are the longest; laws of components are many and small, and fill what is left."""
    grouped = item.get_closest_marker("xdist_group") is not None
    if item.get_closest_marker("slow"):
        return 0 if grouped else 1
    return 3 if "component" in getattr(item, "fixturenames", ()) else 2


def pytest_configure() -> None:
    quick_fork_servers(lambda: forks.server().name)


def pytest_unconfigure() -> None:
    forks.end()


@pytest.fixture(autouse=True)
def _alike_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and float32 where precision is `auto`: what a test computes is no matter of the CPU that it runs on."""
    import torch

    torch.set_num_threads(1)
    monkeypatch.setattr("n2kit.utils.device._assumed", [0.5])  # bf16 takes twice fp32's time


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No user's settings, and a cache that is nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    for name in [n for n in os.environ if n.startswith("N2KIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("N2KIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """items.jsonl, items.csv, images/, train.csv, val.csv, test.csv, pool.csv, events.csv: 12 concepts, each drawn twice in one colour."""
    from PIL import Image

    root = tmp_path_factory.mktemp("workspace")
    (root / "images").mkdir()
    rows, pairs = [], []
    for n in range(12):
        for artist in ("noto", "twemoji"):
            name = f"{artist}_{n}.png"
            Image.new("RGB", (40, 30), (20 * n, 255 - 20 * n, 128)).save(root / "images" / name)
            item_id = "noto:1f600" if (artist, n) == ("noto", 0) else f"{artist}:{n}"
            rows.append(
                {
                    "id": item_id,
                    "image": name,
                    "title": f"thing {n}",
                    "topics": [f"topic{n}"],
                    "content": "",
                    "category": "x",
                }
            )
        pairs.append((rows[-2]["id"], rows[-1]["id"]))
    Image.new("RGB", (32, 32)).save(root / "images" / "noto_1f600.webp")
    (root / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with (root / "items.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "image", "title", "topics", "content", "category"])
        writer.writeheader()
        writer.writerows({**r, "topics": "|".join(r["topics"])} for r in rows)
    for name, part in (("train", pairs[:8]), ("val", pairs[8:10]), ("test", pairs[10:])):
        with (root / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("query", "target"), *part])
    log = [
        (f"u{n}", item, 1_700_000_000 + 3600 * n + 60 * k)
        for n in range(12)
        for k, item in enumerate([*pairs[n], pairs[n - 1][1]])
    ]
    with (root / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "time"), *log])
    (root / "shop.item").write_text("item_id:token\ttitle:token_seq\nnoto:1\tone thing\nnoto:2\tanother thing\n")
    (root / "shop.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\tnoto:1\t1\nu\tnoto:2\t2\n")
    (root / "pool.csv").write_text("id\n" + "".join(f"{b}\n" for _, b in pairs))
    return root


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """qwen:tiny + siglip:tiny + qformer, saved."""
    import n2kit

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    n2kit.build("qwen:tiny", "siglip:tiny", connector="qformer:tiny", settings={"head.width": 16}).save(folder)
    return folder


@pytest.fixture
def at_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace)
    return workspace


Cli = Callable[..., SimpleNamespace]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the program in this process: `cli("ls", "llm")` → code, out, err."""
    from n2kit_cli.main import run

    def call(*arguments: str | Path) -> SimpleNamespace:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return SimpleNamespace(code=code, out=out, err=err)

    return call
