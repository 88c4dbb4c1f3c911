"""Recipes resolved into plans, without reading weights."""

from paretone.plan.blueprint import Blueprint, layer_name
from paretone.plan.plan import Plan, StepPlan, read_plan
from paretone.plan.recipe import Recipe, checked_recipe, parse_settings, read_recipe
from paretone.plan.resolve import after_step, blueprint_of, plan_of, resolve

__all__ = [
    "Blueprint",
    "Plan",
    "Recipe",
    "StepPlan",
    "after_step",
    "blueprint_of",
    "checked_recipe",
    "layer_name",
    "parse_settings",
    "plan_of",
    "read_plan",
    "read_recipe",
    "resolve",
]
