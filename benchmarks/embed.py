"""Embedding against sentence-transformers and transformers, on the same weights: `python benchmarks/embed.py --llm FOLDER --vision FOLDER`.

Both in float32, each at its default, the same tokens. CPU seconds are of the process, threads of torch and tokenizer included.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scaling import flops

import n2kit
from n2kit.data.item import Item
from n2kit.embed import encode
from n2kit.inputs.reader import iter_pixels
from n2kit.utils.contexts import eval_mode

WORDS = [
    "oak",
    "chair",
    "lamp",
    "glass",
    "desk",
    "red",
    "round",
    "small",
    "vintage",
    "kitchen",
    "steel",
    "garden",
    "light",
    "wood",
]


def texts(count: int, words: int) -> list[str]:
    """Make texts of `words` words, a half more or less."""
    rng = np.random.default_rng(words)
    sizes = rng.integers(words // 2, words * 3 // 2 + 1, count)
    return [" ".join(rng.choice(WORDS, size)) for size in sizes]


def embedder(weights: Path, folder: Path) -> Any:
    """Make an embedder of sentence-transformers out of a decoder: the state of the last token, normalised."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    base = Transformer(str(without_chat(weights, folder.with_name("plain"))), model_kwargs={"dtype": torch.float32})
    if base.tokenizer.pad_token is None:
        base.tokenizer.pad_token = base.tokenizer.eos_token
    pooling = Pooling(base.get_embedding_dimension(), pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[base, pooling, Normalize()], device="cpu")
    model.save(str(folder), create_model_card=False)
    return model


def without_chat(weights: Path, folder: Path) -> Path:
    """Link a folder of weights without the chat's template, in which sentence-transformers would wrap every text."""
    folder.mkdir()
    for file in weights.iterdir():
        if file.name == "tokenizer_config.json":
            content = json.loads(file.read_text("utf8"))
            content.pop("chat_template", None)
            (folder / file.name).write_text(json.dumps(content), encoding="utf8")
        elif file.name != "chat_template.jinja":
            (folder / file.name).symlink_to(file.resolve())
    return folder


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what it gives, its seconds and its CPU seconds."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    found = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found, time.perf_counter() - begun, used


def ceiling(side: int) -> float:
    """FLOPs of a square product a CPU second, the best of several."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / min(timed(lambda: a @ b)[2] for _ in range(6))


def compare(name: str, theirs: Callable[[], Any], ours: Callable[[], Any], needed: float, most: float) -> None:
    """Print a row; `needed`: FLOPs without padding, `most`: FLOPs a CPU second that the machine can do."""
    arms: tuple[tuple[float, float], ...] = ()
    vectors = []
    for work in (theirs, ours):
        found, wall, used = timed(work)
        vectors.append(np.asarray(found) / np.linalg.norm(found, axis=1, keepdims=True))
        arms += ((wall, used),)
    cosine = (vectors[0] * vectors[1]).sum(1).min()
    (their_wall, their_cpu), (wall, used) = arms
    times = f"{their_cpu / used:.2f}"
    share = f"{needed / used / most:.0%}"
    print(
        f"| {name} | {their_wall:.1f} | {their_cpu:.1f} | {wall:.1f} | {used:.1f} | {times} | {share} | {cosine:.6f} |",
        flush=True,
    )


def text_rows(weights: Path, counts: dict[int, int], most: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reference = embedder(weights, Path(folder, "st"))
        settings = {"head.width": None, "prompt.body_tokens": 400, "prompt.template": "plain"}
        model = n2kit.build(f"file:{folder}/st", variant="text_only", settings=settings)
        for words, count in counts.items():
            some = texts(count, words)
            tokens = sum(len(ids) for ids in reference.tokenizer(some)["input_ids"])
            llm = reference[0].auto_model
            weights_used = sum(m.weight.numel() for m in llm.modules() if isinstance(m, torch.nn.Linear))
            items = [Item(f"{n}", content=text) for n, text in enumerate(some)]
            encode(model, items[:2], precision="fp32")
            reference.encode(some[:2])
            compare(
                f"{count} texts of {tokens / count:.0f} tokens",
                lambda some=some: reference.encode(some, normalize_embeddings=True),  # type: ignore[misc]
                lambda items=items: encode(model, items, precision="fp32").vectors,  # type: ignore[misc]
                2 * weights_used * tokens, most,
            )  # fmt: skip


def vision_row(weights: Path, images: Path, count: int, most: float) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    names = sorted(f.name for f in images.iterdir())[:count]
    processor = AutoImageProcessor.from_pretrained(weights)
    theirs = AutoModel.from_pretrained(weights, dtype=torch.float32).eval()
    settings = {"vision.dtype": "float32"}
    part = n2kit.build("qwen:tiny", vision=f"file:{weights}", connector="mlp:4", settings=settings).vision
    assert part is not None

    def loop() -> np.ndarray:
        found = []
        for at in range(0, len(names), 32):
            pictures = [Image.open(images / name).convert("RGB") for name in names[at : at + 32]]
            with torch.no_grad():
                out = theirs(**processor(images=pictures, return_tensors="pt"))
            found.append(out.last_hidden_state[:, 0].numpy())
        return np.concatenate(found)

    def ours() -> np.ndarray:
        pixels = torch.stack([p for _, p in iter_pixels([Item(n, image=n) for n in names], part, images)])
        with torch.no_grad(), eval_mode(part):
            return part(pixels).tokens[:, 0].numpy()

    side = part.card.image_size
    with torch.no_grad():
        needed = count * flops(lambda: part(torch.zeros(1, 3, side, side)))
    compare(f"{count} images at {side} px, against transformers", loop, ours, needed, most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llm", type=Path, required=True, help="a folder of a decoder's weights")
    parser.add_argument("--vision", type=Path, help="a folder of an image tower's weights")
    parser.add_argument(
        "--images", type=Path, help="square ones: of others a checkpoint's own processor may cut the edges"
    )
    parser.add_argument("--short", type=int, default=96, help="short texts")
    parser.add_argument("--long", type=int, default=24, help="long texts")
    parser.add_argument("--count", type=int, default=24, help="images")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    most = ceiling(1024)
    print(f"matrix product: {most / 1e9:.0f} GFLOP a CPU second\n")
    print("| what | theirs, s | CPU s | n2kit, s | CPU s | times, by CPU | share of the ceiling | least cosine |")
    print("|---|---|---|---|---|---|---|---|")
    text_rows(options.llm, {12: options.short, 110: options.long}, most)
    if options.vision and options.images:
        vision_row(options.vision, options.images, options.count, most)


if __name__ == "__main__":
    main()
