"""Laws of losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from n2kit.testing.laws import law
from n2kit.testing.under_test import LossUnderTest, draw


def _loss(under_test: LossUnderTest, view: Tensor, exclude: Tensor | None = None) -> Tensor:
    options = under_test.options(len(view) // 2)
    out: Tensor = under_test.part({"multimodal": view}, None, exclude, **options).loss
    return out


@law("loss")
def is_one_finite_number(under_test: LossUnderTest) -> None:
    """`loss` is a finite scalar with a gradient for the views; `terms` are detached scalars."""
    view = under_test.inputs()[0]["multimodal"].clone().requires_grad_()
    out = under_test.part({"multimodal": view}, **under_test.options())
    assert out.loss.ndim == 0, f"the loss has shape {list(out.loss.shape)}"
    assert out.loss.isfinite(), f"the loss is {out.loss.item()}"
    bad = [name for name, term in out.terms.items() if term.requires_grad or term.numel() != 1]
    assert not bad, f"terms that are no detached scalars: {', '.join(bad)}"
    out.loss.backward()
    assert view.grad is not None, "the views get no gradient"
    assert view.grad.isfinite().all(), "the gradient of the views is not finite"
    assert view.grad.abs().sum() > 0, "the gradient of the views is zero"


@law("loss")
def the_length_of_vectors_does_not_matter(under_test: LossUnderTest) -> None:
    """Views are not normalised: three times as long, the same loss."""
    view = under_test.inputs()[0]["multimodal"]
    with torch.no_grad():
        one, three = _loss(under_test, view).item(), _loss(under_test, 3 * view).item()
    assert math.isclose(one, three, rel_tol=1e-4, abs_tol=1e-6), f"{one} becomes {three}"


@law("loss")
def a_step_against_the_gradient_helps(under_test: LossUnderTest) -> None:
    """The gradient of the views points up."""
    view = under_test.inputs()[0]["multimodal"].clone().requires_grad_()
    before = _loss(under_test, view)
    (grad,) = torch.autograd.grad(before, view)
    with torch.no_grad():
        after = _loss(under_test, view - 1e-2 * grad / grad.norm().clamp_min(1e-12))
    assert after < before, f"a small step against the gradient takes the loss from {before.item()} to {after.item()}"


@law("loss")
def the_order_of_the_pairs_does_not_matter(under_test: LossUnderTest) -> None:
    """Pairs in another order give the same loss."""
    if under_test.part.extra_inputs & {"grades", "log_q"}:
        return  # they go with the pairs
    view = under_test.inputs()[0]["multimodal"]
    count = len(view) // 2
    order = torch.arange(count).flip(0)
    with torch.no_grad():
        one, other = _loss(under_test, view).item(), _loss(under_test, view[torch.cat([order, order + count])]).item()
    assert math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6), f"{one} becomes {other}"


@law("loss", capability="generation")
def answers_cost(under_test: LossUnderTest) -> None:
    """It wants `generation`, and the loss grows with it."""
    assert "generation" in under_test.part.extra_inputs, "it does not want to know what answers cost"
    view, options = under_test.inputs()[0]["multimodal"], under_test.options()
    with torch.no_grad():
        low, high = (
            under_test.part({"multimodal": view}, **options | {"generation": torch.tensor(cost)}).loss
            for cost in (1.0, 9.0)
        )
    assert high > low, f"answers that cost 9 give a loss of {high}, those that cost 1 {low}"


@law("loss", capability="negatives")
def hard_negatives_push(under_test: LossUnderTest) -> None:
    """It wants `negatives`: one that is like an anchor costs; none of them, or excluded, costs nothing."""
    assert "negatives" in under_test.part.extra_inputs, "it does not want hard negatives"
    view = under_test.inputs()[0]["multimodal"]
    rows, options = len(view), {k: v for k, v in under_test.options().items() if k != "log_q"}
    near = torch.cat([view, view[:1] + 0.1 * draw(1, view.shape[1], seed=7)])
    drop = torch.zeros(rows + 1, rows + 1, dtype=torch.bool)
    with torch.no_grad():
        plain = under_test.part({"multimodal": view}, None, drop[:rows, :rows], **options).loss.item()
        options["negatives"] = torch.arange(rows, rows + 1)
        hard = under_test.part({"multimodal": near}, None, drop, **options).loss.item()
        drop[rows] = drop[:, rows] = True
        hidden = under_test.part({"multimodal": near}, None, drop, **options).loss.item()
    assert hard > plain, f"a hard negative takes the loss from {plain} to {hard}"
    assert math.isclose(hidden, plain, rel_tol=1e-4), (
        f"an excluded hard negative takes the loss from {plain} to {hidden}"
    )


@law("loss")
def excluded_rows_are_no_negatives(under_test: LossUnderTest) -> None:
    """One item in two pairs: excluded from each other, its rows cost no more, and push each other nowhere."""
    view = under_test.inputs()[0]["multimodal"].clone()
    count = len(view) // 2
    view[1] = view[0]  # the left items of pairs 0 and 1 are one item
    exclude = torch.eye(2 * count, dtype=torch.bool)
    exclude[0, 1] = exclude[1, 0] = True
    for a, b in ((0, 1 + count), (1, count)):  # and so each one's partner is a known positive of the other
        exclude[a, b] = exclude[b, a] = True
    with torch.no_grad():
        plain, masked = _loss(under_test, view).item(), _loss(under_test, view, exclude).item()
    assert masked <= plain + 1e-5, f"excluding known positives takes the loss from {plain} up to {masked}"


@law("loss")
def excluded_rows_push_nothing(under_test: LossUnderTest) -> None:
    """Where all but partners are excluded, the gradient of a row does not depend on other pairs' items."""
    if "grades" in under_test.part.extra_inputs:
        return  # a ranking of pairs compares pairs, excluded or not
    gradients = []
    for seed in (11, 12):
        view = under_test.inputs()[0]["multimodal"].clone()
        count = len(view) // 2
        view[[1, 1 + count]] = draw(2, view.shape[1], seed=seed)  # another pair
        view.requires_grad_()
        loss = _loss(under_test, view, torch.ones(len(view), len(view), dtype=torch.bool))
        (grad,) = torch.autograd.grad(loss, view, allow_unused=True) if loss.requires_grad else (None,)
        gradients.append(torch.zeros(view.shape[1]) if grad is None else grad[0])
    off = float((gradients[0] - gradients[1]).abs().max())
    assert off <= 1e-6, f"another item of an excluded pair changes a row's gradient by {off:.1e}: is `exclude` heeded?"


@law("loss")
def nothing_but_partners_is_still_finite(under_test: LossUnderTest) -> None:
    """Where every other row is excluded, loss and gradient are finite."""
    view = under_test.inputs()[0]["multimodal"].clone().requires_grad_()
    loss = _loss(under_test, view, torch.ones(len(view), len(view), dtype=torch.bool))
    assert loss.isfinite(), f"the loss is {loss.item()}"
    if loss.requires_grad:
        loss.backward()
        assert view.grad is None or view.grad.isfinite().all(), "the gradient is not finite"
