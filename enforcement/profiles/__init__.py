"""What an agent usually does, learned from its own calls, and what departs from it."""
