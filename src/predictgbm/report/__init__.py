"""The report: tables of a run in, one HTML page and a headline for the terminal out."""
