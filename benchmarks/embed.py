"""Embedding against sentence-transformers, transformers and open_clip, on the same weights: `python benchmarks/embed.py --llm FOLDER`.

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


PROMPT = "Represent this product of a catalogue, so that products that are bought together are near each other:\n"


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


def text_rows(weights: Path, counts: dict[int, int], prompt: str, most: float) -> None:
    """Compare on texts that all have the same words before them, or none."""
    with tempfile.TemporaryDirectory() as folder:
        reference = embedder(weights, Path(folder, "st"))
        template = f"plain:{prompt}" if prompt else "plain"
        settings = {"head.width": None, "prompt.body_tokens": 400, "prompt.template": template}
        model = n2kit.build(f"file:{folder}/st", variant="text_only", settings=settings)
        for words, count in counts.items():
            some = texts(count, words)
            read = reference.tokenizer([prompt + text for text in some])["input_ids"]
            items = [Item(f"{n}", content=text) for n, text in enumerate(some)]
            if [model.prompt_builder(item, image=False).ids for item in items] != read:
                raise SystemExit("both sides have to read the same tokens: let the prompt end where a token does")
            tokens, shared = sum(map(len, read)), len(reference.tokenizer(prompt)["input_ids"]) if prompt else 0
            llm = reference[0].auto_model
            weights_used = sum(m.weight.numel() for m in llm.modules() if isinstance(m, torch.nn.Linear))
            encode(model, items[:2], precision="fp32")
            reference.encode(some[:2], prompt=prompt)
            behind = f" behind a prompt of {shared}" if shared else ""
            compare(
                f"{count} texts of {tokens / count - shared:.0f} tokens{behind}",
                lambda some=some: reference.encode(some, prompt=prompt, normalize_embeddings=True),  # type: ignore[misc]
                lambda items=items: encode(model, items, precision="fp32").vectors,  # type: ignore[misc]
                2 * weights_used * (tokens - shared * (count - 1)), most,
            )  # fmt: skip


def transformers_loop(weights: Path) -> Callable[[list[Path]], np.ndarray]:
    """Embed images in batches as transformers' own examples do: the first token's state."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(weights)
    model = AutoModel.from_pretrained(weights, dtype=torch.float32).eval()

    def call(files: list[Path]) -> np.ndarray:
        pictures = [Image.open(file).convert("RGB") for file in files]
        with torch.no_grad():
            return model(**processor(images=pictures, return_tensors="pt")).last_hidden_state[:, 0].numpy()

    return call


def open_clip_loop(architecture: str, part: Any) -> Callable[[list[Path]], np.ndarray]:
    """Embed images in batches as open_clip's own example does, by a part's weights: the projected vector."""
    import open_clip
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(architecture)
    model.visual.load_state_dict(part.visual.state_dict())
    model.eval()

    def call(files: list[Path]) -> np.ndarray:
        pixels = torch.stack([preprocess(Image.open(file).convert("RGB")) for file in files])
        with torch.no_grad():
            return model.encode_image(pixels).numpy()

    return call


def vision_row(
    name: str, vision: str, loop: Callable[[Any], Callable[[list[Path]], np.ndarray]], files: list[Path], most: float
) -> None:
    """Compare a loop over batches of 32 with n2kit's part of the same weights."""
    settings = {"vision.dtype": "float32"} if name == "transformers" else {}  # open_clip's are so
    part = n2kit.build("qwen:tiny", vision=vision, connector="mlp:4", settings=settings).vision
    assert part is not None
    theirs, folder = loop(part), files[0].parent

    def in_batches() -> np.ndarray:
        return np.concatenate([theirs(files[at : at + 32]) for at in range(0, len(files), 32)])

    def ours(some: list[Path] = files) -> np.ndarray:
        pixels = torch.stack([p for _, p in iter_pixels([Item(f.name, image=f.name) for f in some], part, folder)])
        with torch.no_grad(), eval_mode(part):
            out = part(pixels)
        return (out.tokens[:, 0] if name == "transformers" else out.pooled).numpy()

    side = part.card.image_size
    with torch.no_grad():
        needed = len(files) * flops(lambda: part(torch.zeros(1, 3, side, side)))
    theirs(files[:2])
    ours(files[:2])
    compare(f"{len(files)} images at {side} px, against {name}", in_batches, ours, needed, most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llm", type=Path, required=True, help="a folder of a decoder's weights")
    parser.add_argument("--vision", type=Path, help="a folder of an image tower's weights")
    parser.add_argument(
        "--images", type=Path, help="square ones: of others a checkpoint's own processor may cut the edges"
    )
    parser.add_argument("--open-clip", default="ViT-B-32", help="an architecture of open_clip, with random weights")
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
    for prompt in ("", PROMPT):
        text_rows(options.llm, {12: options.short, 110: options.long}, prompt, most)
    files = sorted(options.images.iterdir())[: options.count] if options.images else []
    if options.vision and files:
        vision_row("transformers", f"file:{options.vision}", lambda _: transformers_loop(options.vision), files, most)
    if files:
        name = options.open_clip
        vision_row(
            f"open_clip {name}", f"open_clip:{name}@random", lambda part: open_clip_loop(name, part), files, most
        )


if __name__ == "__main__":
    main()
