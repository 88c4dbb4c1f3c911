"""Methods on units laid out by hand, and what every method promises."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from paretone.errors import UserError
from paretone.groups import Fold, Slot, Units, shrink
from paretone.methods import cluster, depth, known_methods, magnitude, method_function, settings_of
from paretone.methods._symmetric import self_product
from paretone.methods._ward import cut, ward_tree

UNIT_METHODS = [name for name in known_methods() if method_function(name).__name__ == "fold"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_units(width: int, seed: int = 0, features: int = 6) -> Units:
    values = torch.randn(width, 2 * features, generator=rng(seed))
    return Units(values[:, :features].contiguous(), values[:, features:].contiguous())


@pytest.mark.parametrize("method", UNIT_METHODS)
@given(width=st.integers(1, 24), seed=st.integers(0, 5), data=st.data())
@settings(max_examples=15, deadline=None)
def test_every_method_leaves_exactly_as_many_units_as_asked(method: str, width: int, seed: int, data: Any) -> None:
    keep = data.draw(st.integers(1, width))
    fold = method_function(method)(random_units(width, seed), keep, rng())
    assert fold.keep == keep
    assert set(fold.members[fold.members >= 0].tolist()) == set(range(keep))
    assert torch.equal(fold.members[fold.representative], torch.arange(keep))


@pytest.mark.parametrize("method", UNIT_METHODS)
def test_every_method_gives_the_same_fold_for_the_same_seed(method: str) -> None:
    folds = [method_function(method)(random_units(20), 7, rng(3)) for _ in range(2)]
    assert torch.equal(folds[0].members, folds[1].members)


@pytest.mark.parametrize("method", UNIT_METHODS)
def test_keeping_every_unit_changes_no_bit(method: str) -> None:
    fold = method_function(method)(random_units(9), 9, rng())
    tensor = torch.randn(9, 4)
    for role in ("producer", "consumer"):
        assert torch.equal(shrink(tensor, Slot("t", 0, 1, role), fold), tensor)


def test_magnitude_keeps_the_units_with_the_largest_norm_in_their_order() -> None:
    units = Units(torch.tensor([[3.0], [0.0], [1.0], [2.0]]), torch.tensor([[0.0], [9.0], [0.0], [0.0]]))
    assert magnitude.fold(units, 2, rng()).representative.tolist() == [0, 1]
    assert magnitude.fold(units, 2, rng(), norm="incoming").representative.tolist() == [0, 3]


def test_magnitude_keeps_the_first_of_equal_units() -> None:
    assert magnitude.fold(Units(torch.ones(4, 1), torch.ones(4, 1)), 2, rng()).representative.tolist() == [0, 1]


def test_random_draws_another_selection_for_another_seed() -> None:
    fold = method_function("random")
    drawn = {tuple(fold(random_units(30), 10, rng(seed)).representative.tolist()) for seed in range(5)}
    assert len(drawn) == 5


def test_a_cluster_takes_the_mean_of_producers_and_the_sum_of_consumers() -> None:
    units = Units(torch.tensor([[1.0], [9.0], [3.0]]), torch.tensor([[0.0], [0.0], [0.0]]))
    fold = cluster.fold(units, 2, rng())
    producer = shrink(torch.tensor([[1.0], [9.0], [3.0]]), Slot("in", 0, 1, "producer"), fold)
    consumer = shrink(torch.tensor([[10.0, 20.0, 30.0]]), Slot("out", 1, 1, "consumer"), fold)
    assert producer.tolist() == [[2.0], [9.0]]
    assert consumer.tolist() == [[40.0, 20.0]]
    literal = cluster.fold(units, 2, rng(), outgoing="mean")
    assert shrink(torch.tensor([[10.0, 20.0, 30.0]]), Slot("out", 1, 1, "consumer"), literal).tolist() == [[20.0, 20.0]]


def test_a_head_moves_with_all_its_rows() -> None:
    fold = Fold.select(torch.tensor([1]), 2)
    rows = torch.arange(8.0).reshape(4, 2)
    assert shrink(rows, Slot("q", 0, 2, "producer"), fold).tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert shrink(rows, Slot("o", 1, 1, "consumer"), fold).tolist() == [[1.0], [3.0], [5.0], [7.0]]


@pytest.mark.parametrize("start", ["ward", "kmeans++"])
def test_equal_units_fold_into_one_without_loss(start: str) -> None:
    once = random_units(12, seed=1)
    order = torch.randperm(24, generator=rng(2))
    doubled = Units(once.incoming.repeat(2, 1)[order], once.outgoing.repeat(2, 1)[order])
    fold = cluster.fold(doubled, 12, rng(), start=start)
    for unit in range(12):
        twins = [i for i, original in enumerate(order.tolist()) if original % 12 == unit]
        assert len({int(fold.members[i]) for i in twins}) == 1


def test_units_that_are_all_zero_can_be_clustered() -> None:
    fold = cluster.fold(Units(torch.zeros(8, 3), torch.zeros(8, 3)), 5, rng(), start="kmeans++")
    assert fold.keep == 5
    assert cluster.fold(Units(torch.zeros(8, 3), torch.zeros(8, 3)), 5, rng()).keep == 5


@pytest.mark.parametrize("width", [2, 60, 700])
def test_ward_from_the_gram_matrix_is_scipys_ward_on_the_vectors(width: int) -> None:
    units = random_units(width, seed=4)
    merges = ward_tree(self_product(units.incoming, units.outgoing))
    expected = linkage(torch.cat([units.incoming, units.outgoing], dim=1).numpy(), "ward")
    for keep in {1, 2, width // 3 + 1, width - 1, width}:
        ours, theirs = cut(merges, keep), fcluster(expected, keep, "maxclust")
        assert len(set(zip(ours.tolist(), theirs.tolist(), strict=True))) == keep  # the same partition


def test_wards_tree_stands_equal_and_opposite_units() -> None:
    point = torch.randn(1, 5, generator=rng())
    merges = ward_tree(self_product(torch.cat([point, -point]).repeat(20, 1)))
    labels = cut(merges, 2)
    assert labels.tolist() == [labels[0], labels[1]] * 20
    assert len(set(cut(merges, 7).tolist())) == 7


def inertia(units: Units, labels: torch.Tensor) -> float:
    vectors = torch.cat([units.incoming, units.outgoing], dim=1).double()
    groups = [vectors[labels == label] for label in labels.unique()]
    return float(sum(((g - g.mean(dim=0)) ** 2).sum() for g in groups))


@given(seed=st.integers(0, 30))
@settings(max_examples=20, deadline=None)
def test_lloyd_never_raises_the_inertia_and_never_loses_a_cluster(seed: int) -> None:
    units = random_units(30, seed)
    start = torch.randint(6, (30,), generator=rng(seed))
    start[:6] = torch.arange(6)
    gram = self_product(units.incoming, units.outgoing)
    before = inertia(units, start)
    for rounds in (1, 3, 25):
        labels, _ = cluster.lloyd(gram, start, 6, rounds=rounds)
        after = inertia(units, labels)
        assert len(labels.unique()) == 6
        assert after <= before * (1 + 1e-5)
        before = after


def test_an_empty_cluster_gets_the_unit_that_fits_worst() -> None:
    units = Units(torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]]), torch.zeros(5, 1))
    labels, _ = cluster.lloyd(self_product(units.incoming), torch.tensor([0, 0, 1, 1, 1]), 3, rounds=0)
    assert labels.tolist() == [0, 0, 1, 1, 2]


def best_inertia(units: Units, keep: int) -> float:
    partitions = itertools.product(range(keep), repeat=units.width)
    return min(inertia(units, torch.tensor(p)) for p in partitions if len(set(p)) == keep)


@pytest.mark.parametrize("start", ["ward", "kmeans++"])
def test_clustering_small_sets_comes_near_the_best_partition_there_is(start: str) -> None:
    units = random_units(7, seed=8)
    fold = cluster.fold(units, 3, rng(), start=start)
    assert inertia(units, fold.members) <= 1.15 * best_inertia(units, 3)


def test_the_representative_of_a_cluster_is_the_unit_nearest_to_its_centre() -> None:
    units = Units(torch.tensor([[0.0], [0.4], [1.0], [7.0]]), torch.zeros(4, 1))
    assert cluster.fold(units, 2, rng()).representative.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("kept", "options"),
    [
        ((0, 1, 2), {"count": 3}),
        ((0, 1, 4), {"count": 3, "drop": "middle"}),
        ((0, 1, 3, 4), {"count": 4, "drop": "middle"}),
        ((0, 3), {"count": None, "layers": [3, 0]}),
        ((0, 1), {"count": None, "keep": 2}),
        ((0, 1, 2, 3, 4), {"count": 2, "stack": "decoder"}),
    ],
)
def test_depth_keeps_the_first_the_outer_or_the_listed_layers(kept: tuple[int, ...], options: dict[str, Any]) -> None:
    assert depth.keep_layers("model.encoder.layers", 5, **options) == kept


@pytest.mark.parametrize(
    "options",
    [
        {"count": None},
        {"count": 3, "keep": 3},
        {"count": None, "layers": [0, 0]},
        {"count": None, "layers": [5]},
        {"count": None, "layers": []},
        {"count": 0},
        {"count": None, "keep": 6},
    ],
)
def test_depth_refuses_what_can_not_be_kept(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        depth.keep_layers("encoder.layers", 5, **options)


def test_settings_are_what_the_function_says() -> None:
    assert list(settings_of("cluster")) == ["outgoing", "start", "rounds"]
    assert settings_of("random") == {}
