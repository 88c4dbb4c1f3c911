"""From a recipe to a plan: exact widths and sizes, from the headers alone unless an allocation weighs modules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from paretone.checkpoint import Checkpoint, size_bytes
from paretone.errors import UserError, did_you_mean
from paretone.families import family_of
from paretone.groups import Group, Stack, Table
from paretone.methods import method_function, reads_seen, rewrites_modules, works_on_layers
from paretone.modules import Analysis
from paretone.plan.allocation import least_error, tiered_widths
from paretone.plan.blueprint import Blueprint, layer_name, narrowed, shallower
from paretone.plan.budget import TOLERANCE, checked_keep, share_kept, unit_macs, unit_parameters, widths_for_budget
from paretone.plan.choices import choices_of
from paretone.plan.material import Material
from paretone.plan.plan import LayersPlan, ModulePlan, ModuleWidths, Plan, StepPlan
from paretone.plan.recipe import Recipe, Rule, Step, checked_settings
from paretone.plan.sizes import Sizes, check_profile, resized, sizes_of
from paretone.plan.weighing import Analyses, analyses_of, check_untouched, error_weights, variances_of

COUNTED = {"params": "parameters", "bytes": "bytes", "macs": "MACs"}


def resolve(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    source: str,
    analyses: Analyses | None = None,
    materials: Sequence[Material] = (),
) -> Plan:
    """Works out every width of ``recipe`` for the model in ``checkpoint``; only allocations read weights.

    Args:
        analyses: by number of a step and module; what is there is not found out again, and what an allocation by error
            finds is kept there for whoever carries the plan out.
        materials: what each step learns from beside weights.

    Raises:
        UserError: if the model is not supported, a rule has no effect, or a budget can't be met.
    """
    before = blueprint_of(checkpoint, source)
    model, steps = before, []
    analyses = {} if analyses is None else analyses
    for number, step in enumerate(recipe.steps, start=1):
        where = f"step {number} ({step.method})"
        material = materials[number - 1] if materials else Material()
        known = {name: analysis for (of_step, name), analysis in analyses.items() if of_step == number}
        resolved, found = _resolve_step(Request(checkpoint, before, model, step, recipe.seed, where, material, known))
        analyses.update({(number, name): analysis for name, analysis in found.items()})
        model = after_step(model, resolved)
        steps.append(resolved)
    return plan_of(before, tuple(steps), source)


def plan_of(before: Blueprint, steps: tuple[StepPlan, ...], source: str) -> Plan:
    """The plan of resolved ``steps``, with sizes and widths before and after."""
    after = before
    for number, step in enumerate(steps, start=1):
        _check_method(step, f"{source}: step {number} of the plan")
        after = after_step(after, step)
    return Plan(
        source=source,
        family=family_of(before.config, source).MODEL_TYPE,
        steps=steps,
        parameters_before=before.parameters,
        parameters_after=after.parameters,
        bytes_before=before.size_bytes,
        bytes_after=after.size_bytes,
        macs_before=before.macs,
        macs_after=after.macs,
        reference=before.table().reference,
        modules=_widths(before.table(), after.table(), steps),
    )


def _check_method(step: StepPlan, where: str) -> None:
    """Refuses a step whose method or settings don't exist or don't do what it lists."""
    checked_settings(step.method, step.settings, where)
    if step.tier != "data-free" and not reads_seen(step.method):
        raise UserError(f"{where}: {step.method} can't do that: it reads weights alone")
    cuts_heads = any(module.keep_dim != module.head_dim for module in step.modules)
    if cuts_heads and not rewrites_modules(step.method):
        raise UserError(f"{where}: {step.method} can't do that: it keeps heads at their size")
    if (works_on_layers(step.method) and step.modules) or (not works_on_layers(step.method) and step.layers):
        raise UserError(f"{where}: {step.method} can't do that: it lists {'modules' if step.modules else 'layers'}")


def blueprint_of(checkpoint: Checkpoint, where: str) -> Blueprint:
    """The source model as a blueprint."""
    return Blueprint(checkpoint.config, checkpoint.entries, {name: name for name in checkpoint.entries}, where)


def after_step(model: Blueprint, step: StepPlan) -> Blueprint:
    """The model that ``step`` leaves.

    Raises:
        UserError: if the step was planned for a model of other names or widths.
    """
    table = model.table()
    stacks = {stack.name: stack for stack in table.stacks}
    for layers in step.layers:
        if layers.name not in stacks or stacks[layers.name].depth != layers.depth:
            raise UserError(f"the plan does not fit {model.where}: it drops layers of {layers.name} x {layers.depth}")
        model = shallower(model, stacks[layers.name], layers.keep)
    groups = {group.name: group for group in table.groups}
    for module in step.modules:
        group = groups.get(module.name)
        if group is None or (group.width, group.head_dim) != (module.width, module.head_dim or 0):
            here = "none" if group is None else f"{group.width}" + (f" of {group.head_dim}" if group.head_dim else "")
            says = f"{module.width}" + (f" of {module.head_dim}" if module.head_dim else "")
            raise UserError(
                f"the plan does not fit {model.where}: it says {says} units in {module.name}, here are {here}"
            )
    if not step.modules:
        return model
    head_dims = {m.name: m.keep_dim for m in step.modules if m.keep_dim}
    return narrowed(model, {m.name: m.keep for m in step.modules}, head_dims)


@dataclass(frozen=True)
class Request:
    """One step to be resolved: the model before all steps and before this one, what is asked for and what is known."""

    checkpoint: Checkpoint
    source: Blueprint
    model: Blueprint
    step: Step
    seed: int
    where: str
    material: Material
    known: Mapping[str, Analysis]

    @property
    def target(self) -> float | None:
        """What is to be left of what the budget counts; None for a sparsity."""
        if self.step.target is None:
            return None
        what, share = self.step.target
        return share * _counted(self.source, what)


def _counted(model: Blueprint, what: str) -> int:
    return {"params": model.parameters, "bytes": model.size_bytes, "macs": model.macs}[what]


def _resolve_step(asked: Request) -> tuple[StepPlan, dict[str, Analysis]]:
    step = asked.step
    bare = StepPlan(
        method=step.method,
        sparsity=step.sparsity,
        target_params=step.target_params,
        target_bytes=step.target_bytes,
        target_macs=step.target_macs,
        units=step.units,
        allocation=step.allocation,
        preset=step.preset,
        recipe_only=step.beyond_flags,
        seed=asked.seed,
        settings=step.settings,
        inputs=step.inputs,
        calibration=asked.material.calibration,
    )
    if works_on_layers(step.method):
        return bare.model_copy(update={"layers": _layers(asked)}), {}
    groups = [g for g in asked.model.table().groups if step.units in ("all", g.kind)]
    if not groups:
        raise UserError(f"{asked.where}: this model has no {step.units}")
    ruled = _ruled_widths(groups, step.rules, asked.where)
    free = [g for g in groups if g.name not in ruled]
    shapes = sizes_of([g for g in groups if g.name in ruled], ruled, step)
    found: dict[str, Analysis] = {}
    if step.allocation == "error":
        chosen, found = _by_error(asked, free, shapes)
    else:
        widths = _free_widths(asked, free, shapes)
        chosen = sizes_of(free, widths, step)
        if step.allocation == "uniform":
            _check_rules_matter(groups, step, ruled | widths, asked.where)
    shapes |= chosen
    check_profile(groups, shapes, step, asked.where)
    return bare.model_copy(update={"modules": tuple(_module_plan(g, *shapes[g.name]) for g in groups)}), found


def _module_plan(group: Group, keep: int, head_dim: int) -> ModulePlan:
    is_heads = group.kind == "heads"
    return ModulePlan(
        name=group.name,
        kind=group.kind,
        width=group.width,
        keep=keep,
        head_dim=group.head_dim if is_heads else None,
        keep_dim=head_dim if is_heads else None,
    )


def _free_widths(asked: Request, free: list[Group], ruled: Sizes) -> dict[str, int]:
    """Widths of the groups that no rule decides; heads are whole heads here, however a method then shapes them."""
    step, model, where = asked.step, asked.model, asked.where

    def uniform(sparsity: float) -> dict[str, int]:
        return {g.name: max(1, share_kept(g.width, sparsity)) for g in free}

    widths_at = uniform
    if step.allocation == "variance-tiers":
        check_untouched(asked.checkpoint, model, free, where)
        variances = variances_of(asked.checkpoint, model, free)
        units = {g.name: unit_parameters(g, model.shapes) for g in free}

        def widths_at(sparsity: float) -> dict[str, int]:
            return tiered_widths(free, variances, units, sparsity)

    if step.target is None:
        sparsity = step.sparsity or 0.0
        for g in free:
            checked_keep(g, share_kept(g.width, sparsity), f"{where}: sparsity {sparsity:g}")
        return widths_at(sparsity)
    what, share = step.target
    target = asked.target
    assert target is not None

    def left(widths: Mapping[str, int]) -> int:
        return _counted(resized(model, {**ruled, **sizes_of(free, widths, step)}), what)

    return widths_for_budget(
        free,
        _unit_sizes(resized(model, ruled), what),
        widths_at,
        left,
        target=target,
        what=COUNTED[what],
        asked=f"{where}: target_{what} {share:g}",
    )


def _unit_sizes(model: Blueprint, what: str) -> dict[str, int]:
    """What one unit of each group adds to what the budget counts."""
    table, shapes = model.table(), model.shapes
    if what == "macs":
        return {g.name: unit_macs(g, table.applied, shapes) for g in table.groups}
    units = {g.name: unit_parameters(g, shapes) for g in table.groups}
    if what == "params":
        return units
    return {g.name: sum(size_bytes(model.entries[s.tensor]) for s in g.slots) // g.width for g in table.groups}


def _by_error(asked: Request, free: list[Group], ruled: Sizes) -> tuple[Sizes, dict[str, Analysis]]:
    """The shapes of least modelled error for the budget, and what was found out about each module."""
    step, model = asked.step, asked.model
    check_untouched(asked.checkpoint, model, free, asked.where)
    analyses = {group.name: asked.known[group.name] for group in free if group.name in asked.known}
    unknown = [group for group in free if group.name not in analyses]
    if unknown:
        analyses |= analyses_of(asked.checkpoint, model, unknown, step.method, step.settings, asked.material)
    weights = error_weights(asked.checkpoint, model, analyses)
    what = step.target[0] if step.target else "params"
    after_rules = resized(model, ruled)
    units = _unit_sizes(after_rules, what)
    movable = sum(units[g.name] * g.width for g in free)
    budget = movable * (1 - (step.sparsity or 0.0))
    if asked.target is not None:
        budget = movable - (_counted(after_rules, what) - asked.target)
    choices = choices_of(free, analyses, weights, units, step, asked.where)
    picked = least_error(choices, budget)
    reached = sum(float(c.size[option]) for c, option in zip(choices, picked, strict=True))
    _check_reached(asked, reached, budget, _counted(after_rules, what) - movable)
    shapes = {
        name: (int(choice.keep[option]), int(choice.head_dim[option]))
        for choice, option in zip(choices, picked, strict=True)
        for name in choice.names
    }
    return shapes, analyses


def _check_reached(asked: Request, reached: float, budget: float, fixed: float) -> None:
    whole, wanted = reached + fixed, budget + fixed
    what = COUNTED[asked.step.target[0] if asked.step.target else "params"]
    if whole > wanted * (1 + TOLERANCE):
        raise UserError(
            f"{asked.where}: the smallest that floor {asked.step.floor:g} and profile {asked.step.profile} allow "
            f"leaves {whole:,.0f} {what}, and {wanted:,.0f} are asked for; lower floor or ask for more"
        )
    if asked.step.target and whole < wanted * (1 - TOLERANCE):
        raise UserError(
            f"{asked.where}: {wanted:,.0f} {what} can't be met within {TOLERANCE:.1%}; the nearest below are "
            f"{whole:,.0f}, {whole / _counted(asked.source, asked.step.target[0]):.3f} of the whole"
        )


@dataclass(frozen=True)
class _Named:
    """A rule as messages call it."""

    number: int
    rule: Rule

    def __str__(self) -> str:
        return f"rule {self.number} ({self.rule.match!r})"


def _ruled_widths(groups: list[Group], rules: tuple[Rule, ...], where: str) -> dict[str, int]:
    widths: dict[str, int] = {}
    for number, rule in enumerate(rules, start=1):
        named = _Named(number, rule)
        matched = [g for g in groups if fnmatchcase(g.name, rule.match)]
        if not matched:
            names = [g.name for g in groups]
            hint = did_you_mean(rule.match, names)
            raise UserError(f"{where}, {named} matches no module{hint or ';'} modules here: {_some(names)}")
        decides = [g for g in matched if g.name not in widths]
        if not decides:
            raise UserError(f"{where}, {named} has no effect: earlier rules decide all its modules")
        for group in decides:
            keep = rule.keep if rule.keep is not None else share_kept(group.width, rule.sparsity or 0.0)
            widths[group.name] = checked_keep(group, keep, f"{where}, {named}")
    return widths


def _check_rules_matter(groups: list[Group], step: Step, widths: Mapping[str, int], where: str) -> None:
    """Refuses a rule whose modules would have the same widths without it."""
    if step.target is not None:
        return  # every rule moves the budget of the others
    decided: set[str] = set()
    for number, rule in enumerate(step.rules, start=1):
        matched = [g for g in groups if fnmatchcase(g.name, rule.match) and g.name not in decided]
        decided |= {g.name for g in matched}
        later = step.rules[number:]
        if all(widths[g.name] == _without(g, later, step.sparsity or 0.0) for g in matched):
            raise UserError(f"{where}, {_Named(number, rule)} has no effect: its modules keep that width without it")


def _without(group: Group, rules: tuple[Rule, ...], sparsity: float) -> int:
    rule = next((r for r in rules if fnmatchcase(group.name, r.match)), None)
    if rule is not None and rule.keep is not None:
        return rule.keep
    return share_kept(group.width, sparsity if rule is None or rule.sparsity is None else rule.sparsity)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")


def _layers(asked: Request) -> tuple[LayersPlan, ...]:
    """Which layers stay, from a sparsity, the method's own settings, or a budget."""
    model, step, where = asked.model, asked.step, asked.where
    stacks = model.table().stacks
    if step.rules:
        raise UserError(f"{where}: rules have no effect on whole layers; use the setting stack or layers")
    wanted = step.settings.get("stack", "all")
    if wanted != "all" and wanted not in {s.name.split(".")[-2] for s in stacks}:
        raise UserError(f"{where}: this model has no {wanted}; its layers are {', '.join(s.name for s in stacks)}")
    if step.target is None:
        return _kept(stacks, step, None if step.sparsity is None else step.sparsity)
    (what, share), target, whole = step.target, asked.target or 0.0, _counted(asked.source, step.target[0])
    choices = {}
    for count in range(max(s.depth for s in stacks)):
        kept = _kept(stacks, step, count / max(s.depth for s in stacks))
        after = after_step(model, StepPlan(method=step.method, seed=0, settings={}, layers=kept))
        choices[_counted(after, what)] = kept
    nearest = min(choices, key=lambda counted: abs(counted - target))
    if abs(nearest - target) > TOLERANCE * target:
        reachable = ", ".join(f"{counted / whole:.3f}" for counted in sorted(choices, reverse=True))
        raise UserError(f"{where}: whole layers can't meet target_{what} {share:g}; they reach {reachable}")
    return choices[nearest]


def _kept(stacks: tuple[Stack, ...], step: Step, sparsity: float | None) -> tuple[LayersPlan, ...]:
    keep_layers = method_function(step.method)
    plans = []
    for stack in stacks:
        count = None if sparsity is None else share_kept(stack.depth, sparsity)
        kept = keep_layers(stack.name, stack.depth, count, **step.settings)
        plans.append(LayersPlan(name=stack.name, depth=stack.depth, keep=kept))
    return tuple(plans)


def _widths(before: Table, after: Table, steps: tuple[StepPlan, ...]) -> tuple[ModuleWidths, ...]:
    """Every module of the source with its last width, followed through the steps' renumberings."""
    final = {group.name: group for group in after.groups}
    rows = []
    for group in before.groups:
        name: str | None = group.name
        for step in steps:
            for layers in step.layers:
                name = layer_name(name, Stack(layers.name, layers.depth, ""), layers.keep) if name else None
        is_heads = group.kind == "heads"
        rows.append(
            ModuleWidths(
                name=group.name,
                kind=group.kind,
                width_before=group.width,
                width_after=final[name].width if name else 0,
                head_dim_before=group.head_dim if is_heads else None,
                head_dim_after=(final[name].head_dim if name else 0) if is_heads else None,
            )
        )
    return tuple(rows)
