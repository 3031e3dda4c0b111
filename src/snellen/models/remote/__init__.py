"""Hosted models: providers, retries, rate limits, and the chat protocol."""

from snellen.models.remote import endpoint, openai, vllm_local

__all__ = ["endpoint", "openai", "vllm_local"]
