"""Blind votes between models: battles, votes, and the ranking that follows from them."""
