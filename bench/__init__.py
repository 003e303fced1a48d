"""Speed and quality against other trainers, and the ledger of what was measured. Not part of the package."""
