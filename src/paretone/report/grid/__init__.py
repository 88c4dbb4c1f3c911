"""Pages of grids: hundreds of cells with labels, what differs beyond chance, and pictures of it."""

from paretone.report.grid.page import write_grid_report
from paretone.report.grid.records import Grid, GridCell
from paretone.report.grid.tables import grid_tables

__all__ = ["Grid", "GridCell", "grid_tables", "write_grid_report"]
