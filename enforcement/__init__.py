"""Policy enforcement points: one decision core behind every transport."""
