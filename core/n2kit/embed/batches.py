"""Items in batches of like length: what a batch is padded with costs as much as what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from n2kit.data.item import Item
    from n2kit.modeling.prompts import PromptBuilder, TokenizedPrompt

ROWS = 32  # of a batch on a CPU, where the LLM takes a few of them at a time
GPU_TOKENS = 16_384  # of a batch on a GPU, padding included: fewer leave it idle
GPU_ROWS = 256  # whose images are encoded at a time
WINDOW = 8_192  # items that are sorted by length; their prompts are held in memory


def laid_out(builder: PromptBuilder, items: Sequence[Item]) -> dict[int, TokenizedPrompt]:
    """Build the prompts of items whose images can all be read: identity of the item → prompt; none where there is nothing to read."""
    found = {}
    for item in items:
        image = builder.variant.image and bool(item.image)
        if image or (builder.variant.text and item.has_text):
            found[id(item)] = builder(item, image=image)
    return found


def batches_of(lengths: Sequence[tuple[bool, int]], batch_size: int | None, device: str) -> list[list[int]]:
    """Divide rows into batches, shorter ones first: lists of their numbers.

    Args:
        lengths: of each row, whether it has an image, and its tokens. Rows with images stand behind the others.
        batch_size: rows of each batch; None: 32, and on a GPU as many as `GPU_TOKENS` hold.
        device: the type of the device.
    """
    order = sorted(range(len(lengths)), key=lambda n: lengths[n])
    sizes = [batch_size or ROWS] * len(order)
    if batch_size is None and device != "cpu":
        sizes = []
        for image in (False, True):
            sizes += group_sizes([lengths[n][1] for n in order if lengths[n][0] is image], GPU_TOKENS, GPU_ROWS)
    batches, start = [], 0
    for size in sizes:
        if some := order[start : start + size]:
            batches.append(some)
        start += size
    return batches


def group_sizes(lengths: list[int], max_tokens: int, max_rows: int) -> list[int]:
    """Split rows of ascending lengths into groups of at most `max_tokens` each, padding included, and `max_rows`: the groups' sizes."""
    sizes = [0]
    for length in lengths:
        if sizes[-1] and ((sizes[-1] + 1) * length > max_tokens or sizes[-1] == max_rows):
            sizes.append(0)
        sizes[-1] += 1
    return sizes
