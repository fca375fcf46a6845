"""A resolved component: the class, options and weights behind a reference such as `siglip:base-224`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from n2kit.contract.card_types import card_problems
from n2kit.contract.cards import Card
from n2kit.contract.kinds import CARDS, Kind
from n2kit.errors import BadInput, N2kitError, Unavailable, suggest
from n2kit.plugins.authors import advice
from n2kit.plugins.blame import blame, lacks_memory
from n2kit.plugins.manager import OWN, RegisteredComponent, load_target, require
from n2kit.plugins.weights import WeightsUri

# What a card may read, without the weights: the last six of text embedders.
CARD_FILES = [
    "config.json", "preprocessor_config.json", "processor_config.json",
    "modules.json", "config_sentence_transformers.json", "*_Pooling/config.json", "*_Dense/config.json",
    "sentence_bert_config.json", "tokenizer_config.json",
]  # fmt: skip


@dataclass(frozen=True)
class Component:
    """A resolved choice: a class, its options, and its weights."""

    kind: Kind
    reference: str  # canonical; pasting it back gives the same component
    registered: RegisteredComponent
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: WeightsUri = field(default_factory=lambda: WeightsUri("random"))
    declared: Card | None = None
    licence: str | None = None
    template: str | None = None  # the prompt template that an embedding model was trained on

    def config(self) -> Any:
        """Validate the component's options and return them as its pydantic model.

        Raises:
            BadInput: an option that the component does not have, or a value that it does not take.
        """
        from pydantic import ValidationError

        model = self.load(self.registered.spec.config)
        try:
            with self.attribute_errors(ValidationError):
                config = model.model_validate(dict(self.options))
        except ValidationError as error:
            wrong = [(".".join(map(str, e["loc"])), e["type"] == "extra_forbidden", e["msg"]) for e in error.errors()]
        else:
            # A model that ignores what it does not know would take a misspelt option in silence.
            wrong = [] if model.model_config.get("extra") == "allow" else [(n, True, "") for n in self._unread(model)]
            if not wrong:
                return config
        what = "; ".join(f"{name}: {'no such option' if unknown else why}" for name, unknown, why in wrong)
        meant = next((suggest(name, model.model_fields) for name, unknown, _ in wrong if unknown), None)
        name = self.reference.partition(":")[0]
        raise BadInput(f"{self.kind} {self.reference}: {what}", meant or f"n2kit ls {name} lists its options")

    def _unread(self, model: Any) -> list[str]:
        """List the given options that are no field of `model`, by name or alias."""
        known = {*model.model_fields, *(field.alias for field in model.model_fields.values())}
        return [name for name in self.options if name not in known]

    def has_capability(self, capability: str) -> bool:
        """Tell whether the component declares a capability.

        One that wraps another component (`config().inner()`, as `matryoshka` does) has that one's capabilities too.
        """
        inner = getattr(self.config(), "inner", None)
        return capability in self.registered.spec.capabilities or (
            callable(inner) and inner().has_capability(capability)
        )

    def load(self, target: str) -> Any:
        return load_target(target, owner=self.registered.distribution)

    def cls(self) -> Any:
        """Import the component's class, after a check of the packages that it requires."""
        require(self.registered.spec, self.registered.distribution)
        return self.load(self.registered.spec.target)

    def card(self) -> Card:
        """Return the facts that a plan reads: the declared card, else what the weights' own configuration says."""
        if self.declared is not None:
            return self.declared
        if self.registered.spec.card is None:
            raise Unavailable(f"{self.kind} {self.reference} declares no card", "its plug-in must name one in its spec")
        return self.computed_card(CARDS[self.kind], lambda: self.weights.locate(CARD_FILES))  # type: ignore[no-any-return]

    def computed_card(self, expected: type, *inputs: Any) -> Any:
        """Call the spec's card function with the options and `inputs`.

        Raises:
            Unavailable: it fails, or gives no card of the class `expected`, or one with facts of another type.
        """
        read, config = self.load(self.registered.spec.card or ""), self.config()
        with self.attribute_errors():
            card = read(config, *inputs)
        if not isinstance(card, expected):
            raise self.fault(f"its card is {card!r:.40}, not {expected.__name__}")
        if problems := card_problems(card):
            raise self.fault(f"its card: {problems[0]}")
        return card

    @contextlib.contextmanager
    def attribute_errors(self, *but: type[Exception]) -> Iterator[None]:
        """Report what the plug-in's code raises as an error of the plug-in or the checkpoint, not as a bug of n2kit.

        Args:
            but: exceptions that are left as they are.

        Raises:
            Unavailable: a third party's code failed. BadInput: ours could not understand a checkpoint's files.
        """
        try:
            yield
        except (N2kitError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, but) or lacks_memory(error):
                raise
            if (found := blame(error, f"{self.kind} {self.reference}")) is not None:
                raise found from error
            if not isinstance(error, Exception):
                raise
            reason, owner = f"{type(error).__name__}: {error}".partition("\n")[0], self.registered
            if owner.distribution != OWN:  # not even called: an argument that it does not take
                raise self.fault(reason) from error
            if self.weights.scheme != "random":
                raise BadInput(f"{self.weights}: not understood: {reason}", "check its config.json") from error
            raise

    def fault(self, what: str) -> Unavailable:
        """Make the error that says a fault of the component's code."""
        owner = self.registered
        where = f"{self.kind} {self.reference} of {owner.distribution} {owner.version}"
        return Unavailable(f"{where}: {what}", advice(owner.distribution))

    def make(self, **cards: Any) -> Any:
        """Create the part of a connector, fusion or loss from the options and the cards of the backbones that it joins."""
        cls, config = self.cls(), self.config()
        with self.attribute_errors():
            return cls(config, **cards)

    def create(self, spec: Any) -> Any:
        """Create a backbone from a `LoadSpec`."""
        cls = self.cls()
        with self.attribute_errors():
            return cls.create(spec)
