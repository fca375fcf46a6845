"""Discovery: ours look like a third party's, and a broken plug-in harms nobody."""

from __future__ import annotations

import sys
import textwrap
import time
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from n2kit.contract.kinds import KINDS
from n2kit.errors import BadInput, Mismatch, Unavailable
from n2kit.plugins.catalogue import Catalogue, check_card, default_catalogue
from n2kit.plugins.isolation import probe_imports
from n2kit.plugins.manager import Manager, load_target, manager
from n2kit.plugins.weights import WeightsUri
from n2kit.testing.probe import probe

GOOD = """
from n2kit.contract import ComponentSpec, hookimpl
N2KIT_PLUGIN_API = (2, 0)
@hookimpl
def n2kit_register_components():
    return [ComponentSpec(kind="fusion", name="{name}", target="{module}:X", summary="s", config="{module}:X")]
class X: pass
"""
BROKEN = {
    "import_error": ("import nothing_like_this\n", "ModuleNotFoundError"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit"),
    "no_version": (GOOD.replace("N2KIT_PLUGIN_API = (2, 0)", ""), "states no N2KIT_PLUGIN_API"),
    "newer": (GOOD.replace("(2, 0)", "(3, 0)"), "written for plug-in API 3.0"),
    "older": (
        GOOD.replace("(2, 0)", "(1, 0)").replace("ComponentSpec,", "ComponentSpec, Variant,"),
        "written for plug-in API 1.0; this n2kit has 2.1: variants are called presets now, see docs/plugins.md",
    ),
    "older_and_hidden": (
        GOOD.replace("(2, 0)", "(1, 0) if True else ()"),
        "written for plug-in API 1.0; this n2kit has 2.1: variants are called presets now",
    ),
    "raises": (GOOD.replace("    return [", "    raise ValueError('no luck')\n    return ["), "no luck"),
    "wrong_type": (GOOD.replace("    return [", "    return ['x'] or ["), "returned str, not ComponentSpec"),
}


class Dist:
    def __init__(self, name: str) -> None:
        self.name, self.version = name, "1.0"


def point(folder: Path, module: str, source: str, dist: str, name: str = "mine") -> EntryPoint:
    (folder / f"{module}.py").write_text(textwrap.dedent(source).replace("{name}", name).replace("{module}", module))
    found = EntryPoint(module, module, "n2kit")
    vars(found).update(dist=Dist(dist))
    return found


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_listed_and_the_rest_unharmed(path: Path, case: str) -> None:
    source, reason = BROKEN[case]
    good = point(path, f"good_{case}", GOOD, "good-dist")
    bad = point(path, f"bad_{case}", source, "bad-dist")
    made = Manager([bad, good, *entry_points(group="n2kit")])
    (broken,) = made.broken()
    assert broken.distribution == "bad-dist"
    assert reason in (broken.problem or "")
    assert made.find("fusion", "mine") is not None
    assert made.find("llm", "qwen") is not None
    with pytest.raises(Unavailable, match=f"bad-dist/bad_{case} is broken"):
        Catalogue(made, []).resolve("fusion", f"bad_{case}")


def test_a_name_with_two_owners_is_refused_and_can_be_qualified(path: Path) -> None:
    made = Manager([point(path, "one_mod", GOOD, "one"), point(path, "two_mod", GOOD, "two")])
    with pytest.raises(BadInput, match="two installed packages") as caught:
        made.find("fusion", "mine")
    assert "one/mine, two/mine" in (caught.value.hint or "")
    found = made.find("fusion", "two/mine")
    assert found is not None
    assert found.distribution == "two"


@pytest.mark.slow
def test_check_runs_the_laws_in_an_interpreter_of_its_own() -> None:
    plugin = next(p for p in manager().plugins if p.name == "fusion")
    found = probe(plugin)
    assert found.problems == []
    assert found.laws > 50
    ghost = type(plugin)("ghost", "no-dist", "1", "ghost")
    assert "before any law: ended the process with code" in probe(ghost).problems[0]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("presets=['tiny']", "no mapping of names to Preset"),
        ("presets={'tiny': {}}", "no mapping of names to Preset"),
        ("requires='torch'", "requires of fusion 'mine' is no tuple"),
        ("requires=('a b c!!',)", "InvalidRequirement"),
        ("capabilities=frozenset({'magic'})", "declares capability 'magic'; there are: bfloat16"),
        ("name='a:b'", "keyword argument repeated"),
    ],
)
def test_a_malformed_spec_breaks_its_plugin_alone(path: Path, field: str, reason: str) -> None:
    module = f"spec_{abs(hash(field))}"
    source = GOOD.replace('summary="s"', f'summary="s", {field}')
    made = Manager([point(path, module, source, "bad-dist"), point(path, f"good_{module}", GOOD, "good-dist")])
    (broken,) = made.broken()
    assert reason in (broken.problem or "")
    assert made.find("fusion", "mine") is not None


def test_names_that_could_not_be_written_are_refused(path: Path) -> None:
    made = Manager([point(path, "odd_name", GOOD, "bad-dist", name="a:b+c")])
    assert "is no name: letters" in (made.broken()[0].problem or "")


def test_what_a_plugin_prints_is_no_data(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = Manager([point(path, "loud_mod", "print('HELLO')\n" + GOOD, "loud-dist")])
    assert made.broken() == []
    out, err = capfd.readouterr()
    assert out == ""
    assert "HELLO" in err


def test_code_that_exits_when_it_is_used_is_named(path: Path) -> None:
    (path / "exiting_mod.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(Unavailable, match="some-dist: cannot import exiting_mod:X: SystemExit"):
        load_target("exiting_mod:X", owner="some-dist")


def test_files_of_the_current_folder_are_no_code(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("json.py", "torch.py"):
        (data / name).write_text("import pathlib; pathlib.Path('ran').touch()\n")
    monkeypatch.chdir(data)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", ".")])
    assert Manager([point(path, "sound_mod", GOOD, "sound-dist")]).broken() == []
    assert not (data / "ran").exists()


def test_what_a_plugin_leaves_running_is_not_waited_for(path: Path) -> None:
    source = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n" + GOOD
    start = time.monotonic()
    looked = probe_imports([point(path, "leaving_mod", source, "leaving-dist")])
    assert looked == {}
    assert time.monotonic() - start < 20


def test_a_card_function_that_fails_is_its_plugins(path: Path) -> None:
    source = (
        "from n2kit.contract import ComponentSpec, Preset, hookimpl\nfrom pydantic import BaseModel\nN2KIT_PLUGIN_API = (2, 0)\n"
        "class Config(BaseModel): pass\ndef card(config, locate):\n    raise KeyError('width')\n@hookimpl\n"
        "def n2kit_register_components():\n    return [ComponentSpec(kind='vision', name='odd', target='x:Y', summary='s',\n"
        "        config='card_mod:Config', card='card_mod:card', presets={'tiny': Preset()})]\n"
    )
    made = Manager([point(path, "card_mod", source, "card-dist")])
    with pytest.raises(Unavailable, match="vision odd:tiny of card-dist 1.0: KeyError: 'width'"):
        Catalogue(made, []).resolve("vision", "odd:tiny").card()


def test_a_configuration_that_makes_no_sense_is_the_users(tmp_path: Path) -> None:
    for text in (
        '{"model_type": "clip_vision_model", "image_size": 224, "patch_size": 0}',
        '{"model_type": "clip", "vision_config": 5}',
        '{"model_type": "siglip", "vision_config": {"image_size": "big"}}',
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(BadInput, match="not understood"):
            default_catalogue().resolve("vision", f"file:{tmp_path}").card()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("llmm:\n  x: {component: qwen}\n", "there is no kind 'llmm'"),
        ("llm:\n  x: {component: qwen, presets: [a]}\n", "llm.x.presets is no mapping"),
        (
            "llm:\n  x: {component: qwen, variants: {a: {weights: random}}}\n",
            r"mine.yaml: the key llm.x.variants is called presets now",
        ),
        ("llm:\n  x: {component: qwen, options: 5}\n", "llm.x.options is no mapping"),
        ("llm:\n  x: {component: qwen, presets: {a: 5}}\n", "llm.x.presets.a is no mapping"),
    ],
)
def test_a_catalogue_that_makes_no_sense_names_the_place(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=reason):
        Catalogue(manager(), [file])


def test_wheel_folders_entry_points_and_plugins_agree() -> None:
    import tomllib

    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    folders = {p.name for p in (root / "plugins").iterdir() if p.is_dir() and p.name.startswith("n2kit_")}
    packages = {Path(p).name for p in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert packages == folders | {"n2kit", "n2kit_cli"}
    assert set(project["project"]["entry-points"]["n2kit"].values()) == folders


@pytest.mark.parametrize("kind", ["llm", "vision"])
def test_every_entry_of_the_catalogue_resolves(kind: Any) -> None:
    catalogue = default_catalogue()
    for name in catalogue.names(kind):
        for preset, facts in catalogue.presets(kind, name).items():
            component = catalogue.resolve(kind, f"{name}:{preset}")
            assert component.declared is not None, (name, preset)
            assert component.reference == f"{name}:{preset}"
            assert facts.weights == "random" or facts.licence
    assert {f"{kind}" for kind in KINDS} == set(catalogue.aliases)


def test_declared_cards_are_measured_when_weights_are_loaded() -> None:
    catalogue = default_catalogue()
    for kind in ("llm", "vision"):
        for name in ("qwen", "llama", "hf") if kind == "llm" else ("clip", "siglip", "timm"):
            component = catalogue.resolve(kind, f"{name}:tiny")  # type: ignore[arg-type]
            from n2kit.contract.interfaces import LoadSpec

            check_card(
                component.reference, component.declared, component.cls().create(LoadSpec(component.config())).card
            )
            wrong = vars(component.declared) | {"parameters": 1}
            with pytest.raises(Mismatch, match="parameters declared 1, measured"):
                check_card("x", type(component.declared)(**wrong), component.declared)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "name", "config"),
    [
        ("connector", "qformer:5", {"layers": 3, "width": 24, "heads": 3}),
        ("connector", "mlp", {}),
        ("connector", "linear:4", {}),
        ("fusion", "gate", {}),
    ],
)
def test_cards_of_new_parts_equal_what_is_built(kind: Any, name: str, config: dict[str, Any]) -> None:
    from dataclasses import replace

    vision = default_catalogue().resolve("vision", "clip:tiny").card()
    llm = default_catalogue().resolve("llm", "qwen:tiny").card()
    component = default_catalogue().resolve(kind, name)
    component = replace(component, options={**component.options, **config})
    card = component.load(component.registered.spec.card or "")(component.config(), vision, llm)
    part = component.cls()(component.config(), vision=vision, llm=llm)
    assert card.parameters == sum(p.numel() for p in part.parameters())
    assert kind == "fusion" or card.tokens == part.tokens


def test_users_may_add_to_the_catalogue(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "llm:\n  house:\n    component: llama\n    presets:\n      v1: {weights: 'file:/models/house'}\n"
        "known_plugins:\n"
        "  audio-llm: {distribution: n2kit-audio, install: pip install n2kit-audio}\n"
    )
    catalogue = Catalogue(manager(), [file])
    component = catalogue.resolve("llm", "house")
    assert component.reference == "house:v1"
    assert str(component.weights) == "file:/models/house"
    with pytest.raises(Unavailable) as caught:
        catalogue.resolve("llm", "audio-llm")
    assert caught.value.hint == "pip install n2kit-audio"
    file.write_text("llm:\n  house: {}\n")
    with pytest.raises(BadInput, match=r"mine.yaml: llm.house names no component"):
        Catalogue(manager(), [file])


@pytest.mark.parametrize("text", ["hf:org/name", "hf:org/name@abc", "file:/x/y", "pkg:dist/a/b.gguf", "random"])
def test_weight_sources_round_trip(text: str) -> None:
    assert str(WeightsUri.parse(text)) == text


def test_sources_choose_their_component_by_model_type(tmp_path: Path) -> None:
    for model_type, owner in (("qwen2", "qwen"), ("llama", "llama"), ("opt", "opt"), ("xglm", "hf")):
        (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
        assert default_catalogue().resolve("llm", f"file:{tmp_path}").registered.spec.name == owner
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    assert default_catalogue().resolve("vision", f"file:{tmp_path}").registered.spec.name == "siglip"
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(BadInput, match="no installed vision component reads"):
        default_catalogue().resolve("vision", f"file:{tmp_path}")
    for broken in ("{", "[]"):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(BadInput, match=r"config\.json"):
            default_catalogue().resolve("vision", f"file:{tmp_path}")
