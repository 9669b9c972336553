"""Who may do what, and the proof: principals, tokens, decisions, the ledger."""
