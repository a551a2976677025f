"""Segmentation of brain, tumour and tissue on the grid of the atlas."""
