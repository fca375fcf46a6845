"""One resolved component: what a reference such as `siglip:base-224` stands for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from n2kit.contract.cards import CARDS, Card, Kind
from n2kit.errors import BadInput, N2kitError, Unavailable
from n2kit.plugins.manager import OWN, RegisteredComponent, load_target, require
from n2kit.plugins.weights import WeightsUri

CARD_FILES = ["config.json", "preprocessor_config.json"]  # what a card may read, without the weights


@dataclass(frozen=True)
class Component:
    """A resolved choice: which class, with which options, from which weights."""

    kind: Kind
    reference: str  # canonical; pasting it back gives the same component
    registered: RegisteredComponent
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: WeightsUri = field(default_factory=lambda: WeightsUri("random"))
    declared: Card | None = None
    licence: str | None = None

    def config(self) -> Any:
        """The component's options, validated.

        Raises:
            BadInput: an option that the component does not have, or a value that it does not take.
        """
        from pydantic import ValidationError

        try:
            return self.load(self.registered.spec.config).model_validate(dict(self.options))
        except ValidationError as error:
            what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise BadInput(
                f"{self.kind} {self.reference}: {what}", f"n2kit ls {self.kind} --json lists options"
            ) from None

    def has_capability(self, capability: str) -> bool:
        """Whether its spec declares a capability; one around another component (`config().inner()`) can what that one can."""
        inner = getattr(self.config(), "inner", None)
        return capability in self.registered.spec.capabilities or (
            callable(inner) and inner().has_capability(capability)
        )

    def load(self, target: str) -> Any:
        return load_target(target, owner=self.registered.distribution)

    def cls(self) -> Any:
        """The component's class; imports what it needs."""
        require(self.registered.spec, self.registered.distribution)
        return self.load(self.registered.spec.target)

    def card(self) -> Card:
        """Facts for the plan: what the catalogue or the plug-in declares, else what the weights' own configuration says."""
        if self.declared is not None:
            return self.declared
        if self.registered.spec.card is None:
            raise Unavailable(f"{self.kind} {self.reference} declares no card", "its plug-in must name one in its spec")
        read = self.load(self.registered.spec.card)
        with self.attribute_errors():
            card = read(self.config(), lambda: self.weights.locate(CARD_FILES))
        if not isinstance(card, CARDS[self.kind]):
            raise Unavailable(
                f"{self.kind} {self.reference}: its card is {card!r:.40}",
                f"n2kit plugins check {self.registered.distribution}",
            )
        return card  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def attribute_errors(self) -> Iterator[None]:
        """What the plug-in raises is the plug-in's, or the checkpoint's: said so, and no bug of n2kit.

        Raises:
            Unavailable: a third party's code failed. BadInput: ours could not understand a checkpoint's files.
        """
        try:
            yield
        except N2kitError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            if self.registered.distribution != OWN:
                where = f"{self.kind} {self.reference} of {self.registered.distribution}"
                raise Unavailable(
                    f"{where}: {reason}", f"n2kit plugins check {self.registered.distribution}"
                ) from error
            if self.weights.scheme != "random":
                raise BadInput(f"{self.weights}: not understood: {reason}", "check its config.json") from error
            raise
