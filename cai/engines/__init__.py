"""Engines: one interface over vLLM, transformers and a fake."""
