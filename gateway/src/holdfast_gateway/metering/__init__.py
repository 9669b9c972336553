"""What a request came to: the usage table, the ledger, the sums."""
