"""Blind votes between models: battles, votes, and the ranking computed from them."""
