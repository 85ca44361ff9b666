"""From records to what an auditor accepts: controls, populations, packs, verification."""
