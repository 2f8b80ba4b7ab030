"""Stages: what each step of a run does with records, models and files."""
