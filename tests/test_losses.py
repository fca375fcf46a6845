"""The losses against their written definition, in plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput, Mismatch
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.manager import manager
from n2kit.train.pairs import PairExtras

ALL = [o.spec.name for o in manager().components("loss")]
B = 4
PARTNER = [(i + B) % (2 * B) for i in range(2 * B)]
Pair = tuple[int, int]
NONE: frozenset[Pair] = frozenset()


def loss(name: str, **options: Any) -> Any:
    component = default_catalogue().resolve("loss", name)
    return component.cls()(component.load(component.registered.spec.config)(**options))


def cosine(x: torch.Tensor, i: int, j: int) -> torch.Tensor:
    return F.normalize(x[i], dim=0) @ F.normalize(x[j], dim=0)


def cross_entropy(
    x: torch.Tensor, anchor: int, candidates: list[int], drop: frozenset[Pair], tau: float, log_q: torch.Tensor
) -> torch.Tensor:
    kept = [j for j in candidates if j != anchor and ((anchor, j) not in drop or j == PARTNER[anchor])]
    logits = {j: cosine(x, anchor, j) * math.exp(tau) - log_q[j] for j in kept}
    return torch.stack(list(logits.values())).logsumexp(0) - logits[PARTNER[anchor]]


def infonce(form: str) -> Callable[..., torch.Tensor]:
    left, right, rows = list(range(B)), list(range(B, 2 * B)), list(range(2 * B))
    sides = {
        "one_tower": [(rows, rows)],
        "one_direction": [(left, right)],
        "symmetric": [(left, right), (right, left)],
    }[form]

    def by_hand(
        x: torch.Tensor, drop: frozenset[Pair] = NONE, tau: float = 3.0, log_q: torch.Tensor | None = None
    ) -> torch.Tensor:
        q = torch.zeros(len(x)) if log_q is None else log_q
        return torch.stack([cross_entropy(x, i, js, drop, tau, q) for anchors, js in sides for i in anchors]).mean()

    return by_hand


def sigmoid(x: torch.Tensor, drop: frozenset[Pair] = NONE) -> torch.Tensor:
    total = torch.zeros(())
    for i in range(B):
        for j in range(B, 2 * B):
            if j == PARTNER[i] or (i, j) not in drop:
                sign = 1 if j == PARTNER[i] else -1
                total = total + (1 + (-sign * (10 * cosine(x, i, j) - 10)).exp()).log()
    return total / B


def triplet(negatives: str) -> Callable[..., torch.Tensor]:
    def by_hand(x: torch.Tensor, drop: frozenset[Pair] = NONE) -> torch.Tensor:
        every = []
        for i in range(2 * B):
            others = [j for j in range(2 * B) if j not in (i, PARTNER[i]) and (i, j) not in drop]
            gaps = [(0.2 + cosine(x, i, j) - cosine(x, i, PARTNER[i])).clamp(min=0) for j in others]
            every += [max(gaps)] if negatives == "hardest" and gaps else gaps
        return torch.stack(every).mean()

    return by_hand


def cosent(in_batch: bool, grades: list[float]) -> Callable[..., torch.Tensor]:
    def by_hand(x: torch.Tensor, drop: frozenset[Pair] = NONE) -> torch.Tensor:
        graded = [(cosine(x, i, PARTNER[i]), grades[i]) for i in range(B)]
        others = [
            (cosine(x, i, j), 0.0)
            for i in range(B)
            for j in range(B, 2 * B)
            if in_batch and j != PARTNER[i] and (i, j) not in drop
        ]
        total = torch.ones(())
        for high, above in graded:
            for low, below in graded + others:
                if above > below:
                    total = total + (20 * (low - high)).exp()
        return total.log()

    return by_hand


GRADES = [0.9, 0.1, 0.5, 0.5]
CASES: dict[str, tuple[str, dict[str, Any], Callable[..., torch.Tensor]]] = {
    "notellm2": ("notellm2", {}, infonce("one_tower")),
    "notellm": ("notellm", {"generation_weight": 0.5}, lambda x, *a: (infonce("one_tower")(x, *a) + 0.5 * 7) / 1.5),
    "infonce": ("infonce", {}, infonce("symmetric")),
    "infonce one_direction": ("infonce", {"form": "one_direction"}, infonce("one_direction")),
    "infonce one_tower": ("infonce", {"form": "one_tower"}, infonce("one_tower")),
    "multi-positive": ("multi-positive", {}, infonce("one_tower")),  # of partners alone
    "sigmoid": ("sigmoid", {}, sigmoid),
    "triplet": ("triplet", {}, triplet("hardest")),
    "triplet all": ("triplet", {"negatives": "all"}, triplet("all")),
    "cosent": ("cosent", {}, cosent(True, GRADES)),
    "cosent graded alone": ("cosent", {"in_batch": False}, cosent(False, GRADES)),
    "matryoshka": ("matryoshka", {"widths": [5], "weights": [0.5]}, lambda x, *a: 0.5 * infonce("one_tower")(x, *a)),
}


def test_every_loss_has_a_definition_here() -> None:
    assert {name for name, _, _ in CASES.values()} == set(ALL)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2 * B, 5, generator=torch.Generator().manual_seed(0))


def facts(of: Any) -> dict[str, torch.Tensor]:
    known = {"grades": torch.tensor(GRADES), "log_q": torch.linspace(-5, -1, 2 * B), "generation": torch.tensor(7.0)}
    return {name: known[name] for name in of.extra_inputs & known.keys()}


@pytest.mark.parametrize("case", CASES)
def test_is_its_definition(x: torch.Tensor, case: str) -> None:
    name, options, by_hand = CASES[case]
    made = loss(name, **options)
    out = made({"multimodal": x}, None, None, **facts(made))
    torch.testing.assert_close(out.loss, by_hand(x))
    assert not any(t.requires_grad for t in out.terms.values())


@pytest.mark.parametrize("case", CASES)
def test_same_items_and_known_positives_are_no_negatives(x: torch.Tensor, case: str) -> None:
    """0 and 5 are excluded from each other, and so are the partners 0 and 4, which stay positives."""
    name, options, by_hand = CASES[case]
    made = loss(name, **options)
    drop = frozenset({(0, 5), (5, 0), (0, 4), (4, 0), (2, 3), (3, 2)})
    exclude = torch.zeros(2 * B, 2 * B, dtype=torch.bool)
    for i, j in drop:
        exclude[i, j] = True
    got = made({"multimodal": x}, None, exclude, **facts(made)).loss
    torch.testing.assert_close(got, by_hand(x, drop))


@pytest.mark.parametrize("case", CASES)
def test_a_batch_without_negatives_is_finite(x: torch.Tensor, case: str) -> None:
    name, options, _ = CASES[case]
    made = loss(name, **options)
    vectors = x.clone().requires_grad_()
    out = made({"multimodal": vectors}, None, torch.ones(2 * B, 2 * B, dtype=torch.bool), **facts(made)).loss
    out.backward()
    assert torch.isfinite(out)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in (vectors, *made.parameters()))


@pytest.mark.parametrize("name", ALL)
def test_learns_from_bfloat16(x: torch.Tensor, name: str) -> None:
    made, vectors = loss(name), x.bfloat16().requires_grad_()
    made({"multimodal": vectors}, None, None, **facts(made)).loss.backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum() > 0


@pytest.mark.parametrize("form", ["one_tower", "one_direction", "symmetric"])
def test_log_q_is_subtracted_from_every_candidate(x: torch.Tensor, form: str) -> None:
    log_q = torch.tensor([0.1, 0.2, 0.05, 0.15, 0.25, 0.05, 0.1, 0.1]).log()
    made = loss("infonce", form=form, log_q=True)
    assert made.extra_inputs == {"log_q", "negatives"}
    got = made({"multimodal": x}, log_q=log_q).loss
    torch.testing.assert_close(got, infonce(form)(x, log_q=log_q))
    uniform = made({"multimodal": x}, log_q=torch.full((8,), -3.0)).loss
    torch.testing.assert_close(uniform, infonce(form)(x))  # the same for all items changes nothing
    assert loss("infonce", form=form).extra_inputs == {"negatives"}


M = 3  # hard negatives
HARD = list(range(2 * B, 2 * B + M))


def with_hard(form: str, x: torch.Tensor, drop: frozenset[Pair], log_q: torch.Tensor) -> torch.Tensor:
    """Every row has the hard negatives among its candidates."""
    left, right, rows = list(range(B)), list(range(B, 2 * B)), list(range(2 * B))
    sides = {
        "one_tower": [(rows, rows)],
        "one_direction": [(left, right)],
        "symmetric": [(left, right), (right, left)],
    }[form]
    return torch.stack(
        [cross_entropy(x, i, [*js, *HARD], drop, 3.0, log_q) for anchors, js in sides for i in anchors]
    ).mean()


@pytest.mark.parametrize("form", ["one_tower", "one_direction", "symmetric"])
def test_hard_negatives_are_candidates_of_every_row(x: torch.Tensor, form: str) -> None:
    """But for those that are known positives of a row: 8 of row 1, 9 of row 6."""
    wide = torch.cat([x, torch.randn(M, 5, generator=torch.Generator().manual_seed(1))])
    drop = frozenset({(1, 8), (8, 1), (6, 9), (9, 6), (2, 3), (3, 2)})
    exclude = torch.zeros(2 * B + M, 2 * B + M, dtype=torch.bool)
    for i, j in drop:
        exclude[i, j] = True
    log_q = torch.linspace(-5, -1, 2 * B + M)
    made = loss("infonce", form=form, log_q=True)
    got = made({"multimodal": wide}, None, exclude, log_q=log_q, negatives=torch.tensor(HARD)).loss
    torch.testing.assert_close(got, with_hard(form, wide, drop, log_q))
    if form == "one_tower":
        both = loss("notellm2", log_q=True, text_weight=3.0, vision_weight=2.0)
        out = both(
            {"multimodal": wide, "visual": wide.flip(1)}, None, exclude, log_q=log_q, negatives=torch.tensor(HARD)
        )
        visual = with_hard(form, wide.flip(1), drop, log_q)
        torch.testing.assert_close(out.loss, (3 * got + 2 * visual) / 5)


def test_a_hard_negative_without_a_picture_is_none_of_the_visual_view(x: torch.Tensor) -> None:
    wide = torch.cat([x, x[:2] + 0.1])
    present = torch.tensor([True] * 9 + [False])
    hard = torch.tensor([8, 9])
    out = loss("notellm2")({"multimodal": wide, "visual": wide}, {"visual": present}, negatives=hard)
    alone = loss("notellm2")({"multimodal": wide[:9]}, negatives=hard[:1])
    torch.testing.assert_close(out.terms["visual"], alone.loss)
    assert out.terms["multimodal"] > out.terms["visual"]


def test_hard_negatives_of_sigmoid_and_triplet(x: torch.Tensor) -> None:
    wide = torch.cat([x, x[:1] + 0.1])
    hard = torch.tensor([2 * B])
    extra = sum((1 + (10 * cosine(wide, i, 2 * B) - 10).exp()).log() for i in range(B)) / B
    torch.testing.assert_close(loss("sigmoid")({"multimodal": wide}, negatives=hard).loss, sigmoid(x) + extra)
    gaps = []
    for i in range(2 * B):
        others = [j for j in range(2 * B + 1) if j not in (i, PARTNER[i])]
        gaps.append(max((0.2 + cosine(wide, i, j) - cosine(wide, i, PARTNER[i])).clamp(min=0) for j in others))
    torch.testing.assert_close(loss("triplet")({"multimodal": wide}, negatives=hard).loss, torch.stack(gaps).mean())


def test_without_hard_negatives_nothing_has_changed(x: torch.Tensor) -> None:
    """Bit for bit, loss and gradient are those of two square matrices of cosines and nothing else."""
    one, two = (x.clone().requires_grad_() for _ in range(2))
    unit = F.normalize(one, dim=-1)
    scale = torch.tensor(3.0).exp()
    square = (unit @ unit.T * scale).masked_fill(torch.eye(2 * B, dtype=torch.bool), -torch.inf)
    plain = F.cross_entropy(square, torch.arange(2 * B).roll(B), reduction="none").sum() / (2 * B)
    got = loss("notellm2")({"multimodal": two}).loss
    plain.backward()
    got.backward()
    assert torch.equal(plain, got)
    assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]
    one, two = (x.clone().requires_grad_() for _ in range(2))
    left, right = F.normalize(one, dim=-1).chunk(2)
    sides = [F.cross_entropy(a @ b.T * scale, torch.arange(B)) for a, b in ((left, right), (right, left))]
    got = loss("infonce")({"multimodal": two}).loss
    sum(sides).div(2).backward()  # type: ignore[union-attr]
    got.backward()
    assert torch.equal(sum(sides) / 2, got)  # type: ignore[arg-type]
    torch.testing.assert_close(one.grad, two.grad, atol=1e-7, rtol=1e-6)


def test_log_q_in_both_views(x: torch.Tensor) -> None:
    log_q = torch.linspace(-5, -1, 8)
    out = loss("notellm2", log_q=True)({"multimodal": x, "visual": x.flip(0)}, log_q=log_q)
    one, two = (infonce("one_tower")(v, log_q=log_q) for v in (x, x.flip(0)))
    torch.testing.assert_close(out.loss, (9 * one + two) / 10)


def test_two_views_are_weighted(x: torch.Tensor) -> None:
    y = x.flip(0) + 0.1
    by_hand = infonce("one_tower")
    out = loss("notellm2", text_weight=3.0, vision_weight=2.0)({"multimodal": x, "visual": y})
    torch.testing.assert_close(out.loss, (3 * by_hand(x) + 2 * by_hand(y)) / 5)
    torch.testing.assert_close(out.terms["visual"], by_hand(y))


def test_items_without_a_visual_view_are_left_out_of_its_term(x: torch.Tensor) -> None:
    present = torch.tensor([True, True, False, True, True, True, True, True])
    out = loss("notellm2")({"multimodal": x, "visual": x}, {"visual": present})
    expected = []
    for i in (0, 1, 3, 4, 5, 7):  # nor is 6, the partner of 2, an anchor
        logits = torch.stack([cosine(x, i, j) for j in range(8) if j not in (i, 2)]) * math.exp(3.0)
        expected.append(torch.logsumexp(logits, 0) - cosine(x, i, PARTNER[i]) * math.exp(3.0))
    torch.testing.assert_close(out.terms["visual"], torch.stack(expected).mean())
    none = loss("notellm2")({"multimodal": x, "visual": x}, {"visual": torch.zeros(8, dtype=torch.bool)})
    torch.testing.assert_close(none.loss, infonce("one_tower")(x))


@pytest.mark.parametrize("name", ["notellm2", "infonce", "sigmoid"])
def test_temperature_learns_and_is_clamped(x: torch.Tensor, name: str) -> None:
    free, clamped = loss(name), loss(name, temperature=9.0)
    free({"multimodal": x}).loss.backward()
    assert free.temperature.grad != 0
    torch.testing.assert_close(clamped.scale, torch.tensor(100.0), check_dtype=False)
    clamped({"multimodal": x}).loss.backward()
    assert clamped.temperature.grad != 0  # it can come back
    assert math.isclose(loss(name, temperature=9.0, max_scale=None).scale.item(), math.exp(9.0), rel_tol=1e-5)


def test_without_grades_cosent_ranks_partners_above_the_rest(x: torch.Tensor) -> None:
    torch.testing.assert_close(loss("cosent")({"multimodal": x}).loss, cosent(True, [1.0] * B)(x))


def test_matryoshka_is_the_weighted_sum_over_widths(x: torch.Tensor) -> None:
    wrapped = loss("matryoshka", options={"text_weight": 1.0, "log_q": True}, widths=[2, 5], weights=[0.5, 2.0])
    assert wrapped.extra_inputs == {"log_q", "negatives"}
    log_q, y = torch.linspace(-5, -1, 8), x.flip(0) + 0.1
    out = wrapped({"multimodal": x, "visual": y}, log_q=log_q)
    by_hand = infonce("one_tower")
    at = {w: (by_hand(x[:, :w], log_q=log_q) + by_hand(y[:, :w], log_q=log_q)) / 2 for w in (2, 5)}
    torch.testing.assert_close(out.loss, 0.5 * at[2] + 2.0 * at[5])
    torch.testing.assert_close(out.terms["loss@2"], at[2])
    torch.testing.assert_close(out.terms["visual"], by_hand(y, log_q=log_q))


def test_matryoshka_halves_the_width_by_default(x: torch.Tensor) -> None:
    wide = torch.cat([x, x.flip(1), x, x[:, :1]], 1)
    out = loss("matryoshka", of="cosent")({"multimodal": wide}, grades=torch.tensor(GRADES))
    torch.testing.assert_close(out.loss, sum(cosent(True, GRADES)(wide[:, :w]) for w in (16, 8, 4, 2)))
    assert {"loss@16", "loss@8", "loss@4", "loss@2", "multimodal"} <= set(out.terms)


def test_matryoshka_around_what_cannot_be(x: torch.Tensor) -> None:
    with pytest.raises(Mismatch, match="first 6 dimensions, and the vectors have 5") as caught:
        loss("matryoshka", widths=[2, 6])({"multimodal": x})
    assert "loss.widths=[2]" in (caught.value.hint or "")
    with pytest.raises(BadInput, match="unknown loss 'infnce'"):
        loss("matryoshka", of="infnce")
    with pytest.raises(BadInput, match="loss infonce: form"):
        loss("matryoshka", of="infonce", options={"form": "backwards"})
    for wrong, what in (({"widths": [2, 2]}, "one twice"), ({"widths": [2], "weights": [1.0, 2.0]}, "2 weights for 1")):
        with pytest.raises(ValueError, match=what):
            loss("matryoshka", **wrong)


def test_several_positives_are_weighted_by_their_grades(x: torch.Tensor) -> None:
    items = ["a", "b", "c", "a", "e", "f", "g", "h"]  # a is in two pairs, and so e and h are partners of both its rows
    pairs = Pairs([("a", "e"), ("b", "f"), ("c", "g"), ("a", "h")], grades={("a", "e"): 0.5, ("c", "g"): 2.0})
    known = PairExtras(pairs)(items)
    grade = {frozenset(pair): pairs.grade(pair) for pair in pairs}
    costs = []
    for i in range(2 * B):
        mine = {p: grade.get(frozenset((items[i], items[p])), 0.0) for p in range(2 * B) if items[p] != items[i]}
        against = [n for n, weight in mine.items() if not weight]
        s = {p: cosine(x, i, p) * math.exp(3.0) for p in mine}
        cost = {p: torch.stack([s[p], *(s[n] for n in against)]).logsumexp(0) - s[p] for p, g in mine.items() if g}
        costs.append(sum(mine[p] * c for p, c in cost.items()) / sum(mine[p] for p in cost))
    out = loss("multi-positive")({"multimodal": x}, None, known["exclude"], positives=known["positives"]).loss
    torch.testing.assert_close(out, torch.stack([torch.as_tensor(c) for c in costs]).mean())
    assert [len(costs), int((known["positives"] > 0).sum())] == [8, 2 * (2 + 2 + 1 + 1)]
