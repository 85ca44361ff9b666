"""Records in; checkpoints and proofs out: an append-only Merkle log that public tools verify."""
