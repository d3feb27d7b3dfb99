"""raypatch: which patch size should my Vision Transformer use, what does it cost, is the difference real?"""

__version__ = "0.1.0"
