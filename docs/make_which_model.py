"""Write the tables of docs/which-model.md from the catalogue and the plan: `python docs/make_which_model.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from n2kit.planning.memory import GB, estimate
from n2kit.planning.planner import make_plan
from n2kit.planning.suggest import PAIRS, TFLOPS, seconds, suggest
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.settings import resolve
from n2kit.utils.durations import duration

PAGE = Path(__file__).with_name("which-model.md")
LANGUAGES = {  # as the authors' model cards say; a preset's own entry comes first
    "qwen": "100 and more", "qwen:2.5-0.5b": "29 and more", "qwen:2.5-1.5b": "29 and more", "qwen:2.5-3b": "29 and more",
    "qwen:2.5-7b": "29 and more", "llama": "8", "llama:2-7b": "English", "llama:tinyllama": "English", "smollm2": "English",
    "mistral": "English, some others", "gemma": "English, some others", "gemma:embedding-300m": "100 and more",
    "phi": "English, some others",
    "phi:4-mini": "23", "phi:2": "English", "olmo": "English", "granite": "12", "opt": "English", "pythia": "English", "gpt2": "English",
    "mamba": "English", "falcon": "English, French", "bloom": "46", "smollm3": "6", "glm": "Chinese, English, some others", "lfm2": "8",
    "bert": "English", "bert:multilingual": "104", "bert:xlm-roberta-base": "100",
}  # fmt: skip
VISION = "siglip:base-224"
LORA = {"train.grad_cache": 8, "llm.tune": "lora:16"}


def main() -> None:
    """Write each table between its marks."""
    PAGE.write_text(page(PAGE.read_text("utf8")), "utf8")


def page(text: str) -> str:
    """Return the page with its tables made anew."""
    for name, rows in {"memory": by_memory(), "llm": language_models(), "vision": vision_encoders()}.items():
        before, mark, rest = text.partition(f"<!-- made: {name} -->\n")
        text = before + mark + "".join(f"{row}\n" for row in rows) + "<!-- end -->" + rest.partition("<!-- end -->")[2]
    return text


def by_memory() -> Iterator[str]:
    """Yield, for some sizes of devices, the largest language model of permissive licence that can be trained in each way."""
    yield "| GPU memory | trained in full | LoRA | QLoRA |"
    yield "|---|---|---|---|"
    for size in (8, 12, 16, 24, 48, 80):
        cells = [f"{size} GB"]
        for tune in ("full", "lora:16", "qlora:16"):
            allowed = {"licences": ["apache-2.0", "mit"], "vision": VISION}
            found = [one for one in suggest(size * GB, {**allowed, "llm.tune": tune}) if f"llm={tune}" in one.flags]
            cells.append(f"`{_llm(found[0])}`, {found[0].memory / GB:.0f} GB" if found else "–")
        yield f"| {' | '.join(cells)} |"


def language_models() -> Iterator[str]:
    """Yield a row for each preset of a language model in the catalogue, by size."""
    yield f"| `--llm` | parameters | languages | licence | fit, embed, GB | LoRA, GB | full, GB | LoRA, {PAIRS:,} pairs |"
    yield "|---|---|---|---|---|---|---|---|"
    rows = []
    for name, preset, weights in _presets("llm"):
        variant = "notellm2" if weights.card.causal else "late_early_fusion"
        fit = _plan(f"{name}:{preset}", variant="late_whitened", **{"llm.tune": "frozen"})
        lora, full = (_plan(f"{name}:{preset}", variant=variant, **{"llm.tune": t}) for t in ("lora:16", "full"))
        languages = LANGUAGES.get(f"{name}:{preset}") or LANGUAGES[name]
        sizes = " | ".join(f"{estimate(plan).total / GB:.1f}" for plan in (fit, lora, full))
        time = duration(seconds(lora, PAIRS, TFLOPS))
        size = weights.card.parameters
        rows.append(
            (size, f"| `{name}:{preset}` | {size / 1e9:.2f} B | {languages} | {weights.licence} | {sizes} | {time} |")
        )
    yield from (row for _, row in sorted(rows))


def vision_encoders() -> Iterator[str]:
    """Yield a row for each preset of a vision encoder in the catalogue, by size."""
    yield "| `--vision` | parameters | pixels | tokens | licence |"
    yield "|---|---|---|---|---|"
    rows = [
        (
            card.parameters,
            f"| `{name}:{preset}` | {card.parameters / 1e6:.0f} M | {card.image_size} | {card.tokens} | {weights.licence} |",
        )
        for name, preset, weights in _presets("vision")
        for card in [weights.card]
    ]
    yield from (row for _, row in sorted(rows))


def _presets(kind: Any) -> Iterator[tuple[str, str, Any]]:
    catalogue = default_catalogue()
    for name in catalogue.aliases[kind]:
        for preset, weights in catalogue.presets(kind, name).items():
            if weights.weights != "random" and weights.card is not None:
                yield name, preset, weights


def _plan(llm: str, **settings: Any) -> Any:
    resolved = resolve({"vision": VISION, **LORA, **settings, "llm": llm}, env={})
    return make_plan(resolved.recipe, requested=resolved.origin)


def _llm(suggestion: Any) -> str:
    return suggestion.plan.components["llm"].reference


if __name__ == "__main__":
    main()
