"""Conversations with one or more models about images."""
