"""Compression in closed form: modules are matched by what they compute, not by how their weights look.

FFN: hidden units are chosen by optimal brain surgeon on the covariance that their activations have behind a layer norm,
and the outgoing weights are refitted to make up for those that went. Attention: heads are cut to their leading singular
directions, merged or dropped, all in terms of the products that no change of basis alters. No training, and no data:
where rows were seen while the model ran, their moments take the place of those that the norms let expect.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from paretone.errors import UserError
from paretone.methods._gauge import (
    Head,
    Heads,
    Nest,
    assemble,
    head_of,
    heads_of,
    nest,
    only_selects,
    refitted_output,
    truncation_errors,
)
from paretone.methods._gaussian import (
    activation_function,
    bank_of,
    covariance,
    cross_covariance,
    slope_energy,
)
from paretone.methods._seen import blended, moments_of, trust
from paretone.methods._surgeon import Elimination, eliminate, others, refit_selected
from paretone.methods._surgeon import refit as refitted
from paretone.modules import Analysis, Attention, FeedForward, Module, Rewrite

Bank = Literal["select", "merge", "merge-repaired"]
Search = Literal["surgeon", "magnitude"]
HeadsBy = Literal["mixed", "truncate", "merge", "drop"]

READS_SEEN = True
LEAST_SHARE = 16  # error curves end at one in so many hidden units
_LLOYD_ROUNDS = 8


def rewrite(
    module: Module,
    keep: int,
    head_dim: int,
    rng: torch.Generator,
    analysis: Analysis | None = None,
    *,
    bank: Bank = "select",
    search: Search = "surgeon",
    refit: bool = True,
    heads: HeadsBy = "mixed",
) -> Rewrite:
    """The module with ``keep`` units, heads of ``head_dim`` rows; all of them at full size change no bit.

    Args:
        module: with the norm in front of it; nothing depends on the basis of a head or the order of units.
        keep: hidden units or heads, 1 <= keep <= width.
        head_dim: rows of each head; of no account for an FFN.
        rng: not used; nothing is left to chance.
        analysis: of this module under these settings, where it is at hand; it saves time and changes nothing.
        bank: ``select`` keeps hidden units as they are; ``merge`` lets them draw the others into weighted k-means in
            the metric of what units add to the output; ``merge-repaired`` also gives merged rows their members' mean
            length back (Model Folding, arXiv 2502.10216).
        search: how hidden units are chosen: optimal brain surgeon, or the norm of the unit.
        refit: whether the outgoing weights are fitted anew; without it clusters add up and the rest is lost. Those of
            an attention are where rows were seen.
        heads: ``truncate`` keeps every head and cuts its rank (CLOVER, arXiv 2411.17426), ``merge`` and ``drop`` keep
            the rank; ``mixed`` may do all three, as the error model says.
    """
    if isinstance(module, FeedForward):
        return _rewrite_ffn(module, keep, analysis, bank, search, refit)
    return _rewrite_attention(module, keep, head_dim, analysis, refit, heads)


def analyse(
    module: Module,
    *,
    bank: Bank = "select",
    search: Search = "surgeon",
    refit: bool = True,
    heads: HeadsBy = "mixed",
) -> Analysis:
    """The expected squared error at the module's output for every size that ``rewrite`` can give it."""
    return _analyse_ffn(module, search) if isinstance(module, FeedForward) else _analyse_attention(module, heads)


def uniform_shape(width: int, head_dim: int, rows: int, *, heads: HeadsBy = "mixed", **_: object) -> tuple[int, int]:
    """(heads, head_dim) where an attention is to have ``rows`` rows in all and nothing else is known of it."""
    if heads in ("mixed", "truncate"):
        return width, max(1, rows // width)
    return max(1, rows // head_dim), head_dim


# --- feed-forward -----------------------------------------------------------------------------------------------------


def _activity(module: FeedForward) -> tuple[Tensor, Tensor]:
    """(units,) means and (units, units) covariance of the activations: as seen, or as a Gaussian input makes them.

    The covariance is in single precision, which takes half the time and memory; what is solved with it is in double.
    """
    gaussian = bank_of(module.weight_in, module.bias_in, module.norm, module.activation)
    if module.seen is None:
        return gaussian.means, covariance(gaussian, torch.float32)
    rows = module.seen.inputs
    seen = moments_of(rows, _hidden(module.weight_in, module.bias_in, module.activation))
    means, moments = blended(seen, (gaussian.means, covariance(gaussian)), trust(len(rows), module.width))
    return means, moments.float()


def _activity_of(module: FeedForward, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same means, and the covariance of the units ``kept`` with each other and with the rest."""
    goes = others(kept, module.width)
    if module.seen is not None:
        means, moments = _activity(module)
        towards = moments[kept]
        return means, towards[:, kept], towards[:, goes]
    bank = bank_of(module.weight_in, module.bias_in, module.norm, module.activation)
    stay, go = bank.of(kept), bank.of(goes)
    return bank.means, covariance(stay, torch.float32), cross_covariance(stay, go, torch.float32)


def _hidden(weight: Tensor, bias: Tensor, activation: str) -> Callable[[Tensor], Tensor]:
    function = activation_function(activation)
    return lambda rows: function(rows @ weight.T + bias)


def _analyse_ffn(module: FeedForward, search: Search) -> Analysis:
    least = max(1, module.width // LEAST_SHARE)
    if search == "surgeon":
        found = _eliminated(module, least)
        order, costs, variance = found.order, found.costs, found.variance
    else:
        _, moments = _activity(module)
        order = torch.argsort(_norms(module), stable=True)
        outgoing = module.weight_out.float()
        costs = (outgoing.square().sum(dim=0) * moments.diagonal())[order][:-least]
        variance = float(((outgoing @ moments) * outgoing).sum())
    errors = np.concatenate([[0.0], np.cumsum(costs.double().numpy())])
    keep = np.arange(module.width, least - 1, -1)
    return Analysis(keep, np.zeros_like(keep), errors, variance, order)


def _norms(module: FeedForward) -> Tensor:
    """(units,) squared lengths of the unit vectors."""
    return module.weight_in.square().sum(dim=1) + module.weight_out.square().sum(dim=0)


def _order(module: FeedForward, keep: int, search: Search) -> Tensor:
    """(units,) from the first to go to the last; down to the share where analyses end it is that of the analysis."""
    if search == "magnitude":
        return torch.argsort(_norms(module), stable=True)
    return _eliminated(module, min(keep, max(1, module.width // LEAST_SHARE))).order


def _eliminated(module: FeedForward, leave: int) -> Elimination:
    """In single precision, where that does."""
    try:
        return eliminate(_activity(module)[1], module.weight_out, leave=leave)
    except torch.linalg.LinAlgError:
        return eliminate(_activity(module)[1].double(), module.weight_out, leave=leave)


def _rewrite_ffn(
    module: FeedForward, keep: int, analysis: Analysis | None, bank: Bank, search: Search, refit: bool
) -> Rewrite:
    if keep == module.width:
        return _unchanged(module)
    if analysis is not None and analysis.order is not None and keep >= analysis.keep[-1]:
        order = analysis.order
    else:
        order = _order(module, keep, search)
    kept = order[-keep:].sort().values
    if bank == "select":
        return _selected(module, kept, refit)
    return _merged(module, kept, refit, repair=bank == "merge-repaired")


def _selected(module: FeedForward, kept: Tensor, refit: bool) -> Rewrite:
    members = torch.full((module.width,), -1)
    members[kept] = torch.arange(len(kept))
    weight_out, bias_out = module.weight_out[:, kept], module.bias_out
    if refit:
        means, moments, cross = _activity_of(module, kept)
        weight_out, bias_out = refit_selected(module.weight_out, module.bias_out, means, kept, moments, cross)
    new = replace(
        module,
        weight_in=module.weight_in[kept],
        bias_in=module.bias_in[kept],
        weight_out=weight_out,
        bias_out=bias_out,
        seen=None,
    )
    return Rewrite(new, members, kept)


def _merged(module: FeedForward, kept: Tensor, refit: bool, *, repair: bool) -> Rewrite:
    """Clusters around the units ``kept``: weighted means for incoming weights, sums or a refit for outgoing ones."""
    bank = bank_of(module.weight_in, module.bias_in, module.norm, module.activation)
    weights = module.weight_out.square().sum(dim=0) * slope_energy(bank, module.activation)
    weights = weights.clamp(min=1e-12 * float(weights.max().clamp(min=1e-300)))
    points = torch.cat([bank.rows, bank.shift.unsqueeze(1)], dim=1)
    labels = _weighted_lloyd(points, weights, kept)
    share = torch.zeros(len(kept), module.width, dtype=torch.float64)
    share[labels, torch.arange(module.width)] = weights
    share /= share.sum(dim=1, keepdim=True)
    if repair:
        lengths = (share @ bank.spread.square()).sqrt()
        share *= (lengths / (share @ bank.rows).norm(dim=1).clamp(min=1e-300)).unsqueeze(1)
    weight_in, bias_in = share @ module.weight_in, share @ module.bias_in
    weight_out = torch.zeros(len(module.bias_out), len(kept), dtype=torch.float64)
    weight_out.index_add_(1, labels, module.weight_out)
    bias_out = module.bias_out
    if refit:
        means, cross, moments, new_means = _new_activity(module, weight_in, bias_in)
        weight_out, bias_out = refitted(module.weight_out, module.bias_out, means, cross, moments, new_means)
    new = replace(module, weight_in=weight_in, bias_in=bias_in, weight_out=weight_out, bias_out=bias_out, seen=None)
    return Rewrite(new, labels, kept)


def _new_activity(module: FeedForward, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means of the old activations, covariance of old with new ones, of new ones, and the means of the new ones."""
    old_bank = bank_of(module.weight_in, module.bias_in, module.norm, module.activation)
    new_bank = bank_of(weight, bias, module.norm, module.activation)
    cross, spread = cross_covariance(old_bank, new_bank), covariance(new_bank)
    if module.seen is None:
        return old_bank.means, cross, spread, new_bank.means
    rows, old = module.seen.inputs, module.width
    both = [_hidden(w, b, module.activation) for w, b in ((module.weight_in, module.bias_in), (weight, bias))]
    expected = torch.cat([torch.cat([covariance(old_bank), cross], 1), torch.cat([cross.T, spread], 1)])
    prior = torch.cat([old_bank.means, new_bank.means]), expected
    means, joint = blended(moments_of(rows, *both), prior, trust(len(rows), old))
    return means[:old], joint[:old, old:], joint[old:, old:], means[old:]


def _weighted_lloyd(points: Tensor, weights: Tensor, kept: Tensor) -> Tensor:
    """(units,) labels of k-means started at the units ``kept``, each of which stays with its own cluster."""
    centres, own = points[kept], torch.arange(len(kept))
    labels = torch.empty(0, dtype=torch.int64)
    for _ in range(_LLOYD_ROUNDS):
        moved = (centres.square().sum(dim=1) - 2 * points @ centres.T).argmin(dim=1)
        moved[kept] = own
        if torch.equal(moved, labels):
            break
        labels = moved
        totals = torch.zeros(len(kept), dtype=torch.float64).index_add_(0, labels, weights)
        sums = torch.zeros_like(centres).index_add_(0, labels, points * weights.unsqueeze(1))
        centres = sums / totals.unsqueeze(1)
    return labels


# --- attention --------------------------------------------------------------------------------------------------------


def _analyse_attention(module: Attention, how: HeadsBy) -> Analysis:
    heads = heads_of(module)
    nested = _nested(heads, how)
    cuts = how in ("mixed", "truncate")
    ranks = np.arange(module.head_dim, 0, -1) if cuts else np.array([module.head_dim])
    new: dict[tuple[int, ...], Head] = {}
    keep, dims, errors = (np.empty(0, kind) for kind in (np.int64, np.int64, np.float64))
    for clusters, lost in zip(nested.clusters, nested.errors, strict=True):
        new |= {members: head_of(heads, members) for members in clusters if members not in new}
        error = lost + np.sum([truncation_errors(new[members], module.scale, ranks) for members in clusters], axis=0)
        if cuts and len(keep) and not _gains(keep * dims, errors, len(clusters) * ranks, error):
            break
        keep = np.concatenate([keep, np.full(len(ranks), len(clusters))])
        dims, errors = np.concatenate([dims, ranks]), np.concatenate([errors, error])
    variance = sum(new[(h,)].energy for h in range(module.width))
    return Analysis(keep, dims, errors, variance, clusters=nested.clusters)


def _gains(sizes: np.ndarray, errors: np.ndarray, new_sizes: np.ndarray, new_errors: np.ndarray) -> bool:
    """Whether any new option lies below the chords between the known ones, so that an allocation might take it.

    Heads merge and go in the order of what that costs: once cutting all of them further is the better way throughout,
    it stays so, and the large decompositions of many merged heads need not be made.
    """
    order = sizes.argsort(kind="stable")
    chords = np.interp(new_sizes, sizes[order], np.minimum.accumulate(errors[order]))
    return bool(((new_sizes >= sizes.min()) & (new_errors < chords)).any())


def _nested(heads: Heads, how: HeadsBy) -> Nest:
    """Heads becoming fewer by what ``how`` allows; heads that can't merge are dropped instead."""
    if how == "truncate":
        return Nest((tuple((head,) for head in range(len(heads.query))),), np.zeros(1))
    merge = heads.plain.can_merge and how != "drop"
    return nest(heads, merge=merge, drop=how != "merge" or not merge)


def _rewrite_attention(
    module: Attention, keep: int, head_dim: int, analysis: Analysis | None, refit: bool, how: HeadsBy
) -> Rewrite:
    if keep == module.width and head_dim == module.head_dim:
        return _unchanged(module)
    heads = heads_of(module)
    levels = analysis.clusters if analysis is not None else _nested(heads, how).clusters
    if module.width - keep >= len(levels) or (how not in ("mixed", "truncate") and head_dim < module.head_dim):
        raise UserError(f"closed_form with heads={how} can't make {module.width} heads {keep} of {head_dim} rows")
    clusters = levels[module.width - keep]
    new = sorted((head_of(heads, members) for members in clusters), key=lambda head: head.representative)
    members = torch.full((module.width,), -1)
    for number, head in enumerate(new):
        members[list(head.members)] = number
    made = _as_they_were(heads, new) if only_selects(new, module, head_dim) else assemble(heads, new, head_dim)
    if refit and module.seen is not None:
        made = refitted_output(module, heads, made, new)
    return Rewrite(made, members, torch.tensor([head.representative for head in new]))


def _as_they_were(heads: Heads, new: list[Head]) -> Attention:
    kept = [head.representative for head in new]
    plain = heads.plain
    names = ("query", "query_bias", "key", "key_bias", "value", "value_bias", "output")
    return replace(plain, **{name: getattr(plain, name)[kept] for name in names})


def _unchanged(module: Module) -> Rewrite:
    every = torch.arange(module.width)
    return Rewrite(module, every, every)
