"""The evaluation loop in many processes, on Ray."""
