"""A second verifier of packs, for whoever wants nothing of ours at run time: plain Python, its own signatures."""
