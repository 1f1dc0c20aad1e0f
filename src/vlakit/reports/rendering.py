"""A table with its page: the page knows tables, tables know no page."""

from __future__ import annotations

from dataclasses import replace

from vlakit.compare.grids import Report
from vlakit.reports.tables import formats
from vlakit.reports.tables.table import TableReport


def report_of(table: TableReport) -> Report:
    """A table, ready for every format."""
    report = formats.report_of(table)

    def page() -> str:
        from vlakit.reports.page.html_table import table_page  # Jinja, which no other format needs

        return table_page(table, report.grids, report.notes)

    return replace(report, page=page)
