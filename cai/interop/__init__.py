"""Other projects' formats: what comes in, and what a run gives out."""
