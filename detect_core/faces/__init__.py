"""Find faces on small frames, follow them over time, say where their crops are."""
