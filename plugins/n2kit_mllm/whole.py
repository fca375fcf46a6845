"""Multimodal checkpoints of transformers: the loading of a whole model, or of its tower alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, Blip2VisionModel, PreTrainedTokenizerBase
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from n2kit.contract import LoadSpec
from n2kit.errors import BadInput
from n2kit_hf.checkpoints import DTYPES, load_model, random_model
from n2kit_hf.tiny import byte_tokenizer
from n2kit_hf.tokenizers import read_tokenizer
from n2kit_mllm.cards import Family, read

# Towers that transformers' AutoModel does not find by their model_type.
TOWER_CLASSES: dict[str, Any] = {
    "blip_2_vision_model": Blip2VisionModel,
    "qwen2_5_vl_vision": Qwen2_5_VisionTransformerPretrainedModel,
    "qwen2_vl_vision": Qwen2VisionTransformerPretrainedModel,
    "qwen3_vl_vision": Qwen3VLVisionModel,
    "smolvlm_vision": SmolVLMVisionTransformer,
    "idefics3_vision": Idefics3VisionTransformer,
}


def config_of(spec: LoadSpec, family: Family) -> Any:
    """Return the whole model's configuration.

    Raises:
        BadInput: none is given, one that the family does not read, or one that transformers does not take.
    """
    path = spec.path
    if path is None and not spec.config.config:
        raise BadInput("random weights need an architecture", "--set mllm.config='{model_type: llava, …}'")
    facts = read(spec.config, path, family)
    try:
        return AutoConfig.from_pretrained(path) if path else AutoConfig.for_model(facts.pop("model_type"), **facts)
    except (TypeError, ValueError, StrictDataclassError) as error:
        where = path or "mllm.config"
        raise BadInput(f"{where}: {error}".splitlines()[0], "see the architecture's configuration class") from None


def whole_model(spec: LoadSpec, family: Family) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the model as transformers builds it, language model head included, and its tokenizer.

    The class with the head is the one that reads every key layout that a family's checkpoints have had.

    Raises:
        BadInput: a checkpoint of another family, or one with missing weights.
    """
    path, options = spec.path, spec.config
    config = config_of(spec, family)
    if path is None:
        return random_model(AutoModelForImageTextToText, config, options), byte_tokenizer(config)
    return load_model(AutoModelForImageTextToText, path, DTYPES[options.dtype]), read_tokenizer(path)


def tower_alone(spec: LoadSpec, family: Family) -> tuple[Any, Any]:
    """Load the tower of a whole checkpoint without reading the rest, and return the whole's configuration too.

    Raises:
        BadInput: as `whole_model`.
    """
    whole = config_of(spec, family)
    config = whole.vision_config
    if spec.path is None:
        return random_model(_tower_class(config), config, spec.config), whole
    # The tower's keys stand at the top of its own class, and under a prefix in the whole checkpoint.
    return load_tower(spec.path, config, spec.config.dtype, key_mapping={f"^{family.vision}": ""}), whole


def load_tower(folder: Path, config: Any, dtype: str, *, saved: bool = False, **how: Any) -> Any:
    """Load a tower by its own configuration; `how` goes to `from_pretrained`.

    Raises:
        BadInput: the folder is no such checkpoint, or one with missing weights.
    """
    inner = partial(_tower_class(config).from_pretrained, config=config, **how)
    model = load_model(SimpleNamespace(from_pretrained=inner), folder, DTYPES[dtype], saved=saved)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # out of the file: where it lies in memory would show in the last bits
    return model


def _tower_class(config: Any) -> Any:
    return TOWER_CLASSES.get(config.model_type, AutoModel)
