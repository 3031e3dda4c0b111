"""Hosted models: providers, retries, rate limits, and the chat protocol."""

from snellen.models.remote import endpoint, openai

__all__ = ["endpoint", "openai"]
