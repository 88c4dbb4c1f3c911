"""Closed-form compression: what it promises of gauges, norms, duplicates and biases, and its model of activations."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny, tiny_inputs

import paretone
from paretone.errors import UserError
from paretone.groups import ffn_group
from paretone.methods import _gaussian, _surgeon, closed_form
from paretone.methods._gauge import factorise, heads_of
from paretone.modules import Attention, FeedForward, Norm

FAMILIES = ("hubert", "wav2vec2", "wavlm", "whisper")
PRE_AND_POST = [
    *(pytest.param(family, {}, id=f"{family}-pre") for family in FAMILIES),
    *(
        pytest.param(family, {"pre_norm": False, "layer_norm": False}, id=f"{family}-post")
        for family in FAMILIES
        if family != "whisper"
    ),
]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def norm(model: int, seed: int = 0) -> Norm:
    return Norm(1 + 0.3 * randn(model, seed=seed), 0.2 * randn(model, seed=seed + 1))


def feed_forward(units: int = 40, model: int = 16, seed: int = 0) -> FeedForward:
    return FeedForward(
        0.5 * randn(units, model, seed=seed),
        0.3 * randn(units, seed=seed + 1),
        randn(model, units, seed=seed + 2),
        randn(model, seed=seed + 3),
        norm(model, seed + 4),
        "gelu",
    )


def attention(heads: int = 6, head_dim: int = 4, model: int = 16, seed: int = 0) -> Attention:
    query, key, value = (0.4 * randn(heads, head_dim, model, seed=seed + i) for i in range(3))
    biases = [0.3 * randn(heads, head_dim, seed=seed + 10 + i) for i in range(3)]
    behind = norm(model, seed + 20)
    return Attention(
        query,
        biases[0],
        key,
        biases[1],
        value,
        biases[2],
        randn(heads, model, head_dim, seed=seed + 30),
        randn(model, seed=seed + 31),
        behind,
        behind,
        scale=head_dim**-0.5,
    )


def stream(module: FeedForward | Attention, places: int = 12, seed: int = 50) -> torch.Tensor:
    """(places, model) outputs of the norm in front of ``module``."""
    z = torch.nn.functional.layer_norm(randn(places, len(module.norm.scale), seed=seed), (len(module.norm.scale),))
    return z * module.norm.scale + module.norm.shift


def run_ffn(module: FeedForward, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x @ module.weight_in.T + module.bias_in) @ module.weight_out.T + module.bias_out


def run_attention(module: Attention, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (
        torch.einsum("hdm,pm->hpd", weight, x) + bias.unsqueeze(1)
        for weight, bias in (
            (module.query, module.query_bias),
            (module.key, module.key_bias),
            (module.value, module.value_bias),
        )
    )
    looks = torch.softmax(module.scale * q @ k.transpose(1, 2), dim=-1)
    return torch.einsum("hpd,hmd->pm", looks @ v, module.output) + module.output_bias


# --- the model of activations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "quick_gelu", "gelu_new"])
def test_moments_of_activations_are_those_of_a_large_sample(activation: str) -> None:
    module = feed_forward(units=8, model=12)
    bank = _gaussian.bank_of(module.weight_in, module.bias_in, module.norm, activation)
    z = randn(100_000, 12, seed=9)
    z -= z.mean(dim=1, keepdim=True)
    x = z * module.norm.scale + module.norm.shift
    hidden = _gaussian.activation_function(activation)(x @ module.weight_in.T + module.bias_in)
    assert torch.allclose(bank.means, hidden.mean(dim=0), atol=0.01)
    assert torch.allclose(_gaussian.covariance(bank), torch.cov(hidden.T), atol=0.03)


def test_the_arc_cosine_kernel_is_met_up_to_the_order_of_the_series() -> None:
    """Cho & Saul 2009, order 1: E[relu(u) relu(v)] of unit normals = (sin θ + (π - θ) cos θ) / 2π."""
    angle = 1.1
    rows = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64) / 2**0.5
    other = torch.tensor([0.5, -1.0, 0.5], dtype=torch.float64) / 1.5**0.5
    rows[1] = np.cos(angle) * rows[0] + np.sin(angle) * other
    plain = Norm(torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    bank = _gaussian.bank_of(rows, torch.zeros(2, dtype=torch.float64), plain, "relu")
    second = _gaussian.covariance(bank)[0, 1] + bank.means[0] * bank.means[1]
    expected = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    assert float(second) == pytest.approx(expected, rel=0.005)
    assert float(bank.means[0]) == pytest.approx(1 / (2 * np.pi) ** 0.5, abs=5e-3)


def test_covariances_are_positive_semidefinite_and_cross_covariances_agree_with_them() -> None:
    module = feed_forward(units=70, model=10)
    bank = _gaussian.bank_of(module.weight_in, module.bias_in, module.norm, "gelu")
    square = _gaussian.covariance(bank)
    assert float(torch.linalg.eigvalsh(square)[0]) > -1e-10
    assert torch.allclose(square, _gaussian.cross_covariance(bank, bank), atol=1e-12)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(UserError, match="no activation 'mish'"):
        _gaussian.activation_function("mish")


# --- optimal brain surgeon --------------------------------------------------------------------------------------------


def reference_elimination(covariance: torch.Tensor, outgoing: torch.Tensor) -> tuple[list[int], list[float]]:
    """One unit after the other with a full inverse each time."""
    full = _surgeon.regularised(covariance)
    target = full @ outgoing.T
    alive, order, costs, before = list(range(len(full))), [], [], 0.0
    total = float((outgoing @ full * outgoing).sum())
    while len(alive) > 1:
        losses = {}
        for unit in alive:
            kept = [u for u in alive if u != unit]
            fitted = torch.linalg.solve(full[kept][:, kept], target[kept])
            losses[unit] = total - float((fitted * target[kept]).sum())
        best = min(losses, key=losses.__getitem__)
        order.append(best)
        costs.append(losses[best] - before)
        before = losses[best]
        alive.remove(best)
    return [*order, *alive], costs


def test_elimination_is_the_greedy_one_when_every_unit_is_a_candidate() -> None:
    module = feed_forward(units=7, model=9, seed=3)
    bank = _gaussian.bank_of(module.weight_in, module.bias_in, module.norm, "gelu")
    moments = _gaussian.covariance(bank)
    order, costs = reference_elimination(moments, module.weight_out)
    found = _surgeon.eliminate(moments.clone(), module.weight_out, leave=1)
    assert found.order.tolist() == order
    assert found.costs.tolist() == pytest.approx(costs, rel=1e-3, abs=1e-5)


def test_costs_of_elimination_add_up_to_the_error_of_the_refit() -> None:
    module = feed_forward(units=96, model=24, seed=5)
    bank = _gaussian.bank_of(module.weight_in, module.bias_in, module.norm, "gelu")
    moments = _surgeon.regularised(_gaussian.covariance(bank))
    found = _surgeon.eliminate(_gaussian.covariance(bank), module.weight_out, leave=30)
    kept = found.order[-30:]
    fitted = torch.linalg.solve(moments[kept][:, kept], moments[kept] @ module.weight_out.T)
    left = (module.weight_out @ moments * module.weight_out).sum() - (
        fitted * (moments[kept] @ module.weight_out.T)
    ).sum()
    assert float(found.costs.sum()) == pytest.approx(float(left), rel=1e-3)


def test_the_refit_is_least_squares_on_a_large_sample() -> None:
    module = feed_forward(units=20, model=12)
    rewritten = closed_form.rewrite(module, 12, 0, rng()).module
    assert isinstance(rewritten, FeedForward)
    z = randn(60_000, 12, seed=8)
    z -= z.mean(dim=1, keepdim=True)
    x = z * module.norm.scale + module.norm.shift
    hidden = torch.nn.functional.gelu(x @ rewritten.weight_in.T + rewritten.bias_in)
    with_bias = torch.cat([hidden, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    best = torch.linalg.lstsq(with_bias, run_ffn(module, x)).solution
    ideal = (with_bias @ best - run_ffn(module, x)).square().mean()
    ours = (run_ffn(rewritten, x) - run_ffn(module, x)).square().mean()
    assert float(ours) == pytest.approx(float(ideal), rel=0.02)


# --- feed-forward -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "copies", "bank"), [(24, 2, "select"), (24, 2, "merge"), (4, 150, "select"), (4, 150, "merge")]
)
def test_copies_of_units_fold_without_loss(units: int, copies: int, bank: str) -> None:
    once = feed_forward(units=units)  # 150 copies make a covariance that single precision takes for singular
    order = torch.randperm(units * copies, generator=rng(1))
    shares = torch.softmax(randn(copies), dim=0)
    often = FeedForward(
        once.weight_in.repeat(copies, 1)[order],
        once.bias_in.repeat(copies)[order],
        torch.cat([share * once.weight_out for share in shares], dim=1)[:, order],
        once.bias_out,
        once.norm,
        "gelu",
    )
    assert np.isfinite(closed_form.analyse(often).error).all()
    rewritten = closed_form.rewrite(often, units, 0, rng(), bank=bank).module
    x = stream(once)
    assert isinstance(rewritten, FeedForward)
    error = (run_ffn(rewritten, x) - run_ffn(once, x)).square().mean() / run_ffn(once, x).var()
    assert float(error) < 1e-5  # the ridge of the refit is all that is left


def test_without_the_refit_merged_units_add_up() -> None:
    module = feed_forward(units=24)
    rewritten = closed_form.rewrite(module, 10, 0, rng(), bank="merge", refit=False)
    assert isinstance(rewritten.module, FeedForward)
    for new in range(10):
        summed = module.weight_out[:, rewritten.members == new].sum(dim=1)
        assert torch.allclose(rewritten.module.weight_out[:, new], summed)


def test_repair_gives_merged_rows_their_members_length() -> None:
    module = feed_forward(units=24)
    plain = closed_form.rewrite(module, 8, 0, rng(), bank="merge").module
    repaired = closed_form.rewrite(module, 8, 0, rng(), bank="merge-repaired").module
    assert isinstance(plain, FeedForward)
    assert isinstance(repaired, FeedForward)
    lengths = [_gaussian.through_norm(m.weight_in, m.norm).norm(dim=1) for m in (plain, repaired)]
    assert bool((lengths[1] >= lengths[0] - 1e-9).all())
    assert float(lengths[1].sum()) > float(lengths[0].sum())


def test_the_refit_beats_dropping_and_the_surgeon_beats_magnitude() -> None:
    module, x = feed_forward(units=64, model=24, seed=2), stream(feed_forward(units=64, model=24, seed=2), 2000)

    def error(**how: Any) -> float:
        new = closed_form.rewrite(module, 32, 0, rng(), **how).module
        assert isinstance(new, FeedForward)
        return float((run_ffn(new, x) - run_ffn(module, x)).square().mean())

    assert error() < error(search="magnitude") < error(search="magnitude", refit=False)
    assert error() < error(refit=False)


def test_the_error_curve_is_the_error_on_a_large_gaussian_sample() -> None:
    module = feed_forward(units=32, model=12)
    analysis = closed_form.analyse(module)
    z = randn(60_000, 12, seed=8)
    z -= z.mean(dim=1, keepdim=True)
    x = z * module.norm.scale + module.norm.shift
    for keep in (24, 16, 8):
        new = closed_form.rewrite(module, keep, 0, rng(), analysis).module
        assert isinstance(new, FeedForward)
        seen = float((run_ffn(new, x) - run_ffn(module, x)).square().sum(dim=1).mean())
        assert float(analysis.error[analysis.keep == keep][0]) == pytest.approx(seen, rel=0.1)
    assert analysis.error[0] == 0
    assert bool((np.diff(analysis.error) >= 0).all())


def test_an_analysis_at_hand_changes_nothing() -> None:
    module = feed_forward()
    with_it = closed_form.rewrite(module, 17, 0, rng(), closed_form.analyse(module)).module
    without = closed_form.rewrite(module, 17, 0, rng()).module
    assert isinstance(with_it, FeedForward)
    assert isinstance(without, FeedForward)
    x = stream(module)
    assert torch.allclose(run_ffn(with_it, x), run_ffn(without, x))


# --- attention --------------------------------------------------------------------------------------------------------


def test_moving_biases_changes_no_output() -> None:
    module = attention()
    x = stream(module)
    assert torch.allclose(run_attention(heads_of(module).plain, x), run_attention(module, x))


def test_factorised_products_are_the_truncated_svd() -> None:
    left, right = randn(5, 11), randn(5, 9, seed=1)
    pair = factorise(left, right)
    u, values, vh = torch.linalg.svd(left.T @ right)
    for rank in range(1, 6):
        ours = (pair.left[:rank] @ left).T @ (pair.right[:rank] @ right)
        assert torch.allclose(ours, (u[:, :rank] * values[:rank]) @ vh[:rank])


@pytest.mark.parametrize("head_dim", [4, 3, 2, 1])
def test_truncation_follows_its_error_curve(head_dim: int) -> None:
    module = attention(heads=2, head_dim=4, model=24)
    analysis = closed_form.analyse(module, heads="truncate")
    cut = closed_form.rewrite(module, 2, head_dim, rng(), heads="truncate").module
    assert isinstance(cut, Attention)
    x = stream(module, 200)
    seen = float((run_attention(cut, x) - run_attention(module, x)).square().sum(dim=1).mean())
    modelled = float(analysis.error[analysis.head_dim == head_dim][0])
    assert seen <= modelled + 1e-12
    assert (head_dim == 4) == (modelled == 0)


def test_doubled_heads_in_rotated_bases_merge_without_loss() -> None:
    once = attention(heads=3)
    m, n = randn(3, 4, 4, seed=60) + 3 * torch.eye(4), randn(3, 4, 4, seed=61) + 3 * torch.eye(4)
    inverse_m = torch.linalg.inv(m).transpose(1, 2)
    twice = Attention(
        torch.cat([once.query, m @ once.query]),
        torch.cat([once.query_bias, (m @ once.query_bias.unsqueeze(-1)).squeeze(-1)]),
        torch.cat([once.key, inverse_m @ once.key]),
        torch.cat([once.key_bias, randn(3, 4, seed=62)]),
        torch.cat([once.value, n @ once.value]),
        torch.cat([once.value_bias, (n @ once.value_bias.unsqueeze(-1)).squeeze(-1)]),
        torch.cat([0.3 * once.output, 0.7 * once.output @ torch.linalg.inv(n)]),
        once.output_bias,
        once.norm,
        once.memory_norm,
        scale=once.scale,
    )
    rewritten = closed_form.rewrite(twice, 3, 4, rng())
    assert isinstance(rewritten.module, Attention)
    x = stream(once)
    assert torch.allclose(run_attention(rewritten.module, x), run_attention(once, x), atol=1e-8)
    assert rewritten.members[:3].tolist() == rewritten.members[3:].tolist()


def test_heads_that_can_not_merge_are_dropped() -> None:
    from dataclasses import replace

    module = replace(attention(), can_merge=False)
    rewritten = closed_form.rewrite(module, 4, 4, rng())
    assert int((rewritten.members < 0).sum()) == 2


@pytest.mark.parametrize(("keep", "head_dim", "how"), [(3, 4, "truncate"), (3, 2, "drop"), (3, 2, "merge")])
def test_shapes_that_a_way_can_not_make_are_refused(keep: int, head_dim: int, how: Any) -> None:
    with pytest.raises(UserError, match=f"heads={how} can't make 6 heads 3 of {head_dim}"):
        closed_form.rewrite(attention(), keep, head_dim, rng(), heads=how)


# --- whole models -----------------------------------------------------------------------------------------------------


def logits(folder: Path, family: str) -> torch.Tensor:
    model, _ = paretone.load(folder, dtype="float32")
    with torch.no_grad():
        output = model.double()(
            **{k: v.double() if v.is_floating_point() else v for k, v in tiny_inputs(family).items()}
        )
    return output.logits


def changed(source: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a checkpoint with its tensors changed in float64 and stored so."""
    import shutil

    shutil.copytree(source, out)
    tensors = {name: tensor.double() for name, tensor in load_file(source / "model.safetensors").items()}
    change(tensors)
    save_file({n: t.contiguous() for n, t in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    return out


def attentions(tensors: dict[str, torch.Tensor]) -> list[str]:
    return sorted(name.removesuffix(".q_proj.weight") for name in tensors if name.endswith(".q_proj.weight"))


def ffns(tensors: dict[str, torch.Tensor]) -> list[tuple[str, str]]:
    pairs = ((".intermediate_dense", ".output_dense"), (".fc1", ".fc2"))
    return [
        (name.removesuffix(".weight"), name.removesuffix(f"{a}.weight") + b)
        for name in sorted(tensors)
        for a, b in pairs
        if name.endswith(f"{a}.weight")
    ]


def rotate_heads(tensors: dict[str, torch.Tensor]) -> None:
    """Another basis for queries and keys, and for values and outputs, of every head."""
    for number, name in enumerate(attentions(tensors)):
        for head in range(4):
            rows = slice(8 * head, 8 * head + 8)
            m = randn(8, 8, seed=100 + 10 * number + head) + 3 * torch.eye(8)
            n = randn(8, 8, seed=200 + 10 * number + head) + 3 * torch.eye(8)
            for part, matrix in (("q", m), ("k", torch.linalg.inv(m).T), ("v", n)):
                for kind in ("weight", "bias"):
                    key = f"{name}.{part}_proj.{kind}"
                    if key in tensors:
                        tensors[key][rows] = matrix @ tensors[key][rows]
            out = f"{name}.out_proj.weight"
            tensors[out][:, rows] = tensors[out][:, rows] @ torch.linalg.inv(n)


def permute_units(tensors: dict[str, torch.Tensor]) -> None:
    for number, (fc_in, fc_out) in enumerate(ffns(tensors)):
        order = torch.randperm(64, generator=rng(number))
        for key in (f"{fc_in}.weight", f"{fc_in}.bias"):
            tensors[key] = tensors[key][order]
        tensors[f"{fc_out}.weight"] = tensors[f"{fc_out}.weight"][:, order]


def rescale_norms(tensors: dict[str, torch.Tensor]) -> None:
    """Scales in pre-norm layers move into the weights behind them."""
    behind = {
        ".self_attn_layer_norm": [".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"],
        ".encoder_attn_layer_norm": [".encoder_attn.q_proj"],
        ".layer_norm": [".attention.q_proj", ".attention.k_proj", ".attention.v_proj"],
        ".final_layer_norm": [".feed_forward.intermediate_dense", ".fc1"],
    }
    norms = [n for n in tensors if ".layers." in n and n.endswith("_norm.weight")]
    if any("gru_rel_pos" in name for name in tensors):  # WavLM's gates read the norm's output too
        norms = [n for n in norms if n.endswith(".final_layer_norm.weight")]
    for name in norms:
        layer, _, kind = name.removesuffix(".weight").rpartition(".")
        scale = 0.5 + torch.rand(32, generator=rng(len(name)), dtype=torch.float64) * 2
        for part in ("weight", "bias"):
            tensors[f"{layer}.{kind}.{part}"] *= scale
        for linear in behind[f".{kind}"]:
            if f"{layer}{linear}.weight" in tensors:
                tensors[f"{layer}{linear}.weight"] /= scale


CHANGES = {"permuted units": permute_units, "rotated heads": rotate_heads, "rescaled norms": rescale_norms}


@pytest.mark.parametrize(("family", "change"), list(itertools.product(FAMILIES, CHANGES)))
def test_best_returns_the_same_function_however_a_model_is_written_down(
    family: str, change: str, tmp_path: Path
) -> None:
    plain = changed(save_tiny(tmp_path / "source", family), tmp_path / "plain", lambda tensors: None)
    other = changed(tmp_path / "source", tmp_path / "other", CHANGES[change])
    assert torch.allclose(logits(plain, family), logits(other, family), atol=1e-5)
    for source in (plain, other):
        paretone.compress(source, tmp_path / f"{source.name}-best", preset="best", sparsity=0.4)
    ours, theirs = (logits(tmp_path / f"{name}-best", family) for name in ("plain", "other"))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, logits(plain, family), atol=1e-2)


@pytest.mark.parametrize(("family", "options"), PRE_AND_POST)
def test_exact_steps_change_no_logits(family: str, options: dict[str, bool], tmp_path: Path) -> None:
    """Dropped key biases and moved value biases, written back without any compression."""
    source = changed(save_tiny(tmp_path / "source", family, **options), tmp_path / "plain", lambda tensors: None)

    def move(tensors: dict[str, torch.Tensor]) -> None:
        from paretone.checkpoint import open_checkpoint
        from paretone.families import table_of
        from paretone.modules import Rewrite, module_of, tensors_of

        checkpoint = open_checkpoint(source)
        for group in table_of(checkpoint.config, checkpoint.shapes, "here").groups:
            if group.kind == "heads":
                module = module_of(group, tensors, tensors)
                assert isinstance(module, Attention)
                every = torch.arange(group.width)
                tensors.update(tensors_of(group, Rewrite(heads_of(module).plain, every, every), tensors))

    moved = changed(source, tmp_path / "moved", move)
    before, after = load_file(source / "model.safetensors"), load_file(moved / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert torch.allclose(logits(source, family), logits(moved, family), atol=1e-5)


@pytest.mark.parametrize(("family", "options"), PRE_AND_POST)
def test_folding_norms_changes_no_pre_activation(family: str, options: dict[str, bool], tmp_path: Path) -> None:
    from paretone.checkpoint import open_checkpoint
    from paretone.families import table_of
    from paretone.modules import module_of

    source = changed(save_tiny(tmp_path / "source", family, **options), tmp_path / "plain", lambda tensors: None)
    tensors, checkpoint = load_file(source / "model.safetensors"), open_checkpoint(source)
    for group in table_of(checkpoint.config, checkpoint.shapes, "here").groups:
        module = module_of(group, tensors, tensors)
        z = torch.nn.functional.layer_norm(randn(5, 32, seed=1), (32,))
        x = z * module.norm.scale + module.norm.shift
        if isinstance(module, FeedForward):
            bank = _gaussian.bank_of(module.weight_in, module.bias_in, module.norm, module.activation)
            assert torch.allclose(z @ bank.rows.T + bank.shift, x @ module.weight_in.T + module.bias_in)
        else:
            rows = heads_of(module).query
            direct = torch.einsum("hdm,pm->hpd", module.query, x) + module.query_bias.unsqueeze(1)
            folded = torch.einsum("hdm,pm->hpd", rows[..., :-1], z) + rows[..., -1].unsqueeze(1)
            assert torch.allclose(folded, direct)


def test_a_feed_forward_without_biases_is_refused_by_name() -> None:
    from paretone.modules import module_of

    shapes = {"a.weight": (4, 3), "b.weight": (3, 4)}
    group = ffn_group("ffn", "a", "b", shapes, config_key="intermediate_size", norm="n", activation="gelu")
    with pytest.raises(UserError, match="ffn has no biases"):
        module_of(group, {name: torch.zeros(shape) for name, shape in shapes.items()}, {})
