"""Measures on this machine what the method rests on: soft labels, human pairs, RL, the judge."""
