"""The page: the ledger and its evidence as one HTML file or as Markdown, and the check that recomputes it."""
