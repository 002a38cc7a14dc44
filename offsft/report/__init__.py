"""What a run leaves for people: a summary, a table for the terminal, figures, a page."""

from offsft.report.page import write_report
from offsft.report.summary import write_summary
from offsft.report.terminal import summary_table

__all__ = ["summary_table", "write_report", "write_summary"]
