"""Chains: every piece of LLM work as a generator of steps."""
