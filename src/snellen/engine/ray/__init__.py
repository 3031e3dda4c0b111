"""The evaluation loop in many processes, by Ray."""
