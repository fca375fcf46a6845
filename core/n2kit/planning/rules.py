"""The rules that accept or refuse a combination: arithmetic on cards, no torch. A refusal names both sides, the numbers, a fix."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from n2kit.errors import Mismatch, counted
from n2kit.planning.plan import SUFFIX_TOKENS, Plan
from n2kit.plugins.manager import OWN
from n2kit.plugins.weights import sets_of_weights
from n2kit.recipe.prompt_templates import load_template
from n2kit.recipe.tuning import Tune
from n2kit.recipe.variants import WHITENED


def apply(plan: Plan, requested: Collection[str]) -> None:
    """Add to a plan the refusals of all rules, and notes for its user."""
    for rule in RULES:
        plan.refusals.extend(rule(plan))
    plan.refusals.extend(_ignored_fusion(plan, requested))
    plan.notes.extend(_notes(plan, requested))


def embeds(plan: Plan) -> Iterator[Mismatch]:
    """Refuse an LLM that reads ids alone: visual tokens and special words have only embeddings."""
    if not plan.llm.embeds:
        yield Mismatch(
            f"{plan.name('llm')} reads token ids alone (no gradient through embeddings), and n2kit joins embeddings",
            "another language model; n2kit ls llm",
        )


def causal(plan: Plan) -> Iterator[Mismatch]:
    """Refuse a variant with two compressed words with an LLM that is not causal: the first would see what stands behind it."""
    if (plan.variant.micl or plan.variant.residual) and not plan.llm.causal:
        other = "late_whitened" if plan.variant.residual else "late_early_fusion" if plan.variant.late else "basic"
        yield Mismatch(
            f"variant {plan.recipe.variant} needs a causal LLM, and {plan.name('llm')} reads both ways",
            f"--variant {other}, or a causal language model",
        )


def pooled(plan: Plan) -> Iterator[Mismatch]:
    """Refuse a fusion of one pooled vector with an encoder that has none."""
    if plan.fusion is None or plan.vision is None or plan.vision.pooled_width:
        return
    if plan.fusion.pooled:
        early = {"notellm2": "micl", "late_early_fusion": "basic"}.get(plan.recipe.variant)
        owner = "vision" if "vision" in plan.components else "mllm"
        pool = f", or --set {owner}.pool=mean" if hasattr(plan.components[owner].config(), "pool") else ""
        yield Mismatch(
            f"{plan.name('fusion')} reads a pooled image vector, and {plan.name('vision')} gives "
            f"{plan.vision.tokens} tokens and none",
            "--fusion cross-attention" + (f", or --variant {early}" if early else "") + pool,
        )


def tokens(plan: Plan) -> Iterator[Mismatch]:
    """Refuse prompts whose longest row does not fit the LLM's context, and an image that takes an embedder's whole row."""
    context, most = plan.llm.context, plan.llm.max_tokens
    if most is not None and plan.image_tokens >= most:  # how many its words take, the tokenizer alone knows
        fewer = f"--connector qformer:{max(1, min(16, most - SUFFIX_TOKENS))} or fewer, or "
        yield Mismatch(
            f"an image takes {plan.image_tokens} tokens, and a row of {plan.name('llm')} has {most}",
            f"{fewer if 'connector' in plan.components else ''}a language model of longer rows",
        )
        return
    if plan.longest <= context:
        return
    room = context - plan.longest + plan.recipe.prompt.body_tokens
    fewer = f"--connector qformer:{max(1, context - plan.longest + plan.image_tokens)} or fewer"
    yield Mismatch(
        f"a row may take {plan.longest} tokens ({plan.image_tokens} of them an image), and {plan.name('llm')} reads {context}",
        f"--set prompt.body_tokens={room}" if room >= 64 else f"{fewer}, or a smaller prompt.body_tokens",
    )


def attention(plan: Plan) -> Iterator[Mismatch]:
    """Refuse an attention implementation that the model does not have."""
    owner = "mllm" if plan.recipe.mllm else "llm"
    wanted, offered = getattr(plan.recipe, owner).options.get("attention"), plan.llm.attention
    if wanted is not None and wanted not in offered:
        offer = f"has {' and '.join(offered)}" if offered else "has no attention to choose"
        yield Mismatch(
            f"attention {wanted} was asked for, and {plan.name('llm')} {offer}", f"leave {owner}.attention out"
        )


def fusion_of_variant(plan: Plan) -> Iterator[Mismatch]:
    """Refuse a variant with late fusion where no fusion is chosen."""
    if plan.variant.late and plan.recipe.fusion.name == "none":
        same = {"notellm2": "micl", "late_early_fusion": "basic"}.get(plan.recipe.variant, "text_only")
        yield Mismatch(
            f"variant {plan.recipe.variant} is late fusion, and fusion none was asked for",
            f"--variant {same}, or --fusion gate",
        )


def whitened_of_variant(plan: Plan) -> Iterator[Mismatch]:
    """Refuse the whitened variants with another fusion."""
    if plan.variant.defaults == WHITENED and plan.recipe.fusion.name != "whitened":
        yield Mismatch(
            f"variant {plan.recipe.variant} is fusion whitened, and fusion {plan.recipe.fusion.name} was asked for",
            "--variant only_late_fusion, or leave the fusion out",
        )


def generation(plan: Plan) -> Iterator[Mismatch]:
    """Refuse a loss that generates answers with an LLM that cannot, or a prompt template without their wording.

    The LLM must be causal as well: otherwise the vector would see the answer.
    """
    if not plan.generates:
        return
    loss, other = plan.recipe.loss.name, "--loss notellm2"
    if plan.variant.residual:
        what = (
            f"loss {loss} has answers generated, and in variant {plan.recipe.variant} the image stands where they would"
        )
        yield Mismatch(what, f"--variant late_whitened, or {other}")
    if not plan.llm.causal:
        what = f"{plan.name('llm')} reads both ways: the vector would see the answer"
        yield Mismatch(f"loss {loss} has answers generated, and {what}", f"a causal language model, or {other}")
    elif "llm" not in plan.components or not plan.components["llm"].has_capability("logits"):
        what = f"{plan.name('llm')} keeps no output head"
        yield Mismatch(f"loss {loss} has answers generated, and {what}", f"another --llm (n2kit ls llm), or {other}")
    template = load_template(plan.recipe.prompt.template)
    if not (template.category_task and template.topics_task and template.answer):
        name = plan.recipe.prompt.template
        what = f"prompt template {name} has no category_task, topics_task and answer"
        yield Mismatch(f"loss {loss} has answers generated, and {what}", f"add them (docs/prompts.md), or {other}")


def licence(plan: Plan) -> Iterator[Mismatch]:
    """Refuse weights under other licences than the list that the user allows, if there is one."""
    allowed = plan.recipe.licences
    if allowed is None:
        return
    for row in plan.rows:
        if row.weights != "random" and (row.licence or "unknown") not in allowed:
            yield Mismatch(
                f"{row.part} {row.name} is under licence {row.licence or 'unknown'}, and licences allows {', '.join(allowed)}",
                "other weights, or add the licence to `licences`",
            )


def tuning(plan: Plan) -> Iterator[Mismatch]:
    """Refuse to tune blocks of a backbone that names none. (A multimodal LLM's tower is checked when it is loaded.)"""
    decay = plan.recipe.train.layer_decay
    for kind in ("llm", "vision"):
        card, choice = getattr(plan, kind), getattr(plan.recipe, kind)
        tune = Tune.parse(choice.tune)
        if card is None or tune.mode == "frozen" or (tune.mode == "full" and decay == 1):
            continue
        component = plan.components.get(kind)
        if component is not None and "blocks" not in component.registered.spec.capabilities:
            setting = f"train.layer_decay {decay:g}" if tune.mode == "full" else f"{kind}.tune {tune}"
            plain = "--set train.layer_decay=1" if tune.mode == "full" else f"--tune {kind}=full or {kind}=frozen"
            yield Mismatch(f"{setting} works on blocks, and {plan.name(kind)} names none of its own", plain)
        elif tune.mode == "last" and kind == "llm" and tune.number > card.layers:
            yield Mismatch(
                f"llm.tune {tune} asks for {counted(tune.number, 'block')}, and {plan.name('llm')} has {card.layers}",
                f"--tune llm=last:{card.layers} or fewer, or llm=full",
            )


def widths(plan: Plan) -> Iterator[Mismatch]:
    """Refuse nested widths of a loss that are larger than the vectors."""
    width = plan.recipe.head.width or plan.joined_width
    wide = [w for w in getattr(plan.components["loss"].config(), "widths", None) or [] if w > width]
    if wide:
        yield Mismatch(
            f"loss {plan.recipe.loss.name} trains the first {wide[0]} numbers of a vector, and vectors have {width}",
            f"loss.widths up to {width}, or --set head.width={wide[0]}",
        )


RULES: tuple[Callable[[Plan], Iterator[Mismatch]], ...] = (
    embeds, causal, pooled, tokens, attention, fusion_of_variant, whitened_of_variant, generation, licence, widths, tuning,
)  # fmt: skip


def _ignored_fusion(plan: Plan, requested: Collection[str]) -> Iterator[Mismatch]:
    recipe = plan.recipe
    if "fusion.name" in requested and not plan.variant.late and recipe.fusion.name != "none":
        better = {"basic": "late_early_fusion", "micl": "notellm2"}.get(recipe.variant, "notellm2")
        yield Mismatch(
            f"variant {recipe.variant} has no late fusion, and fusion {recipe.fusion.name} was asked for",
            f"--variant {better}, or --fusion none",
        )


def _notes(plan: Plan, requested: Collection[str]) -> Iterator[str]:
    recipe, variant = plan.recipe, plan.variant
    yield from _weights_twice(plan)
    for kind, used in (("vision", variant.image), ("connector", variant.early)):
        if f"{kind}.name" in requested and not used:
            yield f"variant {recipe.variant} has no {kind}: {getattr(recipe, kind).name} is left out"
        if f"{kind}.tune" in requested and not used:
            yield f"variant {recipe.variant} has no {kind}: {kind}.tune {getattr(recipe, kind).tune} is left out"
    if recipe.mllm is not None:
        left = [k for k in ("llm", "vision", "connector") if f"{k}.name" in requested]
        if left:
            yield f"mllm {recipe.mllm.name} brings its own {', '.join(left)}: what was named is left out"
    for kind, card in (("llm", plan.llm), ("vision", plan.vision)):
        if card is not None and getattr(recipe, kind).tune.startswith(("last", "lora", "qlora")):
            yield f"how many parameters {kind}.tune {getattr(recipe, kind).tune} trains is an estimate here; n2kit build counts them"
    if plan.connector is not None and recipe.connector.tune == "frozen" and recipe.mllm is None:
        yield f"connector {recipe.connector.name} starts at random, and connector.tune frozen keeps it there"
    if plan.vision is not None:
        owner = plan.components.get("vision", plan.components.get("mllm"))
        if owner is not None and getattr(owner.config(), "fit", None) == "crop":
            fix = f"--set {owner.kind}.fit=pad"
            yield f"pictures that are not square lose their ends (centre crop); {fix} keeps them whole"
    if plan.generates and not plan.refusals:
        size = plan.llm.vocab * plan.llm.output_width
        yield f"the llm keeps its output head: {size:,} parameters more, unless its checkpoint shares them with the input table"
        if recipe.llm.tune == "frozen":
            yield f"llm.tune frozen: the answers of loss {recipe.loss.name} train the word <TEXT_EMB> and nothing else"
    inner = recipe.loss.options.get("of", "notellm2") if recipe.loss.name == "matryoshka" else recipe.loss.name
    if variant.micl and plan.components["loss"].registered.distribution == OWN and inner not in ("notellm", "notellm2"):
        yield f"loss {inner} does not train the visual view of variant {recipe.variant}; notellm2 does"


def _weights_twice(plan: Plan) -> Iterator[str]:
    """Say which of several sets of weights in a folder is read."""
    for kind, component in plan.components.items():
        if component.weights.scheme == "file":
            first, *others = sets_of_weights(Path(component.weights.location).expanduser()) or [""]
            if first.endswith(".safetensors") and others:
                yield f"{kind} {component.weights} holds several sets of weights: {first} is read, not {' or '.join(others)}"
