"""Recipes, matrices and JSON files: read, or refused by one clear line that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzz import law
from fuzz.mutations import VALUES, mutated
from n2kit.bench.matrix.spec import MatrixSpec, read_matrix
from n2kit.errors import BadInput
from n2kit.recipe.settings import Recipe, Resolved, parse_sets, resolve
from n2kit.utils.files import read_json
from n2kit.utils.yaml_files import read_with_lines, read_yaml

RECIPE = Recipe().to_yaml().encode()
SHORT = b"llm: qwen:tiny\nvision: {name: siglip:tiny, tune: 'last:1'}\ntrain:\n  lr: 1e-4\n  lrs: {llm: 1e-5}\nhead: {width: null}\n"
MATRIX = b"llm: [qwen:tiny]\nvision: siglip:tiny, clip:tiny\nseeds: 2\nsettings:\n  train: {max_steps: 3}\narms:\n- {name: a, variant: micl}\nks: [1, 10]\n"
ALIASES = b"a: &a [1, 2]\nb: &b [*a, *a]\nc: {<<: {d: 1}, e: *b}\n? f\n: !!str 1\n"
KEYS = st.sampled_from(
    [
        "llm",
        "vision",
        "connector",
        "train",
        "lr",
        "name",
        "tune",
        "prompt",
        "head",
        "width",
        "lrs",
        "seeds",
        "arms",
        "ks",
        "settings",
        "items",
        "map",
    ]
)
TREES = st.dictionaries(
    KEYS,
    st.one_of(
        VALUES,
        st.dictionaries(KEYS, VALUES, max_size=3),
        st.lists(st.dictionaries(KEYS, VALUES, max_size=2), max_size=2),
    ),
    max_size=4,
)


@given(content=mutated([RECIPE, SHORT, MATRIX, ALIASES]))
def test_a_damaged_yaml_file_is_read_or_refused_by_name(content: bytes, ground: Path) -> None:
    path = ground / "damaged.yaml"
    path.write_bytes(content)
    law.read(lambda: read_yaml(path), path.name)
    law.read(lambda: read_with_lines(path), path.name)


@law.cases(0.6)
@given(content=mutated([SHORT, SHORT, RECIPE]))
def test_a_damaged_recipe_is_resolved_or_refused_by_line(content: bytes, ground: Path) -> None:
    path = ground / "recipe.yaml"
    path.write_bytes(content)
    found = law.read(lambda: resolve(file=path, env={}), path.name)
    assert isinstance(found, Resolved | BadInput)


@law.cases(0.6)
@given(content=mutated([MATRIX]))
def test_a_damaged_matrix_is_read_or_refused_by_line(content: bytes, ground: Path) -> None:
    path = ground / "matrix.yaml"
    path.write_bytes(content)
    found = law.read(lambda: read_matrix(path, {}), path.name)
    assert isinstance(found, MatrixSpec | BadInput)


@law.cases(0.2)
@given(tree=TREES)
def test_a_recipe_or_matrix_of_any_values_is_read_or_refused_by_name(tree: dict[str, object], ground: Path) -> None:
    path = ground / "values.yaml"
    try:
        path.write_text(yaml.safe_dump(tree), "utf8")
    except UnicodeEncodeError:
        return
    law.read(lambda: resolve(file=path, env={}), path.name)
    law.read(lambda: read_matrix(path, {}), path.name)


@given(
    content=mutated([json.dumps({"format": 2, "parts": {"llm": {"a": [1, None, 1.5]}}}).encode(), b'{"a": "\xc3\xa9"}'])
)
def test_a_damaged_json_file_is_read_or_refused_by_name(content: bytes, ground: Path) -> None:
    path = ground / "damaged.json"
    path.write_bytes(content)
    found = law.read(lambda: read_json(path), path.name)
    assert isinstance(found, dict | BadInput)


@law.cases(0.4)
@given(keys=st.lists(st.one_of(KEYS, st.text(max_size=6)), min_size=1, max_size=3), value=st.text(max_size=12))
def test_a_setting_of_any_name_and_value_is_resolved_or_refused(keys: list[str], value: str) -> None:
    found = law.read(lambda: resolve(parse_sets([f"{'.'.join(keys)}={value}"]), env={}))
    assert isinstance(found, Resolved | BadInput)


@law.cases(0.2)
@given(
    name=st.sampled_from(["N2KIT_LLM", "N2KIT_TRAIN__LR", "N2KIT_TRAIN", "N2KIT_VISION__NAME", "N2KIT_HEAD____WIDTH"]),
    value=st.text(max_size=12),
)
def test_a_variable_of_any_value_is_resolved_or_refused(name: str, value: str) -> None:
    found = law.read(lambda: resolve(env={name: value}))
    assert isinstance(found, Resolved | BadInput)
