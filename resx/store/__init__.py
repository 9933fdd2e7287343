"""What is recorded: run folders, tidy tables of them, bundles, and what made the numbers."""
