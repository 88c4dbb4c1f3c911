"""Attention heads without their gauge: products of projections instead of the projections.

(Q, K) -> (MQ, M⁻ᵀK) and (V, O) -> (NV, ON⁻¹) change no output, so weights of two heads can't be compared row by row;
the products QᵀK, which says where a head looks, and OV, which says what it hands on, can. Both have rank ``head_dim``
at most and are never formed: all that is needed follows from inner products of rows.

Source of the truncation: CLOVER (arXiv 2411.17426); the merging of products is ours.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from paretone.methods._gaussian import through_norm
from paretone.methods._seen import input_moments, root_of, value_moments
from paretone.methods._surgeon import refit
from paretone.methods._symmetric import self_product
from paretone.modules import Attention

_MOST_MEMBERS = 4  # of a merged head, where heads can also go: more stacked rows take cubic time to cut
_RANK_TOLERANCE = 1e-10  # of the largest eigenvalue: below it a direction of the rows is rounding
_SAFE_PIVOT = 1e-6  # of the largest pivot: above it Cholesky, which is faster, does for rows


@dataclass(frozen=True)
class Heads:
    """An attention behind its norms, all float64; leading axis heads.

    Attributes:
        query: (heads, head_dim, model + 1), acts on (z, 1): the last column is the bias.
        key, value: (heads, head_dim, model), act on z. The keys' mean adds the same to every score of a query and is
            gone; the values' mean is in the output bias of ``plain``.
        output: (heads, head_dim, model), transposed.
        plain: the same attention in the model's own coordinates, with biases moved.

    Where rows were seen, each is expressed in other coordinates: those in which the second moments that were seen are
    the identity. Of values it is what a head hands on that was seen, after it has averaged over places.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    plain: Attention

    @functools.cached_property
    def looks(self) -> "Products":
        """Of query and key: where heads look."""
        return Products(self.query, self.key)

    @functools.cached_property
    def hands(self) -> "Products":
        """Of output and value: what heads hand on."""
        return Products(self.output, self.value)


@dataclass(frozen=True)
class Products:
    """The products leftᵀright of all heads; both (heads, head_dim, anything)."""

    left: Tensor
    right: Tensor

    @functools.cached_property
    def inner(self) -> np.ndarray:
        """(heads, heads) inner products of each head's product with that of each other, from single precision."""
        left, right = (self_product(side.flatten(0, 1).float()) for side in (self.left, self.right))
        heads, rows, _ = self.left.shape
        return left.mul_(right).view(heads, rows, heads, rows).sum(dim=(1, 3), dtype=torch.float64).numpy()

    def stacked(self, heads: Sequence[int], weights: Tensor | None = None) -> "Pair":
        """The sum of the products of ``heads``, each times its weight, factorised."""
        left, right = (side[list(heads)].flatten(0, 1) for side in (self.left, self.right))
        if weights is None:
            return factorise(left, right)
        roots = weights.sqrt().repeat_interleave(self.left.shape[1])
        pair = factorise(roots[:, None] * left, roots[:, None] * right)
        return replace(pair, left=pair.left * roots, right=pair.right * roots)


def heads_of(module: Attention) -> Heads:
    """Folds the norms into the projections and moves the biases that softmax makes constant.

    Key biases add a constant to all scores of a query: dropped. Rows of softmax sum to 1, so what the values have on
    average passes through unchanged: it goes to the output bias. Both are exact.
    """
    if module.seen is not None:
        return _seen_heads(module)
    query = through_norm(module.query, module.norm)
    query_mean = module.query_bias + module.query @ module.norm.shift
    key = through_norm(module.key, module.memory_norm)
    value = through_norm(module.value, module.memory_norm)
    value_mean = module.value @ module.memory_norm.shift
    bias = module.output_bias + torch.einsum("hed,hd->e", module.output, module.value_bias + value_mean)
    plain = replace(
        module, key_bias=torch.zeros_like(module.key_bias), value_bias=-value_mean, output_bias=bias, seen=None
    )
    query = torch.cat([query, query_mean.unsqueeze(-1)], dim=-1)
    return Heads(query, key, value, module.output.transpose(1, 2), plain)


def _seen_heads(module: Attention) -> Heads:
    assert module.seen is not None
    seen, heads = module.seen, module.width
    mean, spread = input_moments(module.norm, seen.inputs)
    read = torch.cat([module.query, module.query_bias.unsqueeze(-1)], dim=-1)
    query = read @ root_of(_with_one(mean, spread))
    if seen.memory is not None:
        mean, spread = input_moments(module.memory_norm, seen.memory)
    handed_mean, handed = value_moments(module, mean, spread)
    bias = module.output_bias + torch.einsum("hed,hd->e", module.output, handed_mean)
    plain = replace(
        module,
        key_bias=torch.zeros_like(module.key_bias),
        value_bias=module.value_bias - handed_mean,
        output_bias=bias,
        seen=None,
    )
    value = root_of(handed).unflatten(0, (heads, module.head_dim))
    return Heads(query, module.key @ root_of(spread), value, module.output.transpose(1, 2), plain)


def _with_one(mean: Tensor, spread: Tensor) -> Tensor:
    """(model + 1, model + 1) second moments of (x, 1)."""
    extended = torch.cat([mean, mean.new_ones(1)])
    return torch.block_diag(spread, spread.new_zeros(1, 1)) + torch.outer(extended, extended)


@dataclass(frozen=True)
class Pair:
    """The best approximation of a product leftᵀright at every rank.

    Attributes:
        left, right: (rows, rows) matrices whose first r rows combine the rows of each side into r new ones.
        values: (rows,) singular values, falling.
    """

    left: Tensor
    right: Tensor
    values: Tensor


def factorise(left: Tensor, right: Tensor) -> Pair:
    """Singular value decomposition of leftᵀright by way of inner products of rows.

    Args:
        left, right: (rows, anything).
    """
    (left_root, left_inverse), (right_root, right_inverse) = (_root(side @ side.T) for side in (left, right))
    u, values, vh = torch.linalg.svd(left_root.T @ right_root)
    half = values.sqrt().unsqueeze(1)
    return Pair(half * u.T @ left_inverse, half * vh @ right_inverse, values)


def _root(gram: Tensor) -> tuple[Tensor, Tensor]:
    """R with R Rᵀ = gram, and its pseudoinverse."""
    root, failed = torch.linalg.cholesky_ex(gram)
    pivots = root.diagonal().square()
    if not failed and pivots.min() > _SAFE_PIVOT * pivots.max():
        identity = torch.eye(len(gram), dtype=gram.dtype)
        return root, torch.linalg.solve_triangular(root, identity, upper=False)
    eigenvalues, vectors = torch.linalg.eigh(gram)
    sound = eigenvalues > _RANK_TOLERANCE * eigenvalues[-1].clamp(min=1e-300)
    roots = torch.where(sound, eigenvalues, 0).clamp(min=0).sqrt()
    inverse = torch.where(sound, 1 / torch.where(sound, roots, 1), 0)
    return vectors * roots, inverse.unsqueeze(1) * vectors.T


@dataclass(frozen=True)
class Nest:
    """Heads becoming fewer, one step after another, each step by its cheapest merger or loss.

    Attributes:
        clusters: for every number of heads from all down to 1, the heads that make up each new one.
        errors: (heads,) expected squared error at the output for each of these, before any truncation.
    """

    clusters: tuple[tuple[tuple[int, ...], ...], ...]
    errors: np.ndarray


def nest(heads: Heads, *, merge: bool, drop: bool) -> Nest:
    """Merges heads that look at the same places, and drops those that matter least, until one is left.

    A merger adds up what its heads hand on and averages where they look, weighted by what each hands on; the price is
    what its heads now look at wrongly. Where heads may also drop out, at most ``_MOST_MEMBERS`` merge into one.
    """
    looks, hands = heads.looks.inner * heads.plain.scale**2, heads.hands.inner

    @functools.cache  # most pairs stay from one step to the next
    def merger(a: tuple[int, ...], b: tuple[int, ...]) -> float:
        return _misled(looks, hands, a + b) - _misled(looks, hands, a) - _misled(looks, hands, b)

    clusters: list[tuple[int, ...]] = [(h,) for h in range(len(hands))]
    levels, errors, spent = [tuple(clusters)], [0.0], 0.0
    while len(clusters) > 1:
        options: list[tuple[float, int, int]] = []
        if drop:
            options += [(float(hands[np.ix_(c, c)].sum()), i, -1) for i, c in enumerate(clusters)]
        if merge:
            options += [
                (merger(clusters[i], clusters[j]), i, j)
                for i, j in itertools.combinations(range(len(clusters)), 2)
                if not drop or len(clusters[i]) + len(clusters[j]) <= _MOST_MEMBERS
            ]
        cost, i, j = min(options)
        if j >= 0:
            clusters[i] = tuple(sorted(clusters[i] + clusters[j]))
        del clusters[j if j >= 0 else i]
        spent += max(cost, 0.0)
        levels.append(tuple(clusters))
        errors.append(spent)
    return Nest(tuple(levels), np.array(errors))


def _misled(looks: np.ndarray, hands: np.ndarray, cluster: tuple[int, ...]) -> float:
    """Expected squared error of heads that all look where their weighted mean looks."""
    if len(cluster) == 1:
        return 0.0
    index = list(cluster)
    weights = hands[index, index]
    shares = weights / max(weights.sum(), 1e-300)
    inner = looks[np.ix_(index, index)]
    towards = inner @ shares
    distances = inner.diagonal() - 2 * towards + shares @ towards
    return float((weights * _softmax_error(distances)).sum())


def _softmax_error(score_variance: np.ndarray) -> np.ndarray:
    """Share of a head's output that errors of its scores of that variance replace, between 0 and 1."""
    return np.asarray(-np.expm1(-np.maximum(score_variance, 0)))


@dataclass(frozen=True)
class Head:
    """A new head before truncation: where it looks, what it hands on, at every rank.

    Attributes:
        members: the old heads in it, ascending.
        representative: the one of them that hands on most.
        score, output: factorised products; they combine the stacked rows of the members.
    """

    members: tuple[int, ...]
    representative: int
    score: Pair
    output: Pair

    @property
    def energy(self) -> float:
        """Expected squared length of what it hands on, where a query looks at one place only."""
        return float(self.output.values.square().sum())


def head_of(heads: Heads, members: tuple[int, ...]) -> Head:
    """The head that stands for ``members``: the weighted mean of where they look, the sum of what they hand on."""
    handed = torch.from_numpy(heads.hands.inner.diagonal()[list(members)])
    total = float(handed.sum())
    shares = handed / total if total > 0 else torch.full_like(handed, 1 / len(handed))
    score, output = heads.looks.stacked(members, shares), heads.hands.stacked(members)
    return Head(members, members[int(handed.argmax())], score, output)


def truncation_errors(head: Head, scale: float, ranks: np.ndarray) -> np.ndarray:
    """(ranks,) expected squared error at the output of cutting ``head`` to each of ``ranks``.

    Counted as if each query looked at one place: how much averaging over places takes off depends on how alike
    neighbouring frames are, which no weight tells. Averaging over independent places, the other extreme, made
    attention seem so cheap that it went to the floor (measured; see docs/log.md).
    """
    scores = _tail(head.score.values, ranks) * scale**2
    return _tail(head.output.values, ranks) + head.energy * _softmax_error(scores)


def _tail(values: Tensor, ranks: np.ndarray) -> np.ndarray:
    """(ranks,) sum of squares of the singular values beyond each rank."""
    squares = values.square().numpy()
    tails = np.concatenate([np.cumsum(squares[::-1])[::-1], [0.0]])
    return np.asarray(tails[np.minimum(ranks, len(squares))])


def only_selects(new: Sequence[Head], module: Attention, rank: int) -> bool:
    """Whether the heads ``new`` at ``rank`` are heads of ``module`` as they were."""
    return rank == module.head_dim and all(len(head.members) == 1 for head in new)


def assemble(heads: Heads, new: Sequence[Head], rank: int) -> Attention:
    """The attention of the heads ``new``, each cut to ``rank`` rows, in the model's own coordinates.

    New rows are combinations of old ones, so norms need not be folded into the weights that are written.
    """
    plain = heads.plain
    parts: dict[str, list[Tensor]] = {name: [] for name in ("q", "qb", "k", "v", "vb", "o")}
    for head in new:
        index = list(head.members)
        look, answer = head.score.left[:rank], head.score.right[:rank]
        out, value = head.output.left[:rank], head.output.right[:rank]
        parts["q"].append(_padded(look @ plain.query[index].flatten(0, 1), rank))
        parts["qb"].append(_padded(look @ plain.query_bias[index].flatten(), rank))
        parts["k"].append(_padded(answer @ plain.key[index].flatten(0, 1), rank))
        parts["v"].append(_padded(value @ plain.value[index].flatten(0, 1), rank))
        parts["vb"].append(_padded(value @ plain.value_bias[index].flatten(), rank))
        parts["o"].append(_padded(out @ plain.output[index].transpose(1, 2).flatten(0, 1), rank).T)
    q, qb, k, v, vb, o = (torch.stack(rows) for rows in parts.values())
    zeros = torch.zeros(len(new), rank, dtype=torch.float64)
    return replace(plain, query=q, query_bias=qb, key=k, key_bias=zeros, value=v, value_bias=vb, output=o)


def _padded(rows: Tensor, rank: int) -> Tensor:
    """``rows`` with zeros up to ``rank``: stacked rows can be fewer than the size of a head."""
    missing = rank - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows


def refitted_output(module: Attention, heads: Heads, made: Attention, new: Sequence[Head]) -> Attention:
    """``made`` with the output projection and its bias that come nearest to the output that was seen.

    Exact where heads still look where they looked: then what new heads hand on follows from what old ones did.
    """
    rank, old_dim, selects = made.head_dim, module.head_dim, only_selects(new, module, made.head_dim)
    handing = torch.zeros(len(new) * rank, module.width * old_dim, dtype=torch.float64)
    for number, head in enumerate(new):
        columns = torch.cat([torch.arange(old_dim) + member * old_dim for member in head.members])
        rows = torch.eye(old_dim, dtype=torch.float64) if selects else _padded(head.output.right[:rank], rank)
        handing[number * rank : (number + 1) * rank, columns] = rows
    stacked = heads.value.flatten(0, 1)
    handed = stacked @ stacked.T
    weight, bias = refit(
        module.output.movedim(0, 1).flatten(1),
        module.output_bias,
        (module.value_bias - heads.plain.value_bias).flatten(),
        handed @ handing.T,
        handing @ handed @ handing.T,
        torch.zeros(len(handing), dtype=torch.float64),
    )
    output = weight.unflatten(1, (len(new), rank)).movedim(1, 0)
    return replace(made, output=output, output_bias=bias)
