"""The paper's tables, filled and judged."""
