"""From a recipe to a plan: exact widths and sizes, from the headers alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from paretone.checkpoint import Checkpoint
from paretone.errors import UserError, did_you_mean
from paretone.families import family_of
from paretone.groups import Group, Stack, Table
from paretone.methods import method_function, works_on_layers
from paretone.plan.blueprint import Blueprint, layer_name, narrowed, shallower
from paretone.plan.budget import TOLERANCE, checked_keep, share_kept, widths_for_parameters
from paretone.plan.plan import LayersPlan, ModulePlan, ModuleWidths, Plan, StepPlan
from paretone.plan.recipe import Recipe, Rule, Step, checked_settings


def resolve(checkpoint: Checkpoint, recipe: Recipe, *, source: str) -> Plan:
    """Works out every width of ``recipe`` for the model in ``checkpoint``; reads no weights.

    Raises:
        UserError: if the model is not supported, a rule has no effect, or a budget can't be met.
    """
    before = blueprint_of(checkpoint, source)
    model, steps = before, []
    for number, step in enumerate(recipe.steps, start=1):
        resolved = _resolve_step(model, step, recipe.seed, before.parameters, f"step {number} ({step.method})")
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
    widths = {group.name: group.width for group in table.groups}
    for module in step.modules:
        if widths.get(module.name) != module.width:
            here = widths.get(module.name, "none")
            raise UserError(
                f"the plan does not fit {model.where}: it says {module.width} units in {module.name}, here are {here}"
            )
    return narrowed(model, {m.name: m.keep for m in step.modules}) if step.modules else model


def _resolve_step(model: Blueprint, step: Step, seed: int, source_parameters: int, where: str) -> StepPlan:
    bare = StepPlan(
        method=step.method,
        sparsity=step.sparsity,
        target_params=step.target_params,
        units=step.units,
        seed=seed,
        settings=step.settings,
    )
    if works_on_layers(step.method):
        return bare.model_copy(update={"layers": _layers(model, step, source_parameters, where)})
    groups = [g for g in model.table().groups if step.units in ("all", g.kind)]
    widths = _ruled_widths(groups, step.rules, where)
    free = [g for g in groups if g.name not in widths]
    widths |= _free_widths(model, free, widths, step, source_parameters, where)
    _check_rules_matter(groups, step, widths, where)
    modules = tuple(ModulePlan(name=g.name, kind=g.kind, width=g.width, keep=widths[g.name]) for g in groups)
    return bare.model_copy(update={"modules": modules})


def _free_widths(
    model: Blueprint, free: list[Group], ruled: Mapping[str, int], step: Step, source_parameters: int, where: str
) -> dict[str, int]:
    """Widths of the groups that no rule decides."""
    if step.target_params is None:
        sparsity = step.sparsity or 0.0
        return {g.name: checked_keep(g, share_kept(g.width, sparsity), f"{where}: sparsity {sparsity:g}") for g in free}
    after_rules = narrowed(model, ruled)
    return widths_for_parameters(
        free,
        after_rules.shapes,
        total=after_rules.parameters,
        target=step.target_params * source_parameters,
        asked=f"{where}: target_params {step.target_params:g}",
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
    if step.target_params is not None:
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


def _layers(model: Blueprint, step: Step, source_parameters: int, where: str) -> tuple[LayersPlan, ...]:
    """Which layers stay, from a sparsity, the method's own settings, or a number of parameters."""
    stacks = model.table().stacks
    if step.rules:
        raise UserError(f"{where}: rules have no effect on whole layers; use the setting stack or layers")
    wanted = step.settings.get("stack", "all")
    if wanted != "all" and wanted not in {s.name.split(".")[-2] for s in stacks}:
        raise UserError(f"{where}: this model has no {wanted}; its layers are {', '.join(s.name for s in stacks)}")
    if step.target_params is None:
        return _kept(stacks, step, None if step.sparsity is None else step.sparsity)
    target = step.target_params * source_parameters
    choices = {}
    for count in range(max(s.depth for s in stacks)):
        kept = _kept(stacks, step, count / max(s.depth for s in stacks))
        choices[after_step(model, StepPlan(method=step.method, seed=0, settings={}, layers=kept)).parameters] = kept
    nearest = min(choices, key=lambda parameters: abs(parameters - target))
    if abs(nearest - target) > TOLERANCE * target:
        reachable = ", ".join(f"{p / source_parameters:.3f}" for p in sorted(choices, reverse=True))
        raise UserError(
            f"{where}: whole layers can't meet target_params {step.target_params:g}; they reach {reachable}"
        )
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
    final = {group.name: group.width for group in after.groups}
    rows = []
    for group in before.groups:
        name: str | None = group.name
        for step in steps:
            for layers in step.layers:
                name = layer_name(name, Stack(layers.name, layers.depth, ""), layers.keep) if name else None
        after_width = final[name] if name else 0
        rows.append(ModuleWidths(name=group.name, kind=group.kind, width_before=group.width, width_after=after_width))
    return tuple(rows)
