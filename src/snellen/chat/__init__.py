"""Conversations with one or several models about images."""
