"""The kafka-python whose names, defaults and results these are."""

__version__ = "3.0.12"
