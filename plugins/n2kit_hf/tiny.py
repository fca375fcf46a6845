"""A byte-level tokenizer without a download, for models with random weights."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from n2kit.contract import TEMPLATES

BYTES = 256
WORDY = ("zh", "en", "compact")  # templates with words of their own


def byte_tokenizer(config: Any) -> PreTrainedTokenizerFast:
    """Build a byte-level BPE tokenizer for a vocabulary of any size.

    What room there is above the 256 bytes is filled with merges learned from n2kit's own prompts, so that a prompt costs about
    as many tokens as it does in a real model; in a vocabulary of fewer than 256, bytes share ids.
    """
    size = config.get_text_config().vocab_size
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({char: i % min(size, BYTES) for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if size > BYTES:
        texts = [text for t in map(TEMPLATES.__getitem__, WORDY) for text in (t.basic, t.micl, t.suffix)]
        tokenizer.train_from_iterator(
            texts * 2, BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
