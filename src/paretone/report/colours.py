"""The colours of all plots; on the page each becomes a variable that follows its theme."""

INK = "#1c2128"
MUTED = "#59636e"
GRID = "#d1d9e0"
PAPER = "#ffffff"
# Okabe and Ito, "Color Universal Design" (2008), without black and yellow.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
ERRORS = {"substitutions": "#0072b3", "deletions": "#e69f01", "insertions": "#cc79a8"}
