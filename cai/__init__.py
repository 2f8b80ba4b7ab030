"""cai: constitutional AI self-improvement (Bai et al. 2022, arXiv 2212.08073)."""

__version__ = "0.1.0"
