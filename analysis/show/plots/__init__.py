"""The report's plots: which data each shows, how a panel is drawn, and the files they become."""
