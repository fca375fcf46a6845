"""A checkpoint's tokenizer, and what it must be able to do."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from n2kit.errors import BadInput
from n2kit_hf.checkpoints import pointer_problem, quietly

WORDS, STRANGE = (
    "Note: oak chair",
    "Note: oak chair \u6905\u5b50 \u00e9\u2192.",
)  # what prompts are made of, and what items may hold


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read a folder's tokenizer.

    Raises:
        BadInput: it holds none that transformers can read.
    """
    try:
        with quietly():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of the tokenizers library too, which raises nothing narrower
        if problem := pointer_problem(folder):
            raise problem from None
        reason = (str(error).splitlines() or [""])[0]
        if "custom code" in reason:
            what = f"{folder}: its tokenizer needs code of its own, and n2kit runs no code of a checkpoint"
            raise BadInput(what, "add a tokenizer.json, and name no auto_map in tokenizer_config.json") from None
        reason = reason if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {reason}"
        raise BadInput(f"{folder}: no tokenizer that transformers can read: {reason}", "add tokenizer.json") from None
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int, folder: Path) -> None:
    """Check that a tokenizer gives tokens of which the input table has a row each.

    Raises:
        BadInput: it does not.
    """
    special = {tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    largest = max((n for n in tokenizer.get_vocab().values() if n not in special), default=-1)
    if largest >= rows:
        raise BadInput(
            f"{folder}: the tokenizer's largest id is {largest}, and the model's table has {rows} rows",
            "give the tokenizer that belongs to these weights",
        )
    for text in (WORDS, STRANGE):
        try:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        except Exception as error:  # of the tokenizers library, which raises nothing narrower
            reason = str(error).splitlines()[0]
            raise BadInput(
                f"{folder}: the tokenizer cannot read {text!r}: {reason}", "give it an unknown token"
            ) from None
        if not ids or None in ids:
            raise BadInput(f"{folder}: the tokenizer gives {ids} for {text!r}", "give the tokenizer of these weights")
