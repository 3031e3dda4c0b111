"""Prefix sharing: all questions about an image share its encoding and prompt prefix."""
