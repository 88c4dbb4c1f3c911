"""Pages of grids: hundreds of cells with labels, what differs beyond chance, and pictures of it."""

from paretone.report.grid.page import write_grid_report
from paretone.report.grid.records import Grid, GridCell

__all__ = ["Grid", "GridCell", "write_grid_report"]
