"""normkit: normalization for PyTorch and NumPy that is right, fast, and tells what is wrong."""

__version__ = "0.1.0"
