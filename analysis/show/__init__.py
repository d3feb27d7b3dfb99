"""How results are shown: tables, plots, the page."""
