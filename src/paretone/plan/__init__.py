"""Recipes resolved into plans, without reading weights."""

from paretone.plan.blueprint import Blueprint, layer_name
from paretone.plan.material import Material
from paretone.plan.plan import Calibration, ModulePlan, Plan, StepPlan, read_plan
from paretone.plan.presets import DEFAULT_PRESET, PRESETS
from paretone.plan.reading import explain, parse_settings, put, read_yaml
from paretone.plan.recipe import CALIBRATE_LIMIT, Recipe, Step, checked_recipe, read_recipe
from paretone.plan.resolve import after_step, blueprint_of, plan_of, resolve
from paretone.plan.weighing import Analyses, Trees

__all__ = [
    "CALIBRATE_LIMIT",
    "DEFAULT_PRESET",
    "PRESETS",
    "Analyses",
    "Blueprint",
    "Calibration",
    "Material",
    "ModulePlan",
    "Plan",
    "Recipe",
    "Step",
    "StepPlan",
    "Trees",
    "after_step",
    "blueprint_of",
    "checked_recipe",
    "explain",
    "layer_name",
    "parse_settings",
    "plan_of",
    "put",
    "read_plan",
    "read_recipe",
    "read_yaml",
    "resolve",
]
