"""Pages and tables drawn from result files alone; no model is loaded here."""

from paretone.report.load import read_results
from paretone.report.page import write_report
from paretone.report.table import terminal_table

__all__ = ["read_results", "terminal_table", "write_report"]
