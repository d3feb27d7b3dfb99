"""The report's tables: which numbers each shows, and how a table is written as Markdown, LaTeX or CSV."""
