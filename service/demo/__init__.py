"""The demonstration: one simulated day of agents, servers and a gateway, on real parts from end to end."""
