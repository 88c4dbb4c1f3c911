"""Carries a plan out: module by module from the source's files into the new ones."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from paretone.checkpoint import Checkpoint, TensorWriter
from paretone.errors import UserError
from paretone.groups import Fold, Group, Stack, shrink, units_of
from paretone.methods import method_function, rewrites_modules
from paretone.modules import REWRITING, Rewrite, Seen, module_of, tensors_of, work_bytes
from paretone.parallel import two_at_a_time
from paretone.plan import (
    Analyses,
    Blueprint,
    Material,
    ModulePlan,
    Plan,
    StepPlan,
    Trees,
    after_step,
    blueprint_of,
    layer_name,
)
from paretone.progress import track


@dataclass(frozen=True)
class Pass:
    """One module going through one step."""

    step_number: int
    step: StepPlan
    group: Group
    module: ModulePlan
    norms: Mapping[str, str]  # tensors of the norms in front, by their names in this step: names in the source


@dataclass(frozen=True)
class Lineage:
    """One module of the source on its way through all steps; ``final`` is its last name."""

    source: Group
    passes: tuple[Pass, ...]
    final: str

    @property
    def changes(self) -> bool:
        """Whether any step makes the module narrower."""
        return any(p.module.changes for p in self.passes)


@dataclass(frozen=True)
class Folded:
    """A module's new tensors, by their new names, and where its units went.

    Attributes:
        source_units: for each new unit, the source's unit that stands for it.
        members: for each unit of the source, its new unit, or -1.
    """

    lineage: Lineage
    tensors: Mapping[str, Tensor]
    source_units: tuple[int, ...]
    members: tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """What is known of modules beside their weights.

    Attributes:
        analyses: those that the plan was made from, where they are at hand, by step and name.
        trees: of the source's units, in the same way. Like analyses, they save time and change no byte.
        materials: what each step learns from beside weights.
    """

    analyses: Analyses
    trees: Trees
    materials: Sequence[Material]

    def seen(self, step_number: int, source: str) -> Seen | None:
        """What was seen at the source's module of that name."""
        return self.materials[step_number - 1].seen(source) if self.materials else None


@dataclass(frozen=True)
class Outcome:
    """The model that was written: its blueprint, and by source name each module whose units changed."""

    model: Blueprint
    folded: Mapping[str, Folded]


def write_weights(checkpoint: Checkpoint, plan: Plan, folder: Path, known: Known) -> Outcome:
    """Writes the compressed tensors of ``checkpoint`` to ``folder``.

    Two modules at work, two that wait to be written and the tensor that is being copied are all that is in memory.
    Their order has no influence: each draws from a generator of its own, seeded by the plan's seed, the step and its
    name.
    """
    source = blueprint_of(checkpoint, plan.source)
    final, lineages = _follow(source, plan)
    changed = [line for line in lineages if line.changes]
    slots = {group.name: list(group.tensors) for group in final.table().groups}
    rest = set(final.entries) - {name for line in changed for name in slots[line.final]}
    folded: dict[str, Folded] = {}
    with TensorWriter(folder, final.entries) as writer:

        def fold(lineage: Lineage) -> Folded:
            return _fold_module(checkpoint, lineage, slots[lineage.final], known)

        rewritten = [line.source for line in changed if any(rewrites_modules(p.step.method) for p in line.passes)]
        two = two_at_a_time(fold, changed, bytes_each=work_bytes(rewritten, checkpoint.shapes, REWRITING))
        for done in track(two, "compressing", len(changed)):
            for name, tensor in done.tensors.items():
                writer.write(name, tensor)
            folded[done.lineage.source.name] = Folded(done.lineage, {}, done.source_units, done.members)
        for name in track([name for name in final.entries if name in rest], "copying"):
            origin = final.origin[name]
            writer.write(name, checkpoint.read([origin])[origin])
        _check_dropped(checkpoint, set(final.origin.values()))
    return Outcome(final, folded)


def _check_dropped(checkpoint: Checkpoint, used: set[str]) -> None:
    """Reads what is not carried over too: a broken checkpoint is refused whichever layers go."""
    for name in checkpoint.entries:
        if name not in used:
            checkpoint.read([name])


def _follow(source: Blueprint, plan: Plan) -> tuple[Blueprint, list[Lineage]]:
    """The final model and every surviving module's way to it."""
    paths: dict[str, tuple[Group, list[Pass]]] = {g.name: (g, []) for g in source.table().groups}
    model = source
    for number, step in enumerate(plan.steps, start=1):
        groups = {group.name: group for group in model.table().groups}
        modules = {module.name: module for module in step.modules}
        for name, (_, passes) in paths.items():
            if name in modules:
                norms = {norm: model.origin[norm] for norm in groups[name].norms}
                passes.append(Pass(number, step, groups[name], modules[name], norms))
        model = after_step(model, step)
        for layers in step.layers:
            stack = Stack(layers.name, layers.depth, "")
            paths = {
                new: path for name, path in paths.items() if (new := layer_name(name, stack, layers.keep)) is not None
            }
    return model, [Lineage(group, tuple(passes), name) for name, (group, passes) in paths.items()]


def _fold_module(checkpoint: Checkpoint, lineage: Lineage, final_names: list[str], known: Known) -> Folded:
    """Takes one module through all its steps."""
    read = checkpoint.read(lineage.source.tensors)
    tensors = [read.pop(name) for name in lineage.source.tensors]
    source_units = torch.arange(lineage.source.width)
    members = torch.arange(lineage.source.width)
    for one in lineage.passes:
        if one.module.changes:
            weights = dict(zip(one.group.tensors, tensors, strict=True))
            changed = _change(checkpoint, one, weights, known, lineage.source.name)
            tensors = [changed.tensors[name] for name in one.group.tensors]
            source_units = source_units[changed.representative]
            members = torch.where(members >= 0, changed.members[members.clamp(min=0)], -1)
    named = dict(zip(final_names, tensors, strict=True))
    _check_finite(named)
    return Folded(lineage, named, tuple(source_units.tolist()), tuple(members.tolist()))


@dataclass(frozen=True)
class _Changed:
    """A module's tensors after one step, and where its units went in it."""

    tensors: Mapping[str, Tensor]
    members: Tensor
    representative: Tensor


def _change(checkpoint: Checkpoint, one: Pass, weights: Mapping[str, Tensor], known: Known, source: str) -> _Changed:
    rng = torch.Generator().manual_seed(_seed(one))
    function, settings = method_function(one.step.method), one.step.settings
    if rewrites_modules(one.step.method):
        read = checkpoint.read(dict.fromkeys(one.norms.values()))
        norms = {name: read[origin] for name, origin in one.norms.items()}
        module = module_of(one.group, weights, norms, known.seen(one.step_number, source))
        analysis = known.analyses.get((one.step_number, one.group.name))
        rewritten: Rewrite = function(module, one.module.keep, one.module.keep_dim or 0, rng, analysis, **settings)
        tensors = tensors_of(one.group, rewritten, weights)
        return _Changed(tensors, rewritten.members, rewritten.representative)
    tree = known.trees.get((one.step_number, one.group.name))
    more = () if tree is None else (tree,)
    fold: Fold = function(units_of(one.group, weights), one.module.keep, rng, *more, **settings)
    shrunk = {slot.tensor: shrink(weights[slot.tensor], slot, fold) for slot in one.group.slots}
    return _Changed({**weights, **shrunk}, fold.members, fold.representative)


def _seed(one: Pass) -> int:
    text = f"{one.step.seed}/{one.step_number}/{one.group.name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{name} overflows {str(tensor.dtype).removeprefix('torch.')} once its units are added up; "
                "store the model in float32 or bfloat16 first"
            )
