"""The run report: one self-contained HTML file."""

from covermap.report.page import write_report

__all__ = ["write_report"]
