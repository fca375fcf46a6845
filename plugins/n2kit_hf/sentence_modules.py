"""The modules of a sentence-transformers folder: how a text embedder makes one vector of its states. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from n2kit.contract import read_json
from n2kit.errors import BadInput

PoolingMode = Literal["last", "mean", "cls"]
MODULES, PROMPTS, OLD_SETTINGS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
MODES: dict[str, PoolingMode] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
OLD_MODES = {
    "pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max", "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}  # fmt: skip
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")  # of torch.nn
DOCUMENTS = (
    "document",
    "passage",
    "corpus",
)  # names of the prompt that a text to be found gets, the first that is there
VECTOR = "sentence_embedding"
UNLIMITED = 10**9  # tokenizers write 10**30 where there is no limit


@dataclass(frozen=True)
class DenseLayer:
    """A layer on the pooled vector; `path` is its folder's name."""

    path: str
    inputs: int
    outputs: int
    bias: bool
    activation: str

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs + self.bias * self.outputs


@dataclass(frozen=True)
class SentenceModules:
    """A pooling, the dense layers behind it, the words that stand before every text, and the most tokens of a row."""

    pooling: PoolingMode
    layers: tuple[DenseLayer, ...] = ()
    prompt: str = ""
    max_tokens: int | None = None

    @property
    def alters_states(self) -> bool:
        """Tell whether a vector is more than the state at the last token."""
        return self.pooling != "last" or bool(self.layers)

    @property
    def template(self) -> str:
        """The prompt template that gives what sentence-transformers gives a text to be found."""
        return f"plain:{self.prompt}" if self.prompt else "plain"


def modules_of(folder: Path | None, pooling: PoolingMode | None = None) -> SentenceModules | None:
    """Read a folder's modules; None where it is none of a text embedder.

    Args:
        pooling: another pooling than the folder's own, or one where it has none.

    Raises:
        BadInput: modules that n2kit does not have.
    """
    file = folder / MODULES if folder is not None and folder.is_dir() else None
    if folder is None or file is None or not file.is_file():
        return SentenceModules(pooling) if pooling is not None else None
    try:
        entries = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("type"), str) for e in entries
    ):
        raise BadInput(f"{file}: no list of modules", "give a folder that sentence-transformers wrote")
    found: PoolingMode | None = None
    layers: list[DenseLayer] = []
    for number, entry in enumerate(entries):
        kind, path = entry["type"].rpartition(".")[2], str(entry.get("path") or "")
        if kind == "Transformer" and number == 0 and path in ("", "."):
            continue
        if kind == "Pooling" and found is None and not layers:
            found = _pooling(folder, path, given=pooling is not None)
        elif kind == "Dense" and found is not None:
            layers.append(_dense(folder, path))
        elif kind not in ("Normalize", "Dropout"):
            raise BadInput(f"{file}: module {kind} at place {number}: n2kit reads {_READS}", "another model")
    if found is None:
        raise BadInput(f"{file}: there is no pooling in it: n2kit reads {_READS}", "another model")
    return SentenceModules(pooling or found, tuple(layers), _prompt(folder), _max_tokens(folder))


_READS = "a Transformer, a Pooling, Dense layers and Normalize, in this order"


def write_modules(modules: SentenceModules, width: int, folder: Path) -> None:
    """Write modules as sentence-transformers does; `width` is that of the states."""
    mode = next(name for name, ours in MODES.items() if ours == modules.pooling)
    configs: list[tuple[str, str, dict[str, Any]]] = [
        ("1_Pooling", "Pooling", {"word_embedding_dimension": width, "pooling_mode": mode, "include_prompt": True})
    ]
    for layer in modules.layers:
        activation = f"torch.nn.modules.{_module_of(layer.activation)}.{layer.activation}"
        facts = {"in_features": layer.inputs, "out_features": layer.outputs, "bias": layer.bias}
        configs.append((layer.path, "Dense", {**facts, "activation_function": activation}))
    paths = [("", "Transformer"), *((path, kind) for path, kind, _ in configs)]
    entries = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(paths)
    ]
    (folder / MODULES).write_text(json.dumps(entries, indent=1))
    for path, _, config in configs:
        (folder / path).mkdir(exist_ok=True)
        (folder / path / "config.json").write_text(json.dumps(config, indent=1))


def _module_of(activation: str) -> str:
    return "linear" if activation == "Identity" else "activation"


def _config(folder: Path, path: str) -> dict[str, Any]:
    """Read a module's configuration, whose folder lies in this one."""
    if not path or Path(path).name != path:
        raise BadInput(f"{folder / MODULES}: {path!r} is no folder of a module", "save the model again")
    file = folder / path / "config.json"
    if not file.is_file():
        raise BadInput(f"{file} is missing, and {MODULES} names it", "copy or download the checkpoint again")
    return read_json(file)


def _pooling(folder: Path, path: str, *, given: bool) -> PoolingMode:
    config = _config(folder, path)
    stated = config.get("pooling_mode")
    stated = [name for key, name in OLD_MODES.items() if config.get(key)] if stated is None else stated
    names = [stated] if isinstance(stated, str) else list(stated)
    if given:
        return "last"  # is not used
    if len(names) != 1 or names[0] not in MODES:
        what = " and ".join(map(str, names)) or "none"
        raise BadInput(
            f"{folder / path}: pooling {what}: n2kit has {', '.join(get_args(PoolingMode))}",
            "--set llm.pooling=mean, or another model",
        )
    if config.get("include_prompt") is False and _prompt(folder):
        raise BadInput(f"{folder / path}: include_prompt false: n2kit pools over all tokens", "another model")
    return MODES[names[0]]


def _dense(folder: Path, path: str) -> DenseLayer:
    config = _config(folder, path)
    activation = str(config.get("activation_function") or "Identity").rpartition(".")[2]
    places: Sequence[Any] = [config.get(key) or VECTOR for key in ("module_input_name", "module_output_name")]
    if activation not in ACTIVATIONS or config.get("use_residual") or set(places) != {VECTOR}:
        what = f"activation {activation}" if activation not in ACTIVATIONS else "a residual, or tokens as its input"
        raise BadInput(f"{folder / path}: a dense layer with {what}", f"n2kit has {', '.join(ACTIVATIONS)}")
    try:
        inputs, outputs = (int(cast("int", config[key])) for key in ("in_features", "out_features"))
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{folder / path}/config.json states no in_features and out_features", "save it again") from None
    return DenseLayer(path, inputs, outputs, bool(config.get("bias", True)), activation)


def _max_tokens(folder: Path) -> int | None:
    """Find what sentence-transformers cuts a row to: its own setting, else the tokenizer's; never more than there are positions."""
    file = folder / OLD_SETTINGS
    settings: Mapping[str, Any] = read_json(file) if file.is_file() else {}
    if settings.get("do_lower_case"):
        raise BadInput(f"{file}: do_lower_case: n2kit leaves a text's case to its tokenizer", "another model")
    of_tokenizer = folder / "tokenizer_config.json"
    stated = settings.get("max_seq_length")
    if stated is None and of_tokenizer.is_file():
        stated = read_json(of_tokenizer).get("model_max_length")
    whole = isinstance(stated, int | float) and 0 < stated < UNLIMITED
    return int(cast("float", stated)) if whole else None


def _prompt(folder: Path) -> str:
    """Find what sentence-transformers puts before a document."""
    file = folder / PROMPTS
    content: Mapping[str, Any] = read_json(file) if file.is_file() else {}
    prompts = content.get("prompts") or {}
    names = [*DOCUMENTS, content.get("default_prompt_name")]
    found = next((prompts[name] for name in names if isinstance(prompts, dict) and name in prompts), "")
    return found if isinstance(found, str) else ""
