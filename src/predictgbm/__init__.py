"""PREDICT-GBM: growth models of glioblastoma, judged by the recurrence that came."""

__version__ = "0.1.0"
